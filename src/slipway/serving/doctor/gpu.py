"""The GPUs of this machine and the TensorRT that a server on it would load, without any Python package."""

import ctypes
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

QUERY = ("name", "compute_cap", "driver_version")
LIBRARIES = tuple(f"libnvinfer.so.{major}" for major in (12, 11, 10))


@dataclass(frozen=True)
class Gpu:
    name: str
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.compute_capability}, driver {self.driver}"


def find_gpus() -> tuple[tuple[Gpu, ...], str]:
    """What `nvidia-smi` lists, or no GPU and the reason."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return (), "no nvidia-smi on PATH, so no NVIDIA driver"
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi: {error}"
    gpus = tuple(_parse(done.stdout))
    if done.returncode != 0 or not gpus:
        return (), f"nvidia-smi: {(done.stdout + done.stderr).strip().partition(chr(10))[0] or 'lists no GPU'}"
    return gpus, ""


def _parse(text: str) -> Iterator[Gpu]:
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(QUERY):
            yield Gpu(*fields)


def tensorrt_version() -> str | None:
    """Of the TensorRT library that the loader finds, such as `10.13.3`; None where there is none."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        number = int(library.getInferLibVersion())
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None
