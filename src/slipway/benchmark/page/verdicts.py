"""Makes the top of the page: a card with each file's verdict, and notes for readers of several files."""

from collections.abc import Sequence
from dataclasses import dataclass

from slipway.benchmark.page.accuracy import Accuracy
from slipway.benchmark.page.cost import accuracy_of
from slipway.benchmark.page.files import ResultFile
from slipway.contract.evidence.latency import CapacityResult, LatencyResult, LatencyVerdict, PerfAnalyzerResult
from slipway.contract.evidence.studies import EfficiencyResult, PeersResult, RobustnessResult, VerdictResult
from slipway.pages.tables import Badge, Tone
from slipway.pages.wording import counted, figures, percent

TONES: dict[LatencyVerdict, Tone] = {
    LatencyVerdict.PASS: "good",
    LatencyVerdict.FAIL: "bad",
    LatencyVerdict.TOO_FEW: "warn",
    LatencyVerdict.LATE: "warn",
}


@dataclass(frozen=True)
class VerdictCard:
    """The summary of one file."""

    file: ResultFile
    tone: Tone
    verdict: str
    """The file's verdict; empty where its script gives none."""
    summary: str
    reason: str
    caveats: tuple[str, ...] = ()
    accuracy: str = ""


def cards(files: Sequence[ResultFile], accuracies: Sequence[Accuracy]) -> list[VerdictCard]:
    """Make the cards in the order of the files."""
    return [_card(file, accuracies) for file in files]


def _card(file: ResultFile, accuracies: Sequence[Accuracy]) -> VerdictCard:
    match result := file.result:
        case LatencyResult() | CapacityResult():
            card = _gate(file, result, accuracy_of(result.bundle, accuracies))
        case PerfAnalyzerResult():
            card = _perf_analyzer(file, result, accuracy_of(result.bundle, accuracies))
        case VerdictResult():
            card = _verdict(file, result)
        case EfficiencyResult():
            card = _efficiency(file, result)
        case PeersResult():
            card = _peers(file, result)
        case RobustnessResult():
            card = _robustness(file, result)
    return card


def _gate(file: ResultFile, result: LatencyResult | CapacityResult, accuracy: str) -> VerdictCard:
    limit = f"{result.options.limit_ms:g} ms"
    if isinstance(result, LatencyResult):
        summary = f"P99 {figures(result.latency.p99_ms)} ms of {limit} at {result.options.rate_per_s:g} requests/s"
    else:
        above = f", under {result.not_passed_per_s:.1f}" if result.not_passed_per_s else ""
        found = f"{result.passed_per_s:.1f} requests/s{above}" if result.passed_per_s else "no rate was shown"
        summary = f"{found} with P99 within {limit}"
    return VerdictCard(file, TONES[result.verdict], result.verdict, summary, result.reason, result.caveats, accuracy)


def _perf_analyzer(file: ResultFile, result: PerfAnalyzerResult, accuracy: str) -> VerdictCard:
    whole = result.runs[0]
    load = (
        f"{result.options.rate_per_s:g}/s" if result.options.rate_per_s else f"{result.options.concurrency} at a time"
    )
    summary = f"{figures(whole.throughput_per_s)} requests/s with {load}"
    reason = f"{whole.model}: P99 {figures(result.latency.p99_ms)} ms of {whole.requests:,} requests"
    return VerdictCard(file, "plain", "", summary, reason, result.caveats, accuracy)


def _efficiency(file: ResultFile, result: EfficiencyResult) -> VerdictCard:
    shares = [
        (side, found.share_of_pool[side].mean, target)
        for found in result.classifiers.values()
        for side, target in result.targets.items()
    ]
    missed = any(share < target for _, share, target in shares)
    reached = "; ".join(
        f"{name}: " + ", ".join(f"{side} {share.mean:.2f}" for side, share in found.share_of_pool.items())
        for name, found in result.classifiers.items()
    )
    targets = ", ".join(f"{side} {target:.2f}" for side, target in result.targets.items())
    summary = f"Triton serves at least {min(s for _, s, _ in shares):.0%} of the in-process workers' rate"
    return VerdictCard(
        file,
        tone="bad" if missed else "good",
        verdict="target missed" if missed else "targets met",
        summary=summary,
        reason=f"{reached}; targets: {targets}",
    )


def _peers(file: ResultFile, result: PeersResult) -> VerdictCard:
    others = {
        name: times
        for name, times in result.times_the_capacity.items()
        if name != "pool" and not name.startswith("slipway")
    }
    nearest = min(others, key=lambda name: others[name].mean)
    summary = f"{others[nearest].mean:.2f} times the capacity of the best other stack, {nearest}"
    reason = ", ".join(
        f"{name} {times.mean:.2f} ({times.low:.2f} to {times.high:.2f})" for name, times in others.items()
    )
    missing = tuple(f"{name} was left out: {why.splitlines()[0]}" for name, why in result.left_out.items())
    return VerdictCard(file, "plain", "", summary, f"times theirs: {reason}", missing)


def _robustness(file: ResultFile, result: RobustnessResult) -> VerdictCard:
    found = []
    if seen := result.reload:
        found.append(f"{seen.reloads} reloads: {seen.requests:,} requests, failed {counted(seen.failed)}")
    if result.kills:
        slowest = max(result.kills.values(), key=lambda kill: kill.seconds_until_the_last_error)
        found.append(f"killed processes: the last error {slowest.seconds_until_the_last_error:.1f} s after the kill")
    for layout, overload in (result.overload or {}).items():
        share = f"{overload.ten.goodput_share_of_capacity:.0%}"
        found.append(f"10 times the capacity, {layout}: {share} of it answered right")
    for layout, companies in result.fifty.layouts.items() if result.fifty else ():
        found.append(f"each further classifier, {layout}: {companies.memory_mib_of_each_additional:.0f} MiB")
    parts = [name for name in ("reload", "kills", "overload", "fifty") if getattr(result, name)]
    return VerdictCard(file, "plain", "", ", ".join(parts) or "nothing was run", "; ".join(found))


def _verdict(file: ResultFile, result: VerdictResult) -> VerdictCard:
    judged = [server for server in result.servers if server.allowed is not None]
    broken = [s for s in judged if s.passes["at the limit"].rule > (s.allowed or 0)]
    worst = max(judged, key=lambda server: server.passes["at the limit"].rule)
    load = f" with a load of {worst.utilisation:g}" if worst.utilisation else ""
    return VerdictCard(
        file,
        tone="bad" if broken else "good",
        verdict="fail" if broken else "pass",
        summary=f"At most {percent(worst.passes['at the limit'].rule)} of runs pass falsely",
        reason=f"{result.runs:,} runs of each server with the true P99 on the limit; worst: {worst.server}{load}",
    )


def notices(files: Sequence[ResultFile]) -> list[str]:
    """Make the notes on all files together."""
    found = []
    machines = {(file.result.machine.cpu, file.result.machine.cores) for file in files}
    if len(machines) > 1:
        words = "; ".join(sorted(f"{cpu}, {cores} cores" for cpu, cores in machines))
        found.append(f"These files come from {len(machines)} kinds of machine ({words}): do not compare their speeds.")
    if sum(isinstance(file.result, LatencyResult | CapacityResult) for file in files) > 1:
        found.append("Gates in separate files ran one after the other, not interleaved: their ratios are not shown.")
    if dirty := [file.name for file in files if (file.result.commit or "").endswith("-dirty")]:
        found.append(f"Measured with uncommitted changes: {', '.join(dirty)}.")
    return found


def badge(verdict: LatencyVerdict) -> Badge:
    return Badge(verdict, TONES[verdict])
