"""Checks that an ensemble rejects requests only at its first step.

If a step rejects a request while another step of it runs, that request never ends in tritonserver 2.51
(triton-inference-server/core#466). If a later step rejects it, the work of the earlier ones is lost.
"""

from collections.abc import Iterator
from typing import Any

from slipway.lint.ensembles import Wiring
from slipway.lint.finding import Findings
from slipway.lint.models import ENSEMBLE, Repository, listed, proto

REMEDIES = {
    "queue-in-a-branch": "remove it here, and bound the queue of the ensemble's first step",
    "queue-not-first": "remove it here, and bound the queue of the ensemble's first step",
    "queue-limit": "remove it, and let requests time out there (default_timeout_microseconds)",
}
FIRST_STEP_MAY_HAVE_A_LIMIT = True
"""Whether `max_queue_size` of a first step is allowed, as specs offer it. With it, servers ended when gRPC clients gave
up under load (docs/adr/0026)."""


def check_queues(repository: Repository) -> Findings:
    """Check every step that may reject a request for its place in each ensemble."""
    for name in repository.ensembles:
        wiring = Wiring.of(repository.models[name].config)
        for index, step in enumerate(wiring.steps):
            target = repository.models.get(step.model_name)
            if target is None or target.problem or target.backend == ENSEMBLE:
                continue
            beside = [wiring.steps[other].model_name for other in wiring.in_parallel(index)]
            for field, what in _bounds(target.config):
                if beside:
                    rule, why = "queue-in-a-branch", f"{listed(beside)} runs beside it in {name}"
                elif wiring.needs[index]:
                    rule, why = "queue-not-first", f"in {name} it is not the first step, so earlier work is lost"
                elif field.endswith("max_queue_size") and not FIRST_STEP_MAY_HAVE_A_LIMIT:
                    rule, why = "queue-limit", f"{name} ends the server if gRPC clients give up meanwhile"
                else:
                    continue
                yield target.finding(rule, field, f"{what}, and {why}", REMEDIES[rule])


def _bounds(config: Any) -> Iterator[tuple[str, str]]:
    """The fields by which a step rejects a request, each with a description."""
    batching = config.dynamic_batching
    policies = {"default_queue_policy": batching.default_queue_policy}
    policies |= {
        f"priority_queue_policy[{key}]": value for key, value in sorted(batching.priority_queue_policy.items())
    }
    for name, policy in policies.items():
        field = f"dynamic_batching.{name}"
        if policy.max_queue_size:
            yield f"{field}.max_queue_size", f"rejects a request when {policy.max_queue_size} wait"
        if policy.default_timeout_microseconds and policy.timeout_action == proto.ModelQueuePolicy.REJECT:
            limit_us = policy.default_timeout_microseconds
            yield f"{field}.default_timeout_microseconds", f"rejects a request that waited {limit_us} µs"
        if policy.allow_timeout_override and policy.timeout_action == proto.ModelQueuePolicy.REJECT:
            yield f"{field}.allow_timeout_override", "rejects a request after the time that its client sets"
