"""The gate, perf_analyzer and locust see the same latency: the p50 of a server that takes 30 ms, within 10 %.

The three come one after the other, and a busy machine does not treat them alike. So the server writes down what it took
itself, and a plain client asks beside them all the time: what it waits on top of that says how busy the machine is.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, median_high
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from tests.support.load_tools import colour_images, install_perf_analyzer, locust
from tests.support.processes import running_process
from tests.support.scripts import ROOT, run_script

LATENCY_MS = 30.0
SHARE, ADDED_MS = 0.1, 1.5
"""By which they may differ, where a plain client waits so long on top; on a busier machine in proportion."""


class Stub:
    """A server that answers every request 30 ms after it came, in a process of its own."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self.log = url, log
        self.read = 0

    def served_ms(self) -> float:
        """The median of what it took for the requests since the last call."""
        lines = self.log.read_text().splitlines()[self.read :]
        self.read += len(lines)
        return median(1000 * (line["answered_s"] - line["arrived_s"]) for line in map(json.loads, lines))


@contextmanager
def plain_client(url: str, image: bytes) -> Iterator[list[float]]:
    """The latencies in ms of one request after the other, meanwhile."""
    latencies_ms: list[float] = []
    over = threading.Event()
    tensor = triton_grpc.InferInput("IMAGE", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[image]], np.object_))

    def work() -> None:
        with triton_grpc.InferenceServerClient(url) as client:
            while not over.is_set():
                started_s = time.perf_counter()
                client.infer("stub", [tensor], client_timeout=20)
                latencies_ms.append(1000 * (time.perf_counter() - started_s))

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield latencies_ms
        finally:
            over.set()
            working.result()


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    log = tmp_path / "served.jsonl"
    command = [sys.executable, ROOT / "tests/support/stub_server.py", "--latency-ms", str(LATENCY_MS), "--log", log]
    with running_process(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield Stub(json.loads(process.stdout.readline())["url"], log)


def script_json(*arguments: str | Path, cwd: Path) -> Any:
    """The script's last line; the gate's verdict does not matter here."""
    done = run_script(*arguments, "--json", cwd=cwd, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def gate_p50_ms(url: str, images: Path, cwd: Path) -> float:
    load = (
        "--blocks",
        "2",
        "--requests-per-block",
        "70",
        "--warm-up-requests",
        "10",
        "--rate",
        "40",
        "--minutes",
        "0.1",
    )
    result = script_json("benchmarks/gate.py", "stub", "--url", url, "--images", images, *load, cwd=cwd)
    return float(result["latency"]["p50_ms"])


def perf_analyzer_p50_ms(url: str, images: Path, cwd: Path) -> float:
    load = ("--concurrency", "1", "--duration-s", "2.5", "--warm-up-s", "0")
    result = script_json("benchmarks/perf_analyzer.py", "stub", "--url", url, "--images", images, *load, cwd=cwd)
    assert [run["model"] for run in result["runs"]] == ["stub", "step_1"]
    return float(result["runs"][0]["p50_us"]) / 1000


def locust_p50_ms(url: str, images: Path, cwd: Path) -> float:
    load = ("--clients", "1", "--duration-s", "3", "Grpc")
    run = locust("--model", "stub", "--grpc-url", url, "--images", images, *load, folder=cwd / "locust")
    assert run.code == 0, run.said
    counts = sorted((float(ms), count) for ms, count in run.figures["gRPC"]["response_times"].items())
    return median_high(np.repeat(*zip(*counts, strict=True)).tolist())


@pytest.mark.nightly
def test_the_gate_perf_analyzer_and_locust_agree_on_the_median_within_ten_percent(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install_perf_analyzer()
    images = colour_images(tmp_path / "images")
    tools = {"gate": gate_p50_ms, "perf_analyzer": perf_analyzer_p50_ms, "locust": locust_p50_ms}
    seen_ms, ratios, added_ms = {}, {}, []
    with plain_client(stub.url, (images / "red0.jpg").read_bytes()) as plain_ms:
        for tool, p50_ms in tools.items():
            seen_ms[tool] = p50_ms(stub.url, images, tmp_path)
            served_ms = stub.served_ms()
            ratios[tool] = seen_ms[tool] / served_ms
            added_ms.append(median(plain_ms) - served_ms)
            plain_ms.clear()
    share = SHARE * max(1.0, max(added_ms) / ADDED_MS)
    with capsys.disabled():
        seen = ", ".join(
            f"{tool} {ms:.2f} ms ({ratios[tool]:.3f} of what the server took)" for tool, ms in seen_ms.items()
        )
        print(f"\n  p50: {seen}; a plain client waits {max(added_ms):.2f} ms on top: within {share:.0%}")
    assert min(ratios.values()) > 0.98  # locust rounds to milliseconds
    assert max(ratios.values()) <= (1 + share) * min(ratios.values())
