"""What the supervisor says and does: pauses before a new start, steps that lack a process, and who is ready."""

import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.repository import assemble
from slipway.serving import Ports
from slipway.serving import server as serving
from slipway.serving.contents import Contents
from slipway.serving.endpoint import endpoint
from slipway.serving.limits import ServerLimits
from slipway.serving.server import Server
from slipway.serving.status import ServingStatus
from slipway.serving.supervisor import LONGEST_PAUSE_S, LONGEST_REST_S, pause_s
from tests.support.gpu_lanes import gpu_classifier

COUNTS, SECONDS = st.integers(0, 10_000), st.floats(0, 1e6)


@given(short=COUNTS, start_s=SECONDS)
def test_a_server_that_had_answered_is_back_within_seconds_however_often_it_died(short: int, start_s: float) -> None:
    assert pause_s(short=short, failed=0, start_s=start_s) <= LONGEST_REST_S


@given(short=st.integers(2, 10_000), start_s=st.floats(0, LONGEST_REST_S))
def test_a_loop_of_crashes_spends_at_most_half_of_its_time_on_starts(short: int, start_s: float) -> None:
    assert pause_s(short=short, failed=0, start_s=start_s) >= start_s


@pytest.mark.parametrize("short", [0, 1])
def test_the_first_crash_is_followed_by_a_start_at_once(short: int) -> None:
    assert pause_s(short=short, failed=0, start_s=3.0) == 0


def test_a_server_that_never_answers_is_tried_less_and_less_often() -> None:
    pauses = [pause_s(short=failed + 5, failed=failed, start_s=3.0) for failed in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


@given(short=COUNTS, failed=COUNTS, start_s=SECONDS)
def test_no_pause_is_longer_than_the_longest(short: int, failed: int, start_s: float) -> None:
    assert 0 <= pause_s(short=short, failed=failed, start_s=start_s) <= LONGEST_PAUSE_S


def test_a_step_on_eight_gpus_lacks_a_process_as_soon_as_one_of_eight_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble([gpu_classifier(tmp_path, "9.0")], tmp_path / "gpu", lane="gpu")
    contents = Contents.open(tmp_path / "gpu")
    (step,) = (name for name in contents.models if name.startswith("preprocess_"))
    alive: dict[int, str] = {}
    stand_ins: dict[str, Any] = {
        "process": SimpleNamespace(pid=1),
        "control": SimpleNamespace(load=lambda name, **_: alive.update(dict.fromkeys(range(8), name))),
        "workspace": None,
        "binary": None,
    }
    server = Server(
        ports=Ports(), log=tmp_path / "log", admin_key="", contents=contents, limits=ServerLimits(1, 1), **stand_ins
    )
    monkeypatch.setattr(serving.processes, "stubs", lambda _: alive)
    assert server.load_steps([step], deadline=time.monotonic() + 60) == {}
    assert server.lacking([step]) == []
    del alive[3]
    assert server.lacking([step]) == [step]


def test_the_vital_classifiers_alone_decide_where_they_are_named() -> None:
    status, port = ServingStatus(), Ports.free().http
    status.set_all({"a": "", "b": "", "c": "lost"}, alone=())
    expected = {
        "/ready": 503,
        "/ready/a": 200,
        "/ready/c": 503,
        "/ready?only=a,b": 200,
        "/ready?only=a,c": 503,
        "/ready?only=a,nobody": 404,
        "/ready?only=": 404,
        "/ready/a/b": 404,
    }
    found = {}
    with endpoint(port, status=status, reload=lambda: (False, ""), key="key"):
        for path in expected:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                    found[path] = answer.status
            except urllib.error.HTTPError as error:
                found[path] = error.code
                error.close()
    assert found == expected
