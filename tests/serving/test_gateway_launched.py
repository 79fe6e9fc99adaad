"""`slipway serve --gateway`: both start and stop together, and neither takes the other with it."""

import argparse
import json
import os
import re
import signal
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from slipway.cli import serve
from slipway.client import Client, Options
from slipway.contract import ServingError
from slipway.serving import Ports
from tests.serving.conftest import EXAMPLE, Launched
from tests.support.gateways import KEYS, needs_envoy, write_gateway
from tests.support.processes import running_process, wait_for_words
from tests.support.reloading import reload
from tests.support.scripts import run_slipway
from tests.support.v2_requests import RED

pytestmark = needs_envoy


def envoy(launched: Launched) -> psutil.Process:
    below = psutil.Process(launched.process.pid).children()
    return next(process for process in below if Path(process.cmdline()[0]).name == "envoy")


def test_both_start_and_stop_and_a_killed_envoy_comes_back(launch: Callable[..., Launched], tmp_path: Path) -> None:
    path = write_gateway(tmp_path / "gateway")
    launched = launch(EXAMPLE, "--gateway", path)
    launched.wait_for('"event": "ready"')
    (ready,) = launched.events("gateway_ready")
    certificate = path.parent / "tls" / "certificate.pem"
    options = Options(key=KEYS["pets"], certificate=certificate, reconnect_s=10.0)
    with Client(f"grpcs://{ready['address']}", model="colours", options=options) as client:
        assert client.classify(RED).label == "red"
        server, killed = launched.server(), envoy(launched)
        killed.send_signal(signal.SIGKILL)
        started = time.monotonic()
        launched.wait_for('"event": "gateway_lost"')
        assert client.classify(RED).label == "red"
        assert time.monotonic() - started < 5
        assert launched.server().pid == server.pid
        assert envoy(launched).pid != killed.pid
    assert _ready(ready["address"], certificate) == ["colours"]
    assert reload(launched) == (0, "the repository is unchanged; the gateway found nothing new\n")
    (path.parent / "cars.key").chmod(0o644)
    code, said = reload(launched)
    assert code == 1
    assert re.search(r"unchanged; the gateway keeps its old settings: .*cars.key.*600", said), said
    assert launched.events("gateway_not_updated")
    (path.parent / "cars.key").chmod(0o600)
    assert reload(launched)[0] == 0
    assert "slipway_gateway_ready 1.0" in _metrics(launched.ports)
    assert KEYS["pets"] not in launched.said()
    launched.process.send_signal(signal.SIGINT)
    launched.process.wait(20)
    assert launched.leftovers() == []
    assert not psutil.pid_exists(killed.pid)
    state = launched.temporary.parent / "state" / "slipway"
    assert not list(state.glob("gateway-*/listeners"))  # the keys were in it


@pytest.mark.nightly
def test_an_envoy_that_hangs_is_replaced(launch: Callable[..., Launched], tmp_path: Path) -> None:
    launched = launch(EXAMPLE, "--gateway", write_gateway(tmp_path / "gateway", tls=False))
    launched.wait_for('"event": "gateway_ready"')
    envoy(launched).send_signal(signal.SIGSTOP)
    launched.wait_for("the gateway did not answer 3 times", timeout_s=30)
    deadline = time.monotonic() + 10
    while len(launched.events("gateway_ready")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.nightly
def test_a_launcher_that_is_killed_takes_envoy_with_it(launch: Callable[..., Launched], tmp_path: Path) -> None:
    launched = launch(EXAMPLE, "--gateway", write_gateway(tmp_path / "gateway", tls=False))
    launched.wait_for('"event": "gateway_ready"')
    process = envoy(launched)
    launched.process.kill()
    launched.process.wait(20)
    assert process.wait(5) is None or not process.is_running()


def test_a_gateway_that_cannot_start_ends_the_launcher_before_anything_is_served(tmp_path: Path) -> None:
    path = write_gateway(tmp_path / "gateway", tls=False, budgets_ms={"cats": 50})
    flags = [f"--{name}-port={port}" for name, port in vars(Ports.free()).items()]
    done = run_slipway("serve", EXAMPLE, "--gateway", path, *flags, XDG_STATE_HOME=str(tmp_path / "state"))
    assert done.returncode == 1
    assert "budgets_ms: cats: the repository has no such classifier; it has colours" in done.stderr
    assert "starting" not in done.stderr


def test_a_gateway_needs_a_server_that_listens_here(tmp_path: Path) -> None:
    arguments = argparse.Namespace(gateway=tmp_path / "gateway.yaml", host="192.0.2.1")
    with pytest.raises(ServingError, match=r"; give --host 127\.0\.0\.1 or 0\.0\.0\.0, or leave --gateway out"):
        serve._gateway(arguments, Ports(), event=print)


def test_alone_it_reads_its_settings_again_when_asked_and_ends_with_its_envoy(tmp_path: Path) -> None:
    path = write_gateway(tmp_path / "gateway", tls=False, repository=str(EXAMPLE))
    command = [sys.executable, "-m", "slipway", "gateway", str(path)]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    log = tmp_path / "log"
    with log.open("wb") as said, running_process(command, env=environment, stdout=said, stderr=said) as process:
        wait_for_words(process, log, "the gateway listens on")
        (below,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGUSR1)
        wait_for_words(process, log, "it forwards 2 models")
        path.write_text(path.read_text() + "nope: 1\n")
        process.send_signal(signal.SIGUSR1)
        wait_for_words(process, log, "keeps its old settings")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not below.is_running()


def _metrics(ports: Ports) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{ports.status}/metrics", timeout=20) as answer:
        said: str = answer.read().decode()
    return said


def _ready(address: str, certificate: Path) -> Any:
    """The classifiers that answer, as a load balancer asks for them: the supervisor says."""
    request = urllib.request.Request(f"https://{address}/v2/health/ready", headers={"slipway-key": KEYS["pets"]})
    context = ssl.create_default_context(cafile=certificate)
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        return json.load(answer)["answering"]
