"""The launcher where its environment is not what it expects: who reads along, HOME, TMPDIR, ignored signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from slipway.serving import Ports
from slipway.serving.ports import HOST
from tests.support.asking import asking, wait_until
from tests.support.scripts import run_slipway
from tests.support.v2_requests import RED

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
Launch = Callable[..., Any]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`reader(*options)` starts the launcher with stderr and stdout in a pipe; returns it and the end to read from."""
    started: list[subprocess.Popen[bytes]] = []

    def reader(*options: str) -> tuple[subprocess.Popen[bytes], int, Ports]:
        ports = Ports.free()
        ours, theirs = os.pipe()
        flags = [f"--{name}-port={port}" for name, port in vars(ports).items()]
        command = [sys.executable, "-m", "slipway", "serve", str(EXAMPLE), *flags, "--json", *options]
        environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
        started.append(subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment))
        os.close(theirs)
        return started[-1], ours, ports

    yield reader
    for process in started:
        process.terminate()
        process.wait(timeout=30)


def get(ports: Ports, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{ports.status}{path}", timeout=5) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def metric(ports: Ports, name: str) -> float:
    lines = [line for line in get(ports, "/metrics").splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[1]) if lines else 0.0


def server(launcher: subprocess.Popen[bytes]) -> psutil.Process:
    (found,) = psutil.Process(launcher.pid).children()
    return found


def test_a_reader_of_its_messages_that_goes_away_does_not_end_it(reader: Callable[..., Any]) -> None:
    process, pipe, ports = reader()
    wait_until(lambda: get(ports, "/ready"))
    os.close(pipe)
    server(process).kill()
    wait_until(lambda: metric(ports, "slipway_server_starts_total") == 2)
    assert process.poll() is None
    assert metric(ports, "slipway_messages_lost") > 0
    process.terminate()
    assert process.wait(timeout=30) == 0


def test_a_reader_that_stops_holds_nothing_up(reader: Callable[..., Any]) -> None:
    process, pipe, ports = reader()
    wait_until(lambda: get(ports, "/ready"))
    filler = os.open(f"/proc/{os.getpid()}/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(filler, b"\n" * 4096)
    os.close(filler)
    server(process).kill()
    wait_until(lambda: metric(ports, "slipway_server_starts_total") == 2)
    process.terminate()
    assert process.wait(timeout=30) == 0, "nor does it hold its end up"


def test_ignored_signals_stay_ignored_and_the_others_end_it(reader: Callable[..., Any]) -> None:
    """What `nohup` does, and a shell without job control with Ctrl-C."""
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGHUP, signal.SIGINT)}
    try:
        process, pipe, ports = reader()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    wait_until(lambda: '"ready": true' in get(ports, "/ready"))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert '"ready": true' in get(ports, "/ready")
    process.terminate()
    assert process.wait(timeout=30) == 0
    os.close(pipe)


def test_a_log_that_cannot_be_written_any_more_does_not_keep_the_server_down(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    launched = launch(EXAMPLE, "--log", tmp_path / "logs/server.log")
    launched.wait_for("ready after")
    shutil.rmtree(tmp_path / "logs")
    launched.server().kill()
    wait_until(lambda: len(launched.events("ready")) == 2)
    (lost,) = launched.events("log_lost")
    assert f"{tmp_path}/logs/server.log: cannot be written: No such file or directory" in lost["message"]


def test_a_log_that_is_no_file_is_refused_and_a_link_is_not_replaced(launch: Launch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    launched = launch(EXAMPLE, "--log", tmp_path / "pipe")
    assert launched.process.wait(timeout=30) == 2
    assert f"{tmp_path}/pipe exists, and is not a file with log in its name" in launched.said()
    (tmp_path / "link").symlink_to(tmp_path / "server.log")
    launched = launch(EXAMPLE, "--log", tmp_path / "link")
    launched.wait_for("ready after")
    assert (tmp_path / "link").is_symlink()
    assert "colours" in (tmp_path / "server.log").read_text()


def test_a_temporary_folder_that_a_shell_would_misread_is_replaced_and_that_is_said(
    launch: Launch, tmp_path: Path
) -> None:
    folder = tmp_path / "a b'c\"$HOMEé\n;"
    folder.mkdir()
    launched = launch(EXAMPLE, environment={"TMPDIR": str(folder)})
    launched.wait_for("ready after")
    (said,) = launched.events("environment")
    assert said["message"].startswith(f"TMPDIR={folder} ")
    assert said["message"].endswith(": using /tmp")
    launched.process.terminate()
    assert launched.process.wait(timeout=30) == 0
    assert not list(folder.iterdir())


def test_without_a_home_it_serves_and_is_told_to_reload(launch: Launch) -> None:
    nowhere = {"HOME": "/nonexistent", "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""}
    launched = launch(EXAMPLE, environment=nowhere)
    launched.wait_for("ready after")
    (said,) = launched.events("environment")
    substitute = launched.temporary / f"slipway-{os.getuid()}"
    assert str(substitute) in said["message"]
    variables = {**nowhere, "TMPDIR": str(launched.temporary)}
    done = run_slipway("reload", f"--status-port={launched.ports.status}", **variables)
    assert done.stdout == "the repository is unchanged\n", done.stderr
    assert list((substitute / ".cache/slipway").iterdir()), "compiled engines are kept"


def test_a_state_folder_that_cannot_be_written_is_one_sentence(launch: Launch) -> None:
    launched = launch(EXAMPLE, environment={"XDG_STATE_HOME": "/dev/null"})
    assert launched.process.wait(timeout=30) == 1
    assert "/dev/null/slipway" in launched.said()
    assert "set XDG_STATE_HOME to a folder that can be written, or SLIPWAY_ADMIN_KEY" in launched.said()
    assert "Traceback" not in launched.said()


def test_scrapers_that_read_slowly_or_go_away_hold_nothing_up(launch: Launch) -> None:
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    slow = [socket.create_connection((HOST, launched.ports.status)) for _ in range(50)]
    for one in slow:
        one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")  # and no end
    gone = [socket.create_connection((HOST, launched.ports.status)) for _ in range(20)]
    for one in gone:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 50)
        one.close()
    with asking(f"{HOST}:{launched.ports.grpc}", "colours", RED):
        launched.server().kill()
        wait_until(lambda: len(launched.events("ready")) == 2)
    assert json.loads(get(launched.ports, "/ready"))["ready"]
    assert "Traceback" not in launched.said()
    for one in slow:
        one.close()
