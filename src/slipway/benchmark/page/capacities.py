"""What Triton holds within the limit, against a pool without a server and against other stacks."""

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
        f"{name}: what serving leaves of the capacity",
        f"Requests/s with P99 within {result.limit_ms:g} ms, the least and the most of "
        f"{len(rates)} rounds, each side with the batch that suits it best; and as a share of the pool's in the same "
        "round: mean, least and most. The dashed line is the target.",
        ("", "requests/s", Column("", words=True), Column("of the pool", axis=axis, origin=1.0)),
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
        "asked one by one, ms: what the client sees, and of it all steps together; the rest is in no step. "
        "Last, the processor time of an image.",
        titles,
        rows,
        source=source,
    )


def peers(source: str, result: PeersResult) -> Table:
    axis = Scale.over([1.0, *(times.high for times in result.times_the_capacity.values())])
    holds = Column("slipway_fused holds, times", axis=axis, origin=1.0)
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
        f"Requests/s with P99 within {result.limit_ms:g} ms, the least and the most of {len(ordered[0][1])} "
        "rounds; how many times that slipway_fused holds, with two standard errors of the mean to each side; and at "
        f"{result.light_load.rate_per_s:g} requests/s its latency as a multiple of slipway_fused's.",
        ("", "requests/s", "setting", holds, "P50, times", "P99, times"),
        rows,
        source=source,
        wide=("setting",),
    )


def _range(rates_per_s: tuple[float, ...]) -> str:
    low, high = f"{min(rates_per_s):.0f}", f"{max(rates_per_s):.0f}"
    return low if low == high else f"{low} to {high}"
