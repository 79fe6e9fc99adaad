"""The findings of one proof, written after each part, so that a crash costs only the part in which it happens."""

import platform
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypedDict, cast

from benchmarks.studies.gpu_proof.folder import Prepared, code_sha256, read_json, write_json

PASS, FAIL, NOT_RUN = "pass", "fail", "could not run"
LIBRARIES = (
    *(
        "numpy",
        "torch",
        "nvidia-nvimgcodec-cu13",
        "nvidia-nvjpeg",
        "nvidia-dali-cuda130",
        "nvidia-pytriton",
        "tritonclient",
    ),
)


class Machine(TypedDict, total=False):
    """JSON of `GpuMachine`: a bare machine has no pydantic."""

    system: str
    cores: int
    gpu: str
    compute_capability: str
    multiprocessors: int
    memory_gib: float
    cuda: str | None
    driver: str | None


class Result(TypedDict):
    """JSON of `GpuProofResult`, as a run writes it: a bare machine has no pydantic."""

    proof: str
    verdict: str
    reasons: list[str]
    device: str
    part: str
    seconds: float
    created: str
    commit: str | None
    versions: dict[str, str]
    machine: Machine
    seed: int
    measured: dict[str, object]


class Report:
    """The result file of one proof.

    Args:
        prepared: `prepared.json`, whose commit the result names.
        device: `cuda`, or `cpu` for a rehearsal.
    """

    def __init__(self, path: Path, *, proof: str, device: str, prepared: Prepared) -> None:
        self._path, self._started = path, time.monotonic()
        code = code_sha256()
        self.device = device
        self.folder = path.parent
        self.reasons: list[str] = []
        self._content: Result = {
            **not_run(proof, device, prepared, self.reasons),
            "commit": prepared.commit if code == prepared.code_sha256 else f"{prepared.commit}, changed since",
            "versions": {"python": platform.python_version(), **_versions(prepared.versions)},
            "machine": machine(device),
        }
        self.write()

    def part(self, name: str) -> None:
        """Record which part begins, so that the result names it if the process ends there."""
        print(f"── {self._content['proof']}: {name} ({time.monotonic() - self._started:.0f} s)", flush=True)
        self._content["part"] = name
        self.write()

    def measure(self, name: str, value: object) -> None:
        self._content["measured"][name] = value
        self.write()

    def require(self, condition: bool, otherwise: str) -> None:
        """Add a reason to fail if `condition` does not hold; the proof goes on."""
        if not condition:
            print(f"   FAIL: {otherwise}", flush=True)
            self.reasons.append(otherwise)

    def finish(self) -> None:
        self._content["verdict"] = FAIL if self.reasons else PASS
        self._content["part"] = "done"
        self.write()

    def stop(self, why: str) -> None:
        self.reasons.append(why)
        self.write()

    def write(self) -> None:
        self._content["seconds"] = round(time.monotonic() - self._started, 1)
        write_json(self._path, self._content)


def not_run(proof: str, device: str, prepared: Prepared, reasons: list[str]) -> Result:
    """Make the result of a proof that has not begun."""
    return {
        "proof": proof,
        "verdict": NOT_RUN,
        "reasons": reasons,
        "device": device,
        "part": "start",
        "seconds": 0.0,
        "created": now(),
        "commit": prepared.commit,
        "versions": {},
        "machine": machine("cpu"),
        "seed": prepared.seed,
        "measured": {},
    }


def read_result(path: Path) -> Result:
    return cast(Result, read_json(path))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions(carried: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of the packages installed here, and of the `carried` wheels, which pip does not know."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in carried:
                found[name] = carried[name]
    return found


def machine(device: str) -> Machine:
    import os

    facts: Machine = {"system": platform.platform(), "cores": len(os.sched_getaffinity(0))}
    if device == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "driver": driver(),
        }
    return facts


def driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout else None
