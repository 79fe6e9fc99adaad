"""What the watch shows: metrics, lines of the status, and the verb."""

import http.client
import json
import os
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from slipway.cli import watch as cli
from slipway.contract import Lane
from slipway.errors import SpecError
from slipway.operations.endpoint import endpoint
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.journal.store import Store
from slipway.operations.turn.record import turn_folder
from slipway.operations.watch.facts import Facts, PredictedClass
from slipway.operations.watch.metrics import WatchMetrics
from slipway.operations.watch.run import Often, Watch, _looks
from slipway.operations.watch.state import lock_of
from slipway.operations.watch.status import status_of
from slipway.serving import Ports
from slipway.system.text import command
from slipway.system.yaml_json import dump_yaml
from tests.support import watch_shown
from tests.support.journal_rows import BUNDLE
from tests.support.watch_rows import add_drawn, drawn, watch_settings
from tests.support.watch_shown import look, say_labels, select, truth

store = watch_shown.watched_store


def scraped(
    facts: Sequence[Facts], *, turns_waiting: Collection[str] = ()
) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name and labels, as Prometheus would read them from the endpoint."""
    metrics, port = WatchMetrics(), Ports.free().http
    metrics.facts, metrics.looked_s, metrics.turns_waiting = tuple(facts), 7.0, turns_waiting
    with endpoint(port, metrics, setting="watch.metrics_port", say=print, page=lambda: "<p>page</p>"):
        assert get(port, "/")[:2] == (200, "<p>page</p>")
        assert get(port, "/x")[0] == 404
        status, text, kind = get(port, "/metrics")
    assert (status, kind.startswith("text/plain")) == (200, True)
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "a series twice fails the whole scrape"
            found[sample.name][labels] = sample.value
    return found


def get(port: int, path: str, *, host: str | None = None) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={} if host is None else {"Host": host})
        response = connection.getresponse()
        return response.status, response.read().decode(), response.getheader("Content-Type", "")
    finally:
        connection.close()


def test_the_metrics_have_the_names_that_alerts_and_dashboards_ask_for(store: Store) -> None:
    columns = drawn(400, seed=3, foreign=0.2)
    rows = add_drawn(store, columns, name="a")
    add_drawn(store, drawn(3, seed=4), name="bad", status=3)
    select(store, rows, chosen=rows[::2], selection=1, probability=0.5)
    say_labels(store, {row: label for row, label in truth(columns, rows, wrong=8).items() if row in set(rows[::4])})
    facts = look(store)
    unwatched = facts.model_copy(update={"classifier": "cats", "watched": None})
    found = scraped([facts, unwatched])
    digits = ("classifier", "digits")
    assert found["slipway_watch_rows_total"][(digits,)] == 403
    assert found["slipway_watch_images_total"][digits, ("status", "corrupt")] == 3
    assert sum(found["slipway_watch_predicted_total"].values()) == 400
    assert found["slipway_watch_drift_alarm"] == {(digits,): 1.0}
    assert found["slipway_watch_watched"] == {(digits,): 1.0, (("classifier", "cats"),): 0.0}
    threshold = found["slipway_watch_drift_log10_threshold"][(digits,)]
    assert found["slipway_watch_drift_log10_evidence"][(digits,)] > threshold > 5
    low, value, high = (found["slipway_watch_accuracy"][("bound", bound), digits] for bound in ("low", "value", "high"))
    assert low < value < high
    assert found["slipway_watch_accuracy_reference"] == {(digits,): 0.98}
    assert found["slipway_watch_accuracy_alarm"] == {(digits,): 0.0}
    assert len(found["slipway_watch_recall_alarm"]) == 3
    for name in ("recall", "precision"):
        of = found[f"slipway_watch_{name}"]
        assert len(of) == 9
        low, value, high = (of[("bound", bound), ("class", "one"), digits] for bound in ("low", "value", "high"))
        assert 0 <= low <= value <= high <= 1
    gap = {labels[1][1]: value for labels, value in found["slipway_watch_gap"].items()}
    assert gap.keys() == {"confidence", "distance", "norm", "brightness", "class"}
    assert gap["distance"] > 0.1 > gap["brightness"], "a fifth of the images is foreign, and as bright as the others"
    assert found["slipway_watch_mean_brightness"][(digits,)] == pytest.approx(0.5, abs=0.03)
    assert found["slipway_watch_shorter_side_pixels"][digits, ("quantile", "0.5")] == 48
    assert found["slipway_watch_format_rows"] == {(digits, ("format", "PNG")): 400}
    assert found["slipway_watch_labels_asked_total"][(digits,)] == 200
    assert found["slipway_watch_labels_total"][(digits,)] == 100
    assert found["slipway_watch_reference_rows"] == {(digits, ("source", "test")): 600.0}
    assert found["slipway_watch_looked_timestamp_seconds"] == {(): 7.0}
    assert found["slipway_watch_rows_per_second"].keys() == {(digits,), (("classifier", "cats"),)}
    assert {"slipway_watch_mean_confidence"} <= found.keys()
    waits = scraped([facts, unwatched], turns_waiting={"cats"})["slipway_watch_turn_waits"]
    assert waits == {(digits,): 0.0, (("classifier", "cats"),): 1.0}


def test_a_look_tells_the_metrics_whose_turn_waits_for_a_person(store: Store) -> None:
    add_drawn(store, drawn(3, seed=3), name="a")
    lock_of(store.folder).touch()
    metrics, watch = WatchMetrics(), Watch(store, watch_settings(store.folder), say=lambda _: None)
    for waits in (set(), {"digits"}):
        _looks(watch, metrics, ended=threading.Event(), say=Often(print), once=True)
        assert metrics.turns_waiting == waits
        (turn_folder(store.folder, "digits") / "proposal.json").write_text("damaged")


def test_classes_beyond_fifty_are_added_up_and_a_class_named_other_is_no_second_series(store: Store) -> None:
    add_drawn(store, drawn(10, seed=3), name="a")
    facts = look(store)
    assert facts.watched is not None
    names = ["other", *(f"c{number}" for number in range(80))]
    found = []
    for rows in (range(100, 19, -1), range(200, 281)):  # the rarest class of before becomes the most frequent
        classes = tuple(
            PredictedClass(class_id=number, label=name, rows=rows[number], latest_rows=0, reference_rows=0)
            for number, name in enumerate(names)
        )
        ordered = tuple(sorted(classes, key=lambda one: -one.rows))
        facts = facts.model_copy(update={"watched": facts.watched.model_copy(update={"predicted": ordered})})
        found.append(scraped([facts])["slipway_watch_predicted_total"])
    assert len(found[0]) == 50
    other = found[0][("class", "other"), ("classifier", "digits")]
    assert other == 100 + sum(100 - number for number in range(50, 81))
    assert found[0].keys() == found[1].keys()
    assert all(found[1][name] >= count for name, count in found[0].items()), "a counter never falls"


def test_an_answer_that_cannot_be_made_is_said_and_a_foreign_host_is_refused() -> None:
    def broken() -> str:
        raise ValueError("no font")

    said: list[str] = []
    port = Ports.free().http
    with endpoint(port, WatchMetrics(), setting="watch.metrics_port", say=said.append, page=broken):
        assert [get(port, "/")[0] for _ in range(2)] == [500, 500]
        assert said == ["alert: watch.metrics_port: / cannot be answered: ValueError: no font"]
        hosts = ("evil.example", f"evil.example:{port}", f"localhost:{port}", "127.0.0.1", "[", "localhost:x")
        assert [get(port, "/metrics", host=host)[0] for host in hosts] == [403, 403, 200, 200, 403, 200]


def write_settings(folder: Path, **changes: Any) -> Path:
    path = folder / "gateway.yaml"
    settings = {"teams": {"pets": {"key_file": "k"}}, "metrics_port": 1, "observe": {"journal": "journal"}, "watch": {}}
    path.write_text(dump_yaml({name: value for name, value in {**settings, **changes}.items() if value is not None}))
    return path


def call(*words: str | Path) -> None:
    arguments = cli.parser().parse_args([str(word) for word in words])
    cli.main(arguments)


def test_the_verb_shows_and_restarts(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_settings(tmp_path)
    add_drawn(store, drawn(200, seed=3, foreign=0.5), name="a")
    call("status", path)
    run = command("slipway watch run", path)
    assert f"nobody has watched it yet; {run} does" in capsys.readouterr().out
    lock_of(store.folder).touch()
    os.utime(lock_of(store.folder), (0, 0))
    call("status", path)
    assert f"and figures are of then; {run} goes on" in capsys.readouterr().out
    with pytest.raises(SpecError, match=r"cats: it is not watched.* classifiers of this journal: digits"):
        call("restart", path, "cats", "--reason", "x")
    look(store)
    call("restart", path, "digits", "--reason", "lamp", "--live", "--json")
    entry = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (entry["reason"], entry["after_row"]) == ("lamp", 200)
    look(store)
    call("status", path, "--json")
    *lines, last = capsys.readouterr().out.splitlines()
    assert any("by" in line and line.endswith("lamp") for line in lines)
    found = json.loads(last)
    assert found["classifiers"][0]["watched"]["drift"] is None
    assert found["classifiers"][0]["alarms"] is False


def test_a_classifier_that_is_served_no_more_is_left_out_and_named(store: Store, tmp_path: Path) -> None:
    Lane(lane="cpu", classifiers={"digits": BUNDLE}, shm_default_bytes=2**20).write(tmp_path / "lane.json")
    settings = watch_settings(store.folder)
    repository = settings.model_copy(update={"repository": str(tmp_path)})
    for name, seconds in (("old", 1000.0), ("new", time.time())):
        add_drawn(store, drawn(2, seed=5), name=name, classifier=name, time_s=seconds)

    def names(settings: GatewaySettings) -> list[str]:
        return [one.classifier for one in Watch(store, settings, say=lambda _: None).look()]

    assert names(settings) == ["digits", "new", "old"], "no repository says what is served"
    assert names(repository) == ["digits", "new"], "the repository may be behind what is served"
    assert status_of(repository).lines()[-1] == "not in the repository any more, and left out: old"


@pytest.mark.parametrize(("missing", "said"), [("observe", "observe: {}"), ("watch", "watch: {}")])
def test_settings_without_a_section_say_which_to_add(tmp_path: Path, missing: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        call("status", write_settings(tmp_path, **{missing: None}))


def test_the_port_of_the_watch_is_its_own_and_values_have_limits() -> None:
    def parse(**watch: Any) -> GatewaySettings:
        data = {"teams": {"pets": {"key_file": "k"}}, "observe": {}, "watch": watch}
        return GatewaySettings.parse(data, source="gateway.yaml")

    assert parse().watch is not None
    with pytest.raises(SpecError, match=r"watch.metrics_port: port 8005 is that of observe.metrics_port"):
        parse(metrics_port=8005)
    with pytest.raises(SpecError, match="raise the first, or lower the second"):
        parse(reference_rows=1000, rows_between_false_alarms=19_999)
    for wrong in ({"reference_rows": 99}, {"rows_between_false_alarms": 1}, {"accuracy_points": -1}, {"points": 3}):
        with pytest.raises(SpecError):
            parse(**wrong)
