"""Runs proofs one after another, each in a process of its own with a limit: one that crashes costs no other."""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.studies.gpu_proof.carried import make_importable, unpack
from benchmarks.studies.gpu_proof.folder import ROOT, Prepared, ProofError, write_json
from benchmarks.studies.gpu_proof.report import NOT_RUN, Report, not_run, read_result
from benchmarks.studies.gpu_proof.wheels import NEEDED

LOG = "gpu_proof.log"
"""File with the decoders' messages on damaged images, thousands of lines. Its end shows why a proof crashed."""
LAST_LINES, ENDS_WITHIN_S = 12, 12
LIMITS_S: Mapping[str, int] = {"codec": 150, "precision": 60, "dali": 90, "server": 270, "heads": 120}
"""Seconds that each proof may take, in the order of the proofs. The first three fit a run of ten minutes together, and
so do the last two."""
Prove = Callable[[Path, Report], None]


def run(proofs: Sequence[str], *, folder: Path, out: Path, device: str, installed: bool, scale: float = 1.0) -> int:
    """Run `proofs` and print a line for each; 0 if all pass.

    Args:
        installed: use the packages of this Python, not carried wheels.
        scale: how many times its limit a proof may take.

    Raises:
        ProofError: nothing was prepared.
    """
    prepared = Prepared.read(folder)
    codes = []
    out.mkdir(parents=True, exist_ok=True)
    (out / LOG).unlink(missing_ok=True)
    for name in proofs:
        path = out / f"gpu_proof_{name}.json"
        path.unlink(missing_ok=True)
        try:
            if not installed:
                unpack(prepared.wheels, NEEDED[name], folder)
        except (ProofError, OSError) as error:  # OSError: a full disk
            write_json(path, not_run(name, device, prepared, [f"{error}"]))
        else:
            limit_s = LIMITS_S[name] * scale
            _child(name, path, prepared, folder=folder, device=device, installed=installed, limit_s=limit_s)
        result = read_result(path)
        codes.append(result["verdict"] != "pass")
        print(f"{name}: {result['verdict']} ({result['seconds']} s) {path}", flush=True)
        for reason in result["reasons"]:
            print(f"   {reason}", flush=True)
    return max(codes, default=False)


def _child(
    name: str, path: Path, prepared: Prepared, *, folder: Path, device: str, installed: bool, limit_s: float
) -> None:
    command = [sys.executable, "-m", "benchmarks.studies.gpu_proof", "prove", name, "--folder", str(folder)]
    command += ["--result", str(path), "--device", device, *(["--installed"] if installed else [])]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    with (path.parent / LOG).open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, start_new_session=True)
    try:
        code = process.wait(limit_s)
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" if code else ""
    except subprocess.TimeoutExpired:
        ended = f"its limit of {limit_s:.0f} s"
    finally:
        _end_group(process)
    if ended:
        last = (path.parent / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        print("\n".join(f"   | {line[:200]}" for line in last), flush=True)
        if not path.is_file():
            write_json(path, not_run(name, device, prepared, [f"ended by {ended} before it began"]))
        result = read_result(path)
        if not (result["verdict"] == NOT_RUN and result["reasons"]):
            result["reasons"].append(f"ended by {ended} in part {result['part']!r}")
        write_json(path, {**result, "verdict": NOT_RUN})


def _end_group(process: "subprocess.Popen[Any]") -> None:
    """End the proof, which ends a server that it started, and then every process that is left."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDS_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def prove(name: str, *, folder: Path, result: Path, device: str, installed: bool) -> int:
    """Run one proof in this process; the result file records any error."""
    prepared = Prepared.read(folder)
    if not installed:
        make_importable(folder)
    prepared = replace(prepared, versions={}) if installed else prepared
    report: Report | None = None
    try:
        report = Report(result, proof=name, device=device, prepared=prepared)
        proof: Prove = import_module(f"benchmarks.studies.gpu_proof.{name}").prove
        proof(folder / "inputs", report)
    except Exception as error:
        traceback.print_exc()
        if report is None:
            write_json(result, not_run(name, device, prepared, [f"{type(error).__name__}: {error}"]))
        else:
            report.stop(f"{type(error).__name__}: {error}")
        return 1
    report.finish()
    return 0
