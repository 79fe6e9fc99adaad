"""The live page of the watch: what it says, that it is one file, and that it costs little to show again."""

import re
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from slipway.operations.journal.store import Store
from slipway.operations.monitoring.alerts import all_alerts
from slipway.operations.watch import page_charts
from slipway.operations.watch.facts import Facts
from slipway.operations.watch.page import MOST_DETAILS, LivePage, MachinePrice, cost_sentence, page, todos
from slipway.operations.watch.page_charts import Charts
from slipway.operations.watch.run import run_watch
from slipway.pages.wording import NONE
from tests.support.chromium import CHROMIUM, painted
from tests.support.journals import until
from tests.support.prometheus import free_port
from tests.support.watch_rows import add_drawn, drawn, made_reference, watch_settings
from tests.support.watched import made_facts, made_latency, made_watched

HOSTILE = '<script>alert(1)</script>$x_1$"'
PRICE = MachinePrice(0.36, "USD", "cpu-8, an example.")
DRIFTED = (
    "alarm: images or answers have changed: distance over 0.62; slipway watch restart gateway.yaml pets --reason TEXT",
    "alarm: the accuracy is shown to be over 2 points lower than on the test split; train with the new labels",
    "alarm: the recall of red is shown to be lower than on the test split",
    "no embedding",
)


def alarmed(name: str = "pets") -> Facts:
    watched = made_watched(drifted=True, accuracy=0.80, labels=("red", HOSTILE))
    return made_facts(name, watched=watched, told=DRIFTED, rows=7)


def test_the_page_shows_every_measure_and_what_to_do_about_an_alarm() -> None:
    text = page([made_facts(), alarmed()], price=PRICE)
    for shown in (
        "at most 30 ms in the last 10 min, budget 35 ms; 0.20% over it",
        "0.812, 0.68",
        "80.0 (77.0 to 82.0), test 97.0",
        "240 of 300",
        "1.5 USD",
        "0.36 USD an hour. cpu-8, an example.",
        "slipway watch restart gateway.yaml pets --reason TEXT (docs/runbook.md#slipwaydrift)",
        "(docs/runbook.md#slipwayaccuracylost)",
        "(docs/runbook.md#slipwayrecalllost)",
        "50.08%",  # the share of the newest rows
        "NOT_AN_IMAGE",
        "Evidence of drift of pets",
        "Confidence of colours",
        "Brightness of colours",
        "50 (30 to 60), 20 labels",  # recall
        "70 (50 to 80), 20 labels",  # precision
        "Live rows beside the test split",
        "0.600 (0.500 to 0.700)",  # live brightness
        "1.00 (0.900 to 1.10)",
        "512 (480 to 1,080)",  # shorter side
    ):
        assert shown in text, shown
    assert text.index('id="c0"') < text.index("pets</h2>") < text.index("colours</h2>"), "alarms first"


def test_a_runbook_section_that_the_page_names_is_that_of_an_alert() -> None:
    slow = alarmed().model_copy(update={"latency": made_latency(requests=1000)})
    named = set(re.findall(r"docs/runbook\.md#\w+", page([slow])))
    assert len(named) == 4
    assert named <= {alert.anchor for alert in all_alerts()}


def test_a_classifier_that_is_not_watched_is_a_fault_with_its_section_of_the_runbook() -> None:
    found = todos(made_facts(watched=None, told=("alert: pets is not watched: state.json is damaged",)))
    assert [(one.what, one.tone, one.runbook) for one in found] == [
        ("pets is not watched: state.json is damaged", "bad", ""),
        ("drift is not watched, so that no alarm can tell a change", "plain", "slipwaynotwatched"),
    ]
    assert "slipwaynotwatched" in {alert.alert.lower() for alert in all_alerts()}
    undrifted = made_watched().model_copy(update={"drift": None})
    assert "not watched</" in page([made_facts(watched=undrifted)])


def test_nothing_that_clients_and_labels_say_is_markup() -> None:
    text = page([alarmed(HOSTILE)], price=MachinePrice(1, HOSTILE, HOSTILE))
    assert "<script" not in text
    assert "$x_1$" in text


@pytest.mark.parametrize("count", [0, 1, MOST_DETAILS + 3])
def test_none_and_many_classifiers_have_a_page(count: int) -> None:
    unknown = {"watched": None, "latency": None, "bundle": None, "statuses": (), "rows": 0}
    text = page([made_facts(f"c{number}", **unknown) for number in range(count)])
    assert ("No classifier has rows yet" in text) is (count == 0)
    assert text.count("the gateway does not answer") == count
    assert ("3 more classifiers are left out" in text) is (count > MOST_DETAILS)


