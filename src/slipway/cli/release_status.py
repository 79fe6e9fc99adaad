"""Shows a release: weights, what answers, the counts of both arms, and the verdict so far."""

import argparse
from dataclasses import asdict

from slipway.operations.gateway.settings import ServerPorts
from slipway.operations.release.fit import answering
from slipway.operations.release.metrics import ARMS, ArmCounts
from slipway.operations.release.promotion import former_repository
from slipway.operations.release.record import Action, RepositoryFacts
from slipway.operations.release.trial import Trial, stable_repository
from slipway.system.json_line import print_json

ANSWERS = "answers with the recorded bundles"


def show(trial: Trial, arguments: argparse.Namespace) -> None:
    """Raises ServingError if the gateway does not answer."""
    counts, traffic, record = trial.counts(), trial.traffic, trial.record
    promoted = record.is_promoted
    judged = trial.judged()
    servers = {"stable": _answers(trial.settings.stable, record.candidate if promoted else record.stable)}
    if trial.settings.candidate is not None:
        servers["candidate"] = _answers(trial.settings.candidate, record.candidate)
    print(f"{trial.source}: candidate of {', '.join(record.classifiers)}, opened {record.opened}")
    sticky = f", sticky by {traffic.sticky_header}" if traffic.sticky_header else ""
    print(f"  weight {traffic.weight_percent} %, mirror {traffic.mirror_percent} %{sticky}")
    for arm in ARMS:
        print(f"  {arm}: {servers.get(arm, 'not in the settings of the gateway')}; {_counted(counts[arm])}")
    print(f"  verdict so far, {judged.blocks} blocks: {judged.judgement.verdict.value}: {judged.judgement.reason}")
    for one in judged.judgement.series:
        if one.verdict is not judged.judgement.verdict:
            print(f"    {one.reason}")
    for remark in judged.remarks:
        print(f"    {remark}")
    if promoted:
        print(f"  promoted; the former repository is in {former_repository(stable_repository(trial.settings))}")
    for action in record.actions:
        print(f"  {_told(action)}")
    print_json(
        arguments,
        {
            **traffic.plain(),
            "servers": servers,
            "counts": {arm: asdict(counts[arm]) for arm in ARMS},
            "promoted": promoted,
            "judgement": judged.judgement.plain(),
            "blocks": judged.blocks,
            "record": record.plain(),
        },
    )


def _answers(ports: ServerPorts, facts: RepositoryFacts) -> str:
    problems = answering(ports, facts.bundles)
    return "; ".join(f"{name} {problem}" for name, problem in problems.items()) or ANSWERS


def _counted(counts: ArmCounts) -> str:
    over = "latency unknown" if counts.over_budget is None else f"{counts.over_budget:,} over the latency budget"
    elsewhere = f" ({counts.elsewhere:,} answered by stable instead)" if counts.elsewhere else ""
    return f"{counts.requests:,} requests, {counts.errors:,} errors{elsewhere}, {over}"


def _told(action: Action) -> str:
    reason = f": {action.reason}" if action.reason else ""
    verdict = f", verdict {action.evidence.verdict.value}" if action.evidence else ""
    return f"{action.time} {action.action} by {action.by}, weight {action.weight_percent} %{verdict}{reason}"
