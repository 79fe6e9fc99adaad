"""`slipway serve` as a user runs it: how it starts, how it ends, and that nothing of it stays."""

import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tritonclient.utils import InferenceServerException

from slipway.contract import ServingError
from slipway.serving import Ports
from slipway.serving.binary import _prepare_backends
from slipway.serving.status import ServingStatus
from slipway.serving.supervisor import Supervisor
from tests.support.asking import wait_until
from tests.support.colours import contents

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
ADMIN_CALLS = {
    "shared memory status": lambda client, headers: client.get_system_shared_memory_status(headers=headers),
    "shared memory": lambda client, headers: client.register_system_shared_memory("x", "x", 8, headers=headers),
    "CUDA shared memory": lambda client, headers: client.get_cuda_shared_memory_status(headers=headers),
    "repository index": lambda client, headers: client.get_model_repository_index(headers=headers),
    "load": lambda client, headers: client.load_model("colours", headers=headers),
    "unload": lambda client, headers: client.unload_model("colours", headers=headers),
    "log settings": lambda client, headers: client.get_log_settings(headers=headers),
    "logging": lambda client, headers: client.update_log_settings({"log_file": "/tmp/x"}, headers=headers),
    "trace settings": lambda client, headers: client.get_trace_settings(headers=headers),
    "tracing": lambda client, headers: client.update_trace_settings(settings={"trace_file": "/tmp/x"}, headers=headers),
}
Launch = Callable[..., Any]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_says_when_it_is_ready_and_ends_without_a_trace(
    launch: Launch, ending: signal.Signals, tmp_path: Path
) -> None:
    repository = shutil.copytree(EXAMPLE, tmp_path / "repository")
    before = contents(repository)
    launched = launch(repository)
    launched.wait_for("ready after")
    (ready,) = launched.events("ready")
    assert ready["message"].endswith(f"gRPC 127.0.0.1:{launched.ports.grpc}, HTTP 127.0.0.1:{launched.ports.http}")
    loaded = [event["message"] for event in launched.events("loading")]
    assert loaded[-2:] == ["colours answers", "colours_full answers"]
    assert len(launched.below()) == 4, "the server and the stubs of three steps"
    assert any(one.startswith("/dev/shm/") for one in launched.leftovers()), "its shared memory is seen"

    launched.process.send_signal(ending)
    assert launched.process.wait(timeout=180) == 0, launched.said()
    assert launched.leftovers() == []
    assert "Traceback" not in launched.said()
    assert contents(repository) == before, "the repository is what it was, without __pycache__"


def test_it_listens_on_the_loopback_address_alone(example_server: Any) -> None:
    server = psutil.Process(example_server.process.pid)
    listening = {
        (process.pid, connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in (server, *server.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    ports = example_server.ports
    assert listening == {(server.pid, "127.0.0.1", port) for port in (ports.http, ports.grpc, ports.metrics)}


@pytest.mark.parametrize("call", ADMIN_CALLS.values(), ids=ADMIN_CALLS.keys())
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_administrative_apis_are_refused_without_the_key(
    example_server: Any, connect: Callable[..., Any], protocol: str, call: Callable[..., Any]
) -> None:
    client = connect(example_server, protocol).triton
    header = {"grpc": "triton-grpc-protocol-slipway-admin", "http": "slipway-admin"}[protocol]
    for headers in (None, {header: "guess"}, {header: ""}):
        with pytest.raises(InferenceServerException, match=r"(?i)restricted|expecting"):
            call(client, headers)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_key_opens_the_administrative_apis(example_server: Any, connect: Callable[..., Any], protocol: str) -> None:
    client = connect(example_server, protocol).triton
    header = {"grpc": "triton-grpc-protocol-slipway-admin", "http": "slipway-admin"}[protocol]
    index = client.get_model_repository_index(headers={header: example_server.admin_key})
    assert "colours" in str(index)


def test_the_key_is_said_nowhere_and_no_process_shows_it(launch: Launch) -> None:
    launched = launch(EXAMPLE, "--json")
    launched.wait_for("ready after")
    server = launched.server()
    (flag,) = (a for a in server.environ().values() if a.startswith("--http-restricted-api="))
    key = flag.rpartition("slipway-admin=")[2]
    assert len(key) > 20
    assert key not in launched.said()
    assert not launched.events("key_shown")
    for process in psutil.process_iter(["cmdline"]):
        assert key not in " ".join(process.info["cmdline"] or ())


@pytest.mark.parametrize("which", ["http", "grpc", "metrics", "status"])
def test_a_port_in_use_is_one_sentence_that_names_it_and_its_option(launch: Launch, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        launched = launch(EXAMPLE, f"--{which}-port", port)  # the last one counts
        assert launched.process.wait(timeout=180) == 1
    (said,) = launched.said().splitlines()  # and nothing of a server that starts
    assert f"port {port} ({which})" in said
    assert f"--{which}-port" in said
    assert launched.leftovers() == []


def catches_sigterm(pid: int) -> bool:
    """Whether the process has come so far that its endings are its own; Python itself leaves SIGTERM alone."""
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("after_s", [0, 0.2, 0.5, 1.0])
def test_ctrl_c_while_it_starts_leaves_nothing(launch: Launch, after_s: float) -> None:
    launched = launch(EXAMPLE)
    wait_until(lambda: catches_sigterm(launched.process.pid))
    time.sleep(after_s)
    launched.process.send_signal(signal.SIGINT)
    launched.process.wait(timeout=180)
    assert launched.leftovers() == []
    assert "Traceback" not in launched.said()


def test_an_ending_whose_exception_was_dropped_still_ends_the_server(tmp_path: Path) -> None:
    ended, events = threading.Event(), []

    def event(name: str, *_: str, **__: object) -> None:
        events.append(name)
        if name == "ready":
            ended.set()

    supervisor = Supervisor(
        EXAMPLE,
        ports=Ports.free(),
        log=tmp_path / "log",
        timeout_s=120,
        status=ServingStatus(),
        event=event,
        ended=ended,
    )
    with pytest.raises(SystemExit):
        supervisor.run()
    assert (events[0], events[-1]) == ("starting", "ready")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_an_impatient_second_signal_does_not_cut_the_cleaning_up_short(launch: Launch, ending: signal.Signals) -> None:
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    for _ in range(3):
        launched.process.send_signal(ending)
        time.sleep(0.3)
    launched.process.wait(timeout=180)
    assert launched.leftovers() == []
    assert "Traceback" not in launched.said()


def test_a_wheel_without_a_stub_for_this_python_is_one_sentence(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for other in ("3.8", "3.9"):
        (tmp_path / "wheel/python_backend_stubs" / other).mkdir(parents=True)
    with pytest.raises(ServingError, match=rf"no stub for Python {version}; it has stubs for 3\.8, 3\.9"):
        _prepare_backends(tmp_path / "wheel", tmp_path / "workspace")
    with pytest.raises(ServingError, match="it has stubs for none"):
        _prepare_backends(tmp_path / "nothing", tmp_path / "workspace")
