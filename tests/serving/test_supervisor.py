"""The launcher brings back what dies, says so, and one broken classifier never stops another."""

import itertools
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from slipway.repository import assemble
from slipway.serving.process import SHARED_MEMORY, stubs
from tests.support.asking import asking, get, seconds_without, wait_until
from tests.support.colours import copy_colours, reseal
from tests.support.documented_curl import documented_commands, needs_curl
from tests.support.image_files import encode

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
RED = encode(Image.new("RGB", (60, 50), (220, 0, 0)), "PNG")
STUB_LIMIT_S, SERVER_LIMIT_S = 5, 10
Launch = Callable[..., Any]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A repository of `colours` and `shades`, which share their preprocess step and their engine, not their answers."""

    def warmer(part: Path) -> None:
        decision = json.loads((part / "decision.json").read_text())
        (part / "decision.json").write_text(json.dumps(decision | {"temperature": 2.0}))

    colours = copy_colours(tmp_path / "colours")
    shades = copy_colours(tmp_path / "shades", spec={"name": "shades"}, bundle=warmer, engine=warmer)
    assemble([colours, shades], tmp_path / "repository")
    return tmp_path / "repository"


def break_step(repository: Path, classifier: str, kind: str, old: str, new: str) -> str:
    """Replace words in the model.py of one step; returns the name of the step."""
    text = (repository / classifier / "config.pbtxt").read_text()
    (step,) = {part.split('"')[0] for part in text.split('model_name: "') if part.startswith(f"{kind}_")}
    model = repository / step / "1" / "model.py"
    assert old in model.read_text()
    text = model.read_text().replace(old, new)
    model.unlink()
    model.write_text(text)
    reseal(repository)
    return step


@pytest.mark.parametrize("kind", ["preprocess", "engine", "post"])
def test_a_killed_stub_is_back_within_its_time_and_nobody_waits_for_ever(launch: Launch, kind: str) -> None:
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    with asking(f"127.0.0.1:{launched.ports.grpc}", "colours", RED) as asked:
        wait_until(lambda: sum(one.label == "red" for one in asked) > 20)
        (victim,) = (pid for pid, step in stubs(launched.server().pid).items() if step.startswith(kind))
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: seconds_without(asked, "red", since=killed) < 60, timeout_s=2 * STUB_LIMIT_S)
        wait_until(lambda: launched.events("step_repaired"))
    assert seconds_without(asked, "red", since=killed) <= STUB_LIMIT_S
    assert all(one.label == "red" or one.error for one in asked)
    assert max(one.seconds for one in asked) < STUB_LIMIT_S
    assert [event["step"].split("_")[0] for event in launched.events("step_lost")] == [kind]
    assert launched.events("restarting") == []
    assert get(launched, "/ready")[0] == 200


def test_a_killed_server_is_back_within_its_time_without_orphans(launch: Launch) -> None:
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    first = launched.below()
    with asking(f"127.0.0.1:{launched.ports.grpc}", "colours", RED) as asked:
        wait_until(lambda: sum(one.label == "red" for one in asked) > 20)
        killed = time.monotonic()
        launched.server().kill()
        wait_until(lambda: seconds_without(asked, "red", since=killed) < 60, timeout_s=2 * SERVER_LIMIT_S)
    assert seconds_without(asked, "red", since=killed) <= SERVER_LIMIT_S
    assert all(one.label == "red" or one.error for one in asked)
    wait_until(lambda: len(launched.events("ready")) == 2)
    assert not {process.pid for process in first} & {process.pid for process in launched.below()}
    assert "exit code -9" in launched.events("restarting")[0]["message"]
    regions = len(list(SHARED_MEMORY.glob(f"slipway_{launched.process.pid}_*")))
    launched.server().kill()
    wait_until(lambda: len(launched.events("ready")) == 3)
    assert len(list(SHARED_MEMORY.glob(f"slipway_{launched.process.pid}_*"))) == regions
    assert "slipway_server_starts_total 3.0" in get(launched, "/metrics")[1]


def class_count_on_strings(launched: Any, connect: Callable[..., Any], protocol: str) -> None:
    connect(launched_server(launched), protocol).ask("colours", [RED], ["LABEL"], class_count=1)


def nested_json(launched: Any, connect: Callable[..., Any], protocol: str) -> None:  # noqa: ARG001
    send(launched, b'{"inputs":' + b"[" * 10_000_000, "application/json")


def form_over_the_limit(launched: Any, connect: Callable[..., Any], protocol: str) -> None:  # noqa: ARG001
    """Known, and documented: without the gateway, nothing in front of tritonserver 2.51 refuses it."""
    (ready,) = launched.events("ready")
    send(launched, bytes(ready["largest_form_bytes"]), "application/x-www-form-urlencoded")


def send(launched: Any, body: bytes, content_type: str) -> None:
    url = f"http://127.0.0.1:{launched.ports.http}/v2/models/colours/infer"
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": content_type}), timeout=30)


def launched_server(launched: Any) -> Any:
    class Server:
        grpc_url, http_url = f"127.0.0.1:{launched.ports.grpc}", f"127.0.0.1:{launched.ports.http}"

    return Server


@pytest.mark.parametrize(
    ("fatal", "protocol"),
    [
        (class_count_on_strings, "grpc"),
        (class_count_on_strings, "http"),
        (nested_json, "http"),
        (form_over_the_limit, "http"),
    ],
    ids=["class_count over gRPC", "class_count over HTTP", "nested JSON", "a form over the limit"],
)
def test_a_request_that_kills_the_server_is_survived_and_every_other_client_gets_an_answer_or_an_error(
    launch: Launch, connect: Callable[..., Any], fatal: Callable[..., None], protocol: str
) -> None:
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    with asking(f"127.0.0.1:{launched.ports.grpc}", "colours", RED) as asked:
        wait_until(lambda: len(asked) > 20)
        sent = time.monotonic()
        with pytest.raises((InferenceServerException, OSError)):
            fatal(launched, connect, protocol)
        wait_until(lambda: launched.events("restarting"))
        wait_until(lambda: seconds_without(asked, "red", since=sent + 1) < 60)
    assert seconds_without(asked, "red", since=sent + 1) <= SERVER_LIMIT_S
    assert all(one.label == "red" or one.error for one in asked)
    assert max(one.seconds for one in asked) <= SERVER_LIMIT_S


@pytest.mark.nightly
def test_a_client_that_ends_the_server_again_and_again_keeps_it_away_for_seconds_each_time(
    launch: Launch, connect: Callable[..., Any]
) -> None:
    launched = launch(EXAMPLE)
    client = connect(launched_server(launched), "grpc")
    for starts in range(1, 9):
        wait_until(lambda: len(launched.events("ready")) == starts)  # noqa: B023
        with pytest.raises(InferenceServerException):
            client.ask("colours", [RED], ["LABEL"], class_count=1)
    wait_until(lambda: len(launched.events("ready")) == 9)
    times = [datetime.fromisoformat(event["time"]) for event in launched.events("ready")]
    took = [event["seconds"] for event in launched.events("ready")]
    away_s = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)]
    assert max(away - start for away, start in zip(away_s, took[1:], strict=True)) < 8
    rested_s = sum(away_s[1:]) + 1 - sum(took[2:])  # the launcher's log has whole seconds
    assert rested_s >= len(away_s[1:]), "it rests between two starts"


def test_a_launcher_that_is_killed_takes_its_server_along_and_the_next_one_cleans_up(launch: Launch) -> None:
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    launched.process.kill()
    launched.process.wait()
    wait_until(lambda: not launched.below(), timeout_s=15)
    # The stubs may have removed what they had; what a harder end leaves looks like this.
    left = SHARED_MEMORY / f"slipway_{launched.process.pid}_0123abcd_left"
    mine = SHARED_MEMORY / f"slipway_{os.getpid()}_0123abcd_mine"
    try:
        left.write_bytes(bytes(4096))
        mine.write_bytes(bytes(4096))
        following = launch(EXAMPLE)
        following.wait_for("ready after")
        # A launcher of another test may be the one that removed it, so who said so is not asked.
        assert not list(SHARED_MEMORY.glob(f"slipway_{launched.process.pid}_*"))
        assert mine.exists(), "of a process that lives"
    finally:
        left.unlink(missing_ok=True)
        mine.unlink(missing_ok=True)


def test_a_classifier_that_does_not_load_does_not_stop_the_other(launch: Launch, two: Path) -> None:
    step = break_step(two, "shades", "post", "def initialize(self, args: dict[str, str]) -> None:", BROKEN)
    launched = launch(two)
    launched.wait_for("ready after")
    assert get(launched, "/live") == (200, {"live": True})
    assert get(launched, "/ready/colours")[0] == 200
    code, said = get(launched, "/ready/shades")
    assert code == 503
    assert "the dog ate the labels" in said["broken"]["shades"]
    assert step in said["broken"]["shades"]
    code, said = get(launched, "/ready")
    assert (code, said["answering"]) == (503, ["colours"])
    assert 'slipway_ready{classifier="shades"} 0.0' in get(launched, "/metrics")[1]
    assert {event["ensemble"] for event in launched.events("broken")} == {"shades", "shades_full"}
    time.sleep(3)
    assert launched.events("restarting") == [], "it stays broken, and the other is left in peace"


BROKEN = """def initialize(self, args):
        raise ValueError("the dog ate the labels")

    def before(self, args):"""
HANGING = """def execute(self, requests):
        if Path({marker!r}).exists():
            import time
            time.sleep(1000)
        return self.answer(requests)

    def answer("""


def test_a_classifier_that_hangs_is_loaded_again_while_the_other_answers(
    launch: Launch, two: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "hang"
    step = break_step(two, "shades", "post", "def execute(", HANGING.format(marker=str(marker)))
    launched = launch(two)
    launched.wait_for("ready after")
    with asking(f"127.0.0.1:{launched.ports.grpc}", "colours", RED, per_second=20) as asked:
        marker.touch()
        lost = wait_until(lambda: launched.events("step_lost"), timeout_s=60)
        marker.unlink()
        wait_until(lambda: launched.events("step_repaired"))
        wait_until(lambda: get(launched, "/ready")[0] == 200)
    assert {event["step"] for event in lost} == {step}
    assert all(one.label == "red" for one in asked), "what shades does is nothing to colours"
    assert launched.events("restarting") == []


def test_a_path_that_is_none_of_the_supervisors_is_answered_with_those_that_are(launch: Launch) -> None:
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    for path in ("/", "/ready/nobody", "/ready/../../etc/passwd", "/live/", "/ready?x=1"):
        code, said = get(launched, path)
        assert code == 404, path
        assert "/ready/<classifier>" in said["error"], path


@needs_curl
def test_every_documented_curl_to_the_supervisor_is_answered(launch: Launch) -> None:
    lines = [line for command in documented_commands().values() for line in command.splitlines()]
    questions = [line.partition("#")[0] for line in lines if line.startswith("curl ") and ":8003/" in line]
    assert len(questions) >= 2
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    for question in questions:
        command = question.replace("127.0.0.1:8003", f"127.0.0.1:{launched.ports.status}").split()
        done = subprocess.run([*command, "--noproxy", "127.0.0.1"], capture_output=True, timeout=10, check=True)
        assert json.loads(done.stdout)["ready"] is True


def test_another_address_than_loopback_is_refused_with_the_proper_way(launch: Launch) -> None:
    launched = launch(EXAMPLE, "--host", "0.0.0.0")
    assert launched.process.wait(timeout=30) == 1
    assert "listens on 127.0.0.1 alone" in launched.said()
    assert "slipway container serve" in launched.said()
