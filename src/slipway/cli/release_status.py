"""Shows a release: weights, what answers, the counts of both arms, and the verdict so far."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar

from slipway.contract import SlipwayError
from slipway.operations.gateway.routes import Traffic
from slipway.operations.gateway.settings import ServerPorts
from slipway.operations.release.compatibility import answering
from slipway.operations.release.metrics import ARMS, ArmCounts
from slipway.operations.release.promotion import former_repository
from slipway.operations.release.record import Action, RepositoryFacts
from slipway.operations.release.trial import Judged, Trial, stable_repository
from slipway.system.json_line import print_json

T = TypeVar("T")
ANSWERS = "answers with the recorded bundles"


def show(trial: Trial, arguments: argparse.Namespace) -> None:
    """Show what is known, also while the gateway does not answer or a file is damaged.

    Raises:
        SlipwayError: what could not be shown, after all else is.
    """
    record, unknown = trial.record, list[SlipwayError]()
    counts = _known(trial.counts, unknown)
    traffic = _known(lambda: trial.traffic, unknown)
    judged = _known(trial.judged, unknown)
    promoted = _known(lambda: record.is_promoted, unknown)
    servers = {"stable": _answers(trial.settings.stable, record.candidate if promoted else record.stable)}
    if trial.settings.candidate is not None:
        servers["candidate"] = _answers(trial.settings.candidate, record.candidate)
    print(f"{trial.source}: candidate of {', '.join(record.classifiers)}, opened {record.opened}")
    print(f"  {_divided(traffic)}" + ("" if counts else ", by the file; the gateway's counts are unknown"))
    for arm in ARMS:
        counted = f"; {_counted(counts[arm])}" if counts else ""
        print(f"  {arm}: {servers.get(arm, 'not in the settings of the gateway')}{counted}")
    if judged is not None:
        _say_verdict(judged)
    if promoted:
        print(f"  promoted; the former repository is in {former_repository(stable_repository(trial.settings))}")
    for action in record.actions:
        print(f"  {_told(action)}")
    print_json(
        arguments,
        {
            **(traffic.plain() if traffic else {}),
            "servers": servers,
            "counts": {arm: asdict(counts[arm]) for arm in ARMS} if counts else None,
            "promoted": promoted,
            "judgement": judged.judgement.plain() if judged else None,
            "blocks": judged.blocks if judged else None,
            "record": record.plain(),
        },
    )
    if unknown:
        raise unknown[0]


def _known(ask: Callable[[], T], unknown: list[SlipwayError]) -> T | None:
    """The answer of `ask`; None if there is none, and the error is then in `unknown`."""
    try:
        return ask()
    except SlipwayError as error:
        unknown.append(error)
        return None


def _divided(traffic: Traffic | None) -> str:
    if traffic is None:
        return "weight and mirror unknown"
    sticky = f", sticky by {traffic.sticky_header}" if traffic.sticky_header else ""
    return f"weight {traffic.weight_percent} %, mirror {traffic.mirror_percent} %{sticky}"


def _say_verdict(judged: Judged) -> None:
    print(f"  verdict so far, {judged.blocks} blocks: {judged.judgement.verdict.value}: {judged.judgement.reason}")
    for one in judged.judgement.series:
        if one.verdict is not judged.judgement.verdict:
            print(f"    {one.reason}")
    for remark in judged.remarks:
        print(f"    {remark}")


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
