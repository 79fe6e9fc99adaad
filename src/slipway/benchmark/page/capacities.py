"""Compares Triton's capacity within the limit with in-process workers and with other stacks."""

from collections.abc import Iterator

from slipway.contract.evidence.studies import EfficiencyResult, Efficient, PeersResult
from slipway.pages.tables import Cell, Column, Scale, Strip, Table, Tone, table
from slipway.pages.wording import NONE, figures

KINDS_OF_TIME = {"infer": "inference", "queue": "queue", "input": "input", "output": "output"}


def efficiency(source: str, result: EfficiencyResult) -> Iterator[Table]:
    for name, found in result.classifiers.items():
        yield _shares(source, result, name, found)
        yield _times(source, name, found)


def _shares(source: str, result: EfficiencyResult, name: str, found: Efficient) -> Table:
    axis = Scale.over([1.0, *(share.most for share in found.share_of_pool.values()), *result.targets.values()])
    rows: list[tuple[Cell, ...]] = []
    for side, rates in found.capacity_per_s.items():
        share, target = found.share_of_pool.get(side), result.targets.get(side)
        cell: Cell = NONE
        if share and target:
            tone: Tone = "good" if share.mean >= target else "bad"
            text = f"{share.mean:.2f} ({share.least:.2f} to {share.most:.2f})"
            cell = Strip(text, share.mean, share.least, share.most, target, tone)
        rows.append((side, _range(rates), found.batches[side], cell))
    return table(
        f"{name}: capacity relative to in-process workers",
        f"Requests/s with P99 within {result.limit_ms:g} ms, the lowest and highest of "
        f"{len(rates)} rounds, each side with its best batch size; and the share of the workers' capacity in the same "
        "round: mean, lowest and highest. The dashed line is the target.",
        ("", "requests/s", Column("", words=True), Column("share of the workers'", axis=axis, origin=1.0)),
        rows,
        source=source,
    )


def _times(source: str, name: str, found: Efficient) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for side, parts in found.one_by_one_ms.items():
        sums = (sum(ms for part, ms in parts.items() if part.endswith(f" {kind}")) for kind in KINDS_OF_TIME)
        spent = (f"{found.processor_ms[side][who]:.2f}" for who in ("server", "client"))
        rows.append((side, f"{parts['client']:.2f}", *(f"{ms:.2f}" for ms in sums), f"{parts['rest']:.2f}", *spent))
    titles = ("", "client", *KINDS_OF_TIME.values(), "the rest", "processor, server", "client's")
    return table(
        f"{name}: where an image's time goes",
        "asked one at a time, in ms: the client's latency, and its part in all steps together; the rest is outside "
        "the steps. Last, the processor time per image.",
        titles,
        rows,
        source=source,
    )


def peers(source: str, result: PeersResult) -> Table:
    axis = Scale.over([1.0, *(times.high for times in result.times_the_capacity.values())])
    holds = Column("slipway_fused, times", axis=axis, origin=1.0)
    ordered = sorted(result.capacity_per_s.items(), key=lambda item: -sum(item[1]))
    rows: list[tuple[Cell, ...]] = []
    for name, rates in ordered:
        times, light = result.times_the_capacity.get(name), result.light_load.over_slipway_fused[name]
        cell: Cell = NONE
        if times:
            tone: Tone = "bad" if times.high < 1 else "good" if times.low > 1 else "plain"
            text = f"{times.mean:.2f} ({times.low:.2f} to {times.high:.2f})"
            cell = Strip(text, times.mean, times.low, times.high, tone=tone)
        latencies = (figures(light[key].mean) for key in ("p50_ms", "p99_ms"))
        rows.append((name, _range(rates), result.settings[name], cell, *latencies))
    return table(
        f"{result.backbone} behind other servers",
        f"Requests/s with P99 within {result.limit_ms:g} ms, the lowest and highest of {len(ordered[0][1])} "
        "rounds; slipway_fused's rate as a multiple of that, with two standard errors of the mean to each side; and "
        f"its latency at {result.light_load.rate_per_s:g} requests/s as a multiple of slipway_fused's.",
        ("", "requests/s", "setting", holds, "P50, times", "P99, times"),
        rows,
        source=source,
        wide=("setting",),
    )


def _range(rates_per_s: tuple[float, ...]) -> str:
    low, high = f"{min(rates_per_s):.0f}", f"{max(rates_per_s):.0f}"
    return low if low == high else f"{low} to {high}"
