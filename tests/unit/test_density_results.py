"""What a thousand heads on one box cost: the published results keep the bars, and docs/heads.md says what they hold."""

from pathlib import Path

from benchmarks.studies.density.result import FullDensityResult

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
MINUS = "\N{MINUS SIGN}"
DOCUMENT = (ROOT / "docs/heads.md").read_text(encoding="utf-8")


def published(name: str) -> FullDensityResult:
    return FullDensityResult.read(RESULTS / f"{name}.json")


def test_1000_heads_are_ready_in_time_small_and_as_fast_as_one() -> None:
    latency = published("density").latency
    assert latency is not None
    assert latency.heads == 1000
    assert not any(latency.failed.values())
    assert latency.among.ready_s <= 30
    assert latency.memory_mib_of_each_additional <= 0.5
    ratios = {side: latency.p99_ms[side] / latency.p99_ms["alone"] for side in ("among", "spread")}
    assert ratios["among"] <= 1.2
    assert ratios["spread"] <= 1.3
    alone, among = latency.alone, latency.among
    assert f"{among.ready_s:.1f} s (one head alone: {alone.ready_s:.1f} s)" in DOCUMENT
    assert f"| {among.memory_mib:.0f} MiB, one head alone {alone.memory_mib:.0f} MiB: " in DOCUMENT
    assert f"{latency.memory_mib_of_each_additional:.2f} MiB for each additional one | 0.5 MiB |" in DOCUMENT
    assert f"at the {latency.rate_per_s:.1f} requests/s that it holds alone" in DOCUMENT
    p99_ms = latency.p99_ms
    assert f"| {p99_ms['among']:.1f} ms, alone {p99_ms['alone']:.1f} ms: {ratios['among']:.2f} times" in DOCUMENT
    assert f"| {p99_ms['spread']:.1f} ms: {ratios['spread']:.2f} times" in DOCUMENT


def test_a_change_takes_seconds_fails_nobody_and_leaves_the_memory_flat() -> None:
    changes = published("density_changes").changes
    assert changes is not None
    assert changes.heads == 1000
    took_s = [sum(changes.seconds[what].values()) for what in ("add", "change", "remove")]
    assert max(took_s) <= 5
    assert (sum(changes.failed.values()), changes.mixed) == (0, 0)
    assert changes.changes == 100
    _, first, half, last = changes.memory_mib_at_start_and_after_1_50_100
    assert last <= 1.01 * half
    assert last <= 1.05 * first
    add, change, remove = took_s
    assert (
        f"| {add:.1f}, {change:.1f} and {remove:.1f} s; of {changes.requests:,} requests 0 failed, 0 mixed |"
    ) in DOCUMENT
    assert f"{first:.0f} MiB after the first change, {half:.0f} after 50 and" in DOCUMENT


def test_whole_classifiers_take_many_times_as_much() -> None:
    whole, latency = published("density_whole").whole, published("density").latency
    assert whole is not None
    assert latency is not None
    each = whole.memory_mib_of_each_additional
    assert each >= 100 * latency.memory_mib_of_each_additional
    among = whole.among
    assert f"{among.memory_mib / 1024:.1f} GiB and {among.ready_s:.0f} s to be ready, {each:.0f} MiB for" in DOCUMENT


def test_heads_fitted_to_int8_lose_nothing_and_those_carried_over_lose_more() -> None:
    loss = published("density_loss").loss
    assert loss is not None
    for task in loss.values():
        fitted, carried = task.loss["int8"], task.loss["carried_over"]
        assert fitted.points <= 0.2
        assert carried.low_points > 0
        assert carried.points > fitted.points
        for lost in (fitted, carried):
            low, high = (f"{points:.2f}".replace("-", MINUS) for points in (lost.low_points, lost.high_points))
            assert f"| {lost.points:.2f} ({low} to {high}) |" in DOCUMENT
    assert loss["photographs"].loss["int8"].high_points <= 0.2  # proven


def test_a_new_task_is_served_within_a_minute_and_every_answer_is_that_without_a_server() -> None:
    served = published("density_served")
    first, equal = served.first_answer, served.equal
    assert first is not None
    assert equal is not None
    assert first.images >= 200
    assert first.seconds <= 60
    assert (equal.heads, equal.engine) == (1000, "openvino-int8")
    assert equal.equal == equal.answers == equal.heads * equal.images
    assert f"| {first.seconds:.1f} s: {first.head_s:.1f} for the head, {first.assemble_s:.1f} for" in DOCUMENT
    assert f"| {equal.equal:,} of {equal.answers:,} | all |" in DOCUMENT
