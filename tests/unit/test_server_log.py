"""A server's log on its way to whoever reads the launcher's messages."""

import threading
import time
from pathlib import Path

import pytest

from slipway.serving import server_log
from slipway.serving.server_log import passed_on


def test_every_line_is_passed_on_while_the_server_runs_and_the_last_when_it_ends(tmp_path: Path) -> None:
    log, said, first = tmp_path / "log", [], threading.Event()

    def say(line: str) -> None:
        said.append(line)
        first.set()

    with log.open("ab", buffering=0) as server:
        with passed_on(log, say):
            server.write(b"I1129 one\nI1129 t")
            assert first.wait(30)
            assert said == ["I1129 one"]
            server.write(b"wo \xff\nlast words")
        assert said == ["I1129 one", "I1129 two \N{REPLACEMENT CHARACTER}", "last words"]


def test_the_file_stays_small_and_no_line_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "MOST_BYTES", 100)
    monkeypatch.setattr(server_log, "PAUSE_S", 0.01)
    log, said = tmp_path / "log", []
    with log.open("ab", buffering=0) as server, passed_on(log, said.append):
        for number in range(20):
            server.write(f"line {number:03} of many\n".encode())
            deadline = time.monotonic() + 200
            while len(said) <= number:
                assert time.monotonic() < deadline
                time.sleep(0.005)
    assert said == [f"line {number:03} of many" for number in range(20)]
    assert log.stat().st_size < 200
