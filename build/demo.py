#!/usr/bin/env python3
"""The whole path on one machine: digits to a repository, answers from the real tritonserver, and its P99."""

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from slipway.contract import SlipwayError
from slipway.serving import Ports, serve
from slipway.system.process import child, run

ROOT = Path(__file__).parents[1]
RUN, REPOSITORY = Path("runs/digits"), Path("model_repository/cpu")
GATE = RUN / "gate.json"
TOO_FEW, FAILED, LATE = 3, 1, 4  # exit codes of the gate that are a verdict; a noisy machine does not fail the demo


def main(_: argparse.Namespace) -> None:
    os.chdir(ROOT)
    started = time.monotonic()
    step("images", f"slipway make-digits --out {RUN}/data")
    step(
        "images to a repository",
        f"slipway up training/configs/digits.yaml --repository {REPOSITORY} --target openvino tensorrt_rtx",
    )
    samples = write_samples()
    print(f"\n── serving: slipway serve {REPOSITORY}", flush=True)
    with serve(REPOSITORY, ports=Ports.free(), progress=lambda message: print(f"  {message}")) as server:
        print(f"  ready after {server.seconds_to_ready:.1f} s")
        # 1: not every image was answered, and one of them is broken on purpose.
        step("answers", f"clients/classify_grpc.py {samples} --model digits --url {server.grpc_url}", allowed=(0, 1))
        step(
            "latency gate",
            f"slipway gate digits --url {server.grpc_url} --images {RUN}/data --rate 50 --minutes 2 "
            f"--pid {server.process.pid} --out {GATE}",
            allowed=(0, FAILED, TOO_FEW, LATE),
        )
    step("page of the latencies", f"slipway speed {GATE} --out {RUN}/latency.html")
    found = json.loads(GATE.read_text(encoding="utf-8"))
    latency, limit_ms = found["latency"], found["options"]["limit_ms"]
    print(
        f"\n── the demo took {time.monotonic() - started:.0f} s: P50 {latency['p50_ms']:.1f} ms, P99 "
        f"{latency['p99_ms']:.1f} ms at {found['achieved_per_s']:.0f} requests/s; limit {limit_ms:g} ms: "
        f"{found['verdict'].upper()}"
    )
    print(f"  pages       {', '.join(f'{RUN}/{page}.html' for page in ('evaluation', 'report', 'latency'))}")
    print(f"  serve it:   .venv/bin/slipway serve {REPOSITORY}")


def step(title: str, command: str, *, allowed: tuple[int, ...] = (0,)) -> None:
    """Run a verb or a script, its output on this screen.

    Raises:
        SlipwayError: it ended with an exit code that is not `allowed`.
    """
    print(f"\n── {title}: {command}", flush=True)
    started = time.monotonic()
    words = shlex.split(command)
    words = ["-m", *words] if words[0] == "slipway" else words
    with child([sys.executable, *words]) as process:
        code = process.wait()
    if code not in allowed:
        raise SlipwayError(f"{title} ended with exit code {code}; its own message is above")
    print(f"  took {time.monotonic() - started:.0f} s")


def write_samples() -> Path:
    """Three test images of different sizes, and one of them cut in half."""
    dataset = json.loads((RUN / "bundle" / "dataset.json").read_text())
    images = [Path(dataset["root"]) / image["path"] for image in dataset["images"] if image["split"] == "test"]
    images.sort(key=lambda path: path.stat().st_size)
    samples = RUN / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    samples.mkdir()
    for path in (images[0], images[len(images) // 2], images[-1]):
        shutil.copyfile(path, samples / f"a_{path.parent.name}_{path.name}")
    encoded = images[len(images) // 2].read_bytes()
    (samples / f"broken{images[len(images) // 2].suffix}").write_bytes(encoded[: len(encoded) // 2])
    return samples


if __name__ == "__main__":
    run(main, argparse.ArgumentParser(description=__doc__))
