#!/usr/bin/env python3
"""The whole path on one screen: scanned digits to answers from Triton and a P99 figure, without a GPU."""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from slipway.contract import SlipwayError
from slipway.contract.cli import child, run
from slipway.serving import Ports, serve

ROOT = Path(__file__).parents[1]
RUN = Path("runs/digits")
REPOSITORY = Path("model_repository/cpu")
GATE = RUN / "gate.json"
STAGES = (
    ("demo data", f"training/make_digits.py --out {RUN}/data"),
    ("training", f"training/train.py training/configs/digits.yaml --out {RUN}/checkpoint --resume"),
    ("export", f"training/export.py {RUN}/checkpoint --out {RUN}/bundle"),
    ("evaluation", f"training/evaluate.py {RUN}/bundle"),
    ("INT8", f"build/quantize.py {RUN}/bundle --out {RUN}/graphs/int8"),
    ("FP16", f"build/quantize.py {RUN}/bundle --precision fp16 --out {RUN}/graphs/fp16"),
    ("engines and accuracy gate", f"build/compile.py {RUN}/bundle --graphs {RUN}/graphs --out {RUN}/engines"),
    (
        "proof that TensorRT compiles it",
        f"build/compile.py {RUN}/bundle --graphs {RUN}/graphs --out {RUN}/engines --target tensorrt_rtx",
    ),
    ("fastest precision that passed", f"build/choose.py {RUN}/bundle --engines {RUN}/engines"),
    ("report", f"build/report.py {RUN}/bundle --engines {RUN}/engines --graphs {RUN}/graphs --out {RUN}/report.html"),
    ("repository", f"build/assemble.py {RUN}/bundle --engines {RUN}/engines --out {REPOSITORY}"),
)
TOO_FEW, FAILED, LATE = 3, 1, 4  # exit codes of the gate that are a verdict; a noisy machine does not fail the demo


def main(_: argparse.Namespace) -> None:
    os.chdir(ROOT)
    started = time.monotonic()
    for title, command in STAGES:
        step(title, command)
    samples = write_samples()
    headline(f"serving: python -m slipway.serving {REPOSITORY}")
    with serve(REPOSITORY, ports=Ports.free(), progress=lambda message: print(f"  {message}")) as server:
        print(f"  ready after {server.seconds_to_ready:.1f} s")
        # 1: not every image was answered, and one of them is broken on purpose.
        step("answers", f"clients/classify_grpc.py {samples} --model digits --url {server.grpc_url}", allowed=(0, 1))
        step(
            "latency gate",
            f"benchmarks/gate.py digits --url {server.grpc_url} --images {RUN}/data --rate 50 "
            f"--requests-per-block 1200 --minutes 2 --pid {server.process.pid} --output {GATE}",
            allowed=(0, FAILED, TOO_FEW, LATE),
        )
    step("page of the latencies", f"benchmarks/report.py {GATE} --out {RUN}/latency.html")
    print_summary(seconds=time.monotonic() - started)


def step(title: str, command: str, *, allowed: tuple[int, ...] = (0,)) -> None:
    """Run one of our scripts, its output on this screen.

    Raises:
        SlipwayError: it ended with an exit code that is not `allowed`.
    """
    headline(f"{title}: {command}")
    started = time.monotonic()
    with child([sys.executable, *command.split()]) as process:
        code = process.wait()
    if code not in allowed:
        raise SlipwayError(f"{title} ended with exit code {code}; its own message is above")
    print(f"  took {time.monotonic() - started:.0f} s")


def headline(text: str) -> None:
    print(f"\n── {text}", flush=True)


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


def print_summary(*, seconds: float) -> None:
    checkpoint, bundle = measured(RUN / "checkpoint"), measured(RUN / "bundle")
    engines = {folder.name: measured(folder) for folder in sorted((RUN / "engines").glob("openvino-*"))}
    plans = {folder.name: measured(folder) for folder in sorted((RUN / "engines").glob("tensorrt_rtx-*"))}
    choice = json.loads((RUN / "engines" / "choice.json").read_text())
    gate = json.loads(GATE.read_text())
    latency, images = gate["latency"], checkpoint["images"]
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    headline(f"summary, {seconds:.0f} s, at most {peak_mib:,.0f} MiB in one process")
    splits = ", ".join(f"{images[split]:,} {split}" for split in ("train", "validation", "test"))
    print(f"  data        {splits} images")
    print(f"  training    {checkpoint['epochs']} epochs in {checkpoint['train_s']:.0f} s; ECE {bundle['ece']:.4f}")
    for name, engine in engines.items():
        accuracy = f"top-1 {engine['top1']:.2%}, macro-F1 {engine['macro_f1']:.4f}"
        print(f"  {name.removeprefix('openvino-').upper():<11} {accuracy} ({verdict(engine)})")
    print(f"  served      {choice['reason']}")
    sizes = ", ".join(f"{name.split('-')[1].upper()} {plan['plan_bytes'] / 1e6:.1f} MB" for name, plan in plans.items())
    print(f"  TensorRT    compiles without a GPU (RTX, never served): {sizes}")
    print(
        f"  latency     P50 {latency['p50_ms']:.1f} ms, P99 {latency['p99_ms']:.1f} ms at "
        f"{gate['achieved_per_s']:.0f} requests/s; limit {gate['options']['limit_ms']:g} ms: {gate['verdict'].upper()}"
    )
    pages = ", ".join(f"{RUN}/{page}.html" for page in ("evaluation", "report", "latency"))
    print(f"  artefacts   {pages}, {RUN}/bundle, {RUN}/engines, {REPOSITORY}, {GATE}")
    print(f"\n  serve it:   .venv/bin/python -m slipway.serving {REPOSITORY}")


def verdict(engine: dict[str, Any]) -> str:
    gate = engine["gate"]
    if gate["verdict"] == "reference":
        return "the reference"
    overall = gate["overall"]
    return f"gate: {gate['verdict']}, {overall['lost']} lost and {overall['gained']} gained of {overall['images']}"


def measured(folder: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["measured"]
    return numbers


if __name__ == "__main__":
    run(main, argparse.ArgumentParser(description=__doc__))
