"""Counts of both arms from the gateway's metrics."""

import http.client
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import quote

from slipway.contract import ServingError, SpecError
from slipway.contract.spec import LatencyGate
from slipway.errors import requiring
from slipway.operations.gateway.access_logs import ANSWERS, LATENCY, SCOPE
from slipway.operations.gateway.settings import GatewaySettings, ServerPorts
from slipway.operations.release.counts import Counters, Moment, Reading
from slipway.serving.ports import HOST
from slipway.system.timed_http import TimedConnection

with requiring("prometheus_client", extra="serve"):
    from prometheus_client.parser import text_string_to_metric_families

ArmName: TypeAlias = Literal["stable", "candidate"]
ARMS: tuple[ArmName, ...] = ("stable", "candidate")
TIMEOUT_S = 2.0
"""Seconds in which the gateway must have given its whole answer."""
MOST_BYTES = 1 << 26
"""Largest answer in bytes that is taken; no gateway gives a longer one."""
MERGE_S = 0.05
"""Seconds that Envoy has to add its threads' histograms up, which the first of two questions makes it do."""


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class ArmCounts:
    """Requests that were given to one arm since the gateway started."""

    requests: int
    errors: int
    """Requests without a good answer of this arm's server: errors, refusals, time-outs, and `elsewhere`. A client that
    gave up counts too, since that alone shows a server that hangs; both arms have the same impatient clients."""
    elsewhere: int
    """Requests of the candidate that the stable server answered, since the candidate could not."""
    over_budget: int | None
    """Requests over their classifier's latency budget; None if the histogram is missing."""

    @property
    def counters(self) -> Counters:
        return Counters(self.requests, self.errors, self.over_budget)


def fetch(settings: GatewaySettings, pattern: str) -> str:
    """The gateway's metrics whose names match the regular expression `pattern`.

    Raises:
        ServingError: the gateway does not answer as a whole within `TIMEOUT_S`.
    """
    address = f"{HOST}:{settings.metrics_port} (metrics_port)"
    connection = TimedConnection(HOST, settings.metrics_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", f"/stats/prometheus?filter={quote(pattern)}")
        response = connection.getresponse()
        content = response.read(MOST_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(
            f"{address} does not answer: {error}; is the gateway running? slipway "
            "serve --gateway, or slipway gateway, starts it"
        ) from None
    finally:
        connection.close()
    if response.status != 200:
        raise ServingError(f"{address} answers {response.status}; is it a gateway of slipway?")
    if len(content) > MOST_BYTES:
        raise ServingError(f"{address} answers with over {MOST_BYTES:,} bytes; is it a gateway of slipway?")
    if response.length:
        raise ServingError(f"{address} ended its answer {response.length:,} bytes early; call again")
    return content.decode(errors="replace")


def samples(text: str) -> Iterator[Sample]:
    """Every sample of a text in Prometheus' format.

    Raises:
        ServingError: the text is not in this format.
    """
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                yield Sample(sample.name, sample.labels, sample.value)
    except ValueError as error:
        raise ServingError(f"the metrics of the gateway cannot be read: {error}; is it a gateway of slipway?") from None


def counts(settings: GatewaySettings, models: Collection[str]) -> dict[ArmName, ArmCounts]:
    """Ask the gateway for the counts of both arms, over `models`.

    Envoy adds the histograms of its threads up when it is asked, but after it has answered; so it is asked twice, and
    the counters are those of the first time.

    Raises:
        ServingError: the gateway does not answer.
        SpecError: a budget is not an edge of the running gateway's histograms.
    """
    answers = fetch(settings, rf"^{SCOPE}\.")
    time.sleep(MERGE_S)
    return counts_of(answers, fetch(settings, rf"^{SCOPE}\."), settings=settings, models=models)


def counts_of(
    answers: str, latency: str, *, settings: GatewaySettings, models: Collection[str]
) -> dict[ArmName, ArmCounts]:
    """The counts in two texts of metrics, the second of which has the latencies.

    A series that Envoy does not list was never counted, so a missing arm has 0 requests.

    Raises:
        ServingError: the texts are not as Envoy's metrics are here.
        SpecError: a budget is not an edge of the histograms.
    """
    answered = [one for one in samples(answers) if one.name.startswith(f"envoy_{SCOPE}_{ANSWERS}")]
    taken = [one for one in samples(latency) if one.name.startswith(f"envoy_{SCOPE}_{LATENCY}")]
    try:
        return {arm: _arm(arm, answered, taken, settings=settings, models=models) for arm in ARMS}
    except (KeyError, ValueError, ArithmeticError) as error:
        raise ServingError(f"the metrics of the gateway cannot be read: {error}; is it a gateway of slipway?") from None


def reading(counts: dict[ArmName, ArmCounts], moment: Moment) -> Reading:
    return Reading(moment, counts["stable"].counters, counts["candidate"].counters)


def _arm(
    arm: ArmName,
    answered: Collection[Sample],
    taken: Collection[Sample],
    *,
    settings: GatewaySettings,
    models: Collection[str],
) -> ArmCounts:
    requests = errors = elsewhere = 0
    own = _servers(settings.candidate) if arm == "candidate" and settings.candidate else None
    for sample in answered:
        labels, count = sample.labels, round(sample.value)
        if _arm_of(labels, settings) != arm or labels.get("model") not in models:
            continue
        well, away = _well(labels), own is not None and labels.get("server") not in own
        requests += count
        errors += count * (away or not well)
        elsewhere += count * (away and well)
    over = [_over(model, arm, taken, settings=settings) for model in sorted(models)]
    found = [count for count in over if count is not None]
    return ArmCounts(requests, errors, elsewhere, sum(found) if found or not requests else None)


def _well(labels: dict[str, str]) -> bool:
    return labels.get("grpc") == "OK" or (not labels.get("grpc") and labels.get("code", "").startswith("2"))


def _arm_of(labels: dict[str, str], settings: GatewaySettings) -> ArmName:
    """The arm of a sample. A request without an answer has no such label, and counts for the server that it reached."""
    if (arm := labels.get("arm")) in ARMS:
        return arm
    candidate = settings.candidate
    return "candidate" if candidate and labels.get("server") in _servers(candidate) else "stable"


def _servers(ports: ServerPorts) -> set[str]:
    return {f"{HOST}:{ports.grpc}", f"{HOST}:{ports.http}"}


def _over(model: str, arm: ArmName, taken: Collection[Sample], *, settings: GatewaySettings) -> int | None:
    """Requests of `model` over its budget: all, less the bucket whose edge is the budget. None without a histogram."""
    budget_ms = settings.all_budgets_ms.get(model, LatencyGate().p99_ms)
    own = [one for one in taken if one.labels.get("model") == model and one.labels.get("arm") == arm]
    total = next((one.value for one in own if one.name.endswith("_count")), None)
    if total is None:
        return None
    edges_us = {float(one.labels["le"]): one.value for one in own if one.name.endswith("_bucket")}
    within = edges_us.get(1000 * budget_ms)
    if within is None:
        raise SpecError(
            f"budgets_ms: {model}: {budget_ms:g} ms is not an edge of the running gateway's histogram; start the "
            "gateway again, so that it counts at this budget"
        )
    return max(0, round(total - within))