def test_a_classifier_without_labels_embedding_and_reference_says_so() -> None:
    bare = made_watched(accuracy=None).model_copy(update={"drift": None, "mean_confidence": None})
    text = page([made_facts(watched=bare, latency=made_latency(requests=0))])
    for shown in ("no labels", "not watched", "no request in the last 10 min"):
        assert shown in text


def test_no_cost_is_shown_without_a_price_or_without_requests() -> None:
    assert cost_sentence(None, 1.0) is None
    assert cost_sentence(PRICE, None) is None
    assert cost_sentence(PRICE, 100.0) == "1.0 USD"
    assert "no price was given" in page([made_facts()])


def test_the_live_page_adds_rates_up_and_draws_each_look_once() -> None:
    unknown = made_facts("b", latency=made_latency(seconds=None, requests=100, over_budget=90))
    now: tuple[Facts, ...] = (unknown,)
    live = LivePage(lambda: now, price=PRICE)
    first = live()
    assert f"<b>{NONE}</b><span>requests each second" in first
    assert "at most 30 ms since the gateway started, budget 35 ms; 90.00% over it" in first
    assert "P99 is over the latency budget" not in first, "it may have been long ago"
    assert live() is first
    now = (unknown, made_facts("a", latency=made_latency(requests=2000, seconds=100)), made_facts("c", latency=None))
    assert "<b>20.0</b>" in live()


def test_charts_are_drawn_again_after_half_a_minute_or_when_an_alarm_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    real = page_charts.evidence
    monkeypatch.setattr(
        page_charts, "evidence", lambda drift, *, label: drawn.append(label) or real(drift, label=label)
    )
    charts = Charts()
    for seconds, many in ((0, 1), (2, 1), (29, 1), (31, 2), (33, 2)):
        page([made_facts(looked_s=1e9 + seconds)], charts=charts)
        assert len(drawn) == many
    page([alarmed("colours").model_copy(update={"looked_s": 1e9 + 35})], charts=charts)
    assert len(drawn) == 3


def test_the_page_may_be_asked_by_several_at_once_and_is_cheap_when_nothing_is_new() -> None:
    facts = [alarmed(f"c{number}") for number in range(4)]
    live = LivePage(lambda: facts)
    began = time.perf_counter()
    assert "nobody watches now" in live(), "the facts are of 2001"
    drawn_s = time.perf_counter() - began
    threads = [threading.Thread(target=live) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    began = time.perf_counter()
    for _ in range(100):
        live()
    assert time.perf_counter() - began < drawn_s


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
@pytest.mark.parametrize(("width", "dark"), [pytest.param(1200, False, marks=pytest.mark.nightly), (390, True)])
def test_a_browser_shows_the_page_without_a_request_and_without_overflow(
    tmp_path: Path, width: int, dark: bool
) -> None:
    path = tmp_path / "watch.html"
    path.write_text(page([alarmed(), made_facts()], price=PRICE))
    seen = painted(path, width=width, dark=dark)
    assert seen.requests == [path.resolve().as_uri()]
    assert (seen.complaints, seen.too_wide) == ([], [])
    assert seen.width <= width
    assert 'http-equiv="refresh" content="5"' in path.read_text()


def test_slipway_watch_run_serves_the_page_of_a_real_journal(tmp_path: Path) -> None:
    settings, ended = watch_settings(tmp_path / "journal", metrics_port=free_port()), threading.Event()
    assert settings.watch is not None
    with Store.of(settings, make=True) as store:
        made_reference(settings.journal)
        add_drawn(store, drawn(150, seed=3), name="a")
    options = {"ended": ended, "say": lambda _: None, "price": PRICE}
    thread = threading.Thread(target=run_watch, args=(settings,), kwargs=options)
    thread.start()

    def got() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{settings.watch.metrics_port}/", timeout=10) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    try:
        until(lambda: "Evidence of drift of digits" in got())
        text = got()
    finally:
        ended.set()
        thread.join()
    (tmp_path / "page.html").write_text(text)
    assert "the gateway does not answer" in text
    assert "no labels" in text
    assert "nobody watches now" not in text
    assert "150" in text
