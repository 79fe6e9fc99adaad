"""The result of the study `lifecycle` keeps its bars, and the documents say what it holds."""

import json
from pathlib import Path

import pytest

from benchmarks.studies.lifecycle.result import Bar, LifecycleResult
from slipway.contract import SpecError

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks/results/lifecycle.json"
RESULT = LifecycleResult.read(FILE)
BARS = {name: bar.values for name, bar in RESULT.bars.items()}
LIMITS = {
    "weight in force": 1,
    "promotion": 10,
    "rollback": 1,
    "failed while weights change": 0,
    "failed after a kill": 2,
    "failing after a kill": 6,
    "alert at the webhook": 15,
    "hostile and not refused": 0,
    "restarts by hostile requests": 0,
    "rows missing or too many": 0,
    "failed beside the journal": 0,
}


def within_ms(name: str) -> str:
    return f"within {1000 * max(BARS[name]):.0f} ms"


def span(values: tuple[float, ...]) -> str:
    least, most = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{least} s" if least == most else f"{least} to {most} s"


def page(name: str) -> str:
    """A document in one line, since sentences go over the ends of lines."""
    return " ".join((ROOT / f"docs/{name}.md").read_text(encoding="utf-8").split())


def test_every_bar_was_measured_and_is_met() -> None:
    assert {name: bar.limit for name, bar in RESULT.bars.items()} == LIMITS
    assert [name for name, bar in RESULT.bars.items() if not bar.met] == []
    assert RESULT.not_measured == {}
    counts = {name: len(values) for name, values in BARS.items()}
    assert counts["weight in force"] >= 5
    assert min(counts["promotion"], counts["rollback"], counts["failed after a kill"]) >= 3
    assert set(RESULT.journal) == {"collector killed", "spool full", "disk full"}
    assert all(one.parity == {"equal": one.rows} for one in RESULT.journal.values())


def test_a_bar_that_is_not_what_its_values_say_is_refused() -> None:
    assert not Bar.judged([0.5, 1.5], limit=1, unit="s").met
    changed = json.loads(FILE.read_text())
    changed["bars"]["rollback"]["values"] = [2.0]
    with pytest.raises(SpecError, match="met is True"):
        LifecycleResult.parse(changed, source="test")


def test_the_gateway_s_page_says_what_was_measured() -> None:
    document, hostile = page("gateway"), RESULT.hostile
    assert f"it takes {RESULT.memory_mib['envoy']:.0f} MiB of memory" in document
    assert (
        f"of {hostile.http} such requests over HTTP and {hostile.grpc} over gRPC, {len(hostile.not_refused)} passed, "
        f"and the server was restarted {hostile.server_restarts} times"
    ) in document
    changes = f"{len(BARS['weight in force'])} changes of weight were in force {within_ms('weight in force')}"
    requests, failed, kills = sum(RESULT.killed_requests), sum(RESULT.killed_failed), len(RESULT.killed_requests)
    after = f"{failed} of {requests:,} requests failed in the nine seconds after each of {kills} kills"
    assert f"{changes}, and {after}" in document


def test_the_release_s_page_says_what_was_measured() -> None:
    failed = f"{BARS['failed while weights change'][0]:.0f} of {RESULT.requests:,} requests failed"
    assert (
        f"weights were in force {within_ms('weight in force')}, promotions took {span(BARS['promotion'])}, "
        f"rollbacks gave stable all requests {within_ms('rollback')}, "
        f"rollbacks of a promotion took {span(RESULT.undone_s)} as a whole, and {failed}"
    ) in page("release")


def test_the_pages_of_monitoring_and_the_journal_say_what_was_measured() -> None:
    alerts = BARS["alert at the webhook"]
    assert f"{len(alerts)} alerts of two kinds: {span(alerts)}" in page("monitoring")
    took = f"{RESULT.prometheus_core_percent:.1f} % of a core and {RESULT.memory_mib['prometheus']:.0f} MiB"
    assert f"Prometheus took {took}" in page("monitoring")
    killed, spool, disk = (RESULT.journal[name] for name in ("collector killed", "spool full", "disk full"))
    assert (
        f"after ten SIGKILLs of the collector {killed.answers:,} answers had {killed.rows:,} rows, and {disk.answers} "
        f"answers beside a full disk {disk.rows} once there was space again. Of {spool.answers} requests beside a full "
        f"spool {spool.dropped} were counted as dropped, and {spool.rows} had a row. 0 requests failed."
    ) in page("journal")


def test_the_table_of_benchmarks_says_what_was_measured() -> None:
    document = page("benchmarks")
    assert (
        f"weights in force {within_ms('weight in force')} (target: 1 s), "
        f"promotions in {span(BARS['promotion'])} (10 s), weight 0 {within_ms('rollback')} of a rollback (1 s)"
    ) in document
    requests, failed = sum(RESULT.killed_requests), sum(RESULT.killed_failed)
    assert f"{failed} of {requests:,} after {len(RESULT.killed_requests)} kills of the candidate" in document
    assert f"{span(BARS['alert at the webhook'])} (target: 15 s" in document
