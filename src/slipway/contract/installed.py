"""`Installed`: the versions of NVIDIA's libraries that a process finds here, to compare with those that are needed."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Self

from slipway.contract.nvidia_releases import release_of

LIBRARIES = tuple(f"libnvinfer.so.{major}" for major in (12, 11, 10))
NAMES = {"tensorrt": "TensorRT", "dali": "DALI", "nvimgcodec": "nvImageCodec"}
"""Field to the name of the library. A release is compared by these: two may have the same ones."""


@dataclass(frozen=True)
class Installed:
    """The versions that are found here; None for a library that is not."""

    release: str | None
    """Release of NVIDIA's image; None outside of one."""
    tensorrt: str | None
    dali: str | None
    nvimgcodec: str | None

    @classmethod
    def here(cls) -> Self:
        return cls(
            release=release_of(os.environ),
            tensorrt=tensorrt_version(),
            dali=_distribution("nvidia-dali-cuda"),
            nvimgcodec=_distribution("nvidia-nvimgcodec-cu"),
        )


def differences(needed: Mapping[str, str | None], installed: Installed) -> Iterator[str]:
    """Yield each needed part that is missing or installed in another version. Parts of unknown version are not
    compared."""
    place = "here" if installed.release is None else f"in release {installed.release}"
    for field, name in NAMES.items():
        wanted, found = needed.get(field), getattr(installed, field)
        if wanted is not None and not same_version(field, wanted, found):
            yield f"{name} {wanted} is needed, and {found or 'none'} is installed {place}"


def same_version(field: str, wanted: str, found: str | None) -> bool:
    """Whether the shorter of two versions begins the longer. TensorRT's fourth number is that of a build."""
    if found is None:
        return False
    parts = [version.split(".")[: 3 if field == "tensorrt" else None] for version in (wanted, found)]
    shorter, longer = sorted(parts, key=len)
    return longer[: len(shorter)] == shorter


def tensorrt_version() -> str | None:
    """Version of the TensorRT library that the loader finds, such as `10.13.3`; None if there is none."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        number = int(library.getInferLibVersion())
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None


def _distribution(prefix: str) -> str | None:
    """Version of the first distribution on the path whose name is `prefix` and a number of CUDA."""
    for suffix in ("130", "120", "13", "12"):
        try:
            return metadata.version(f"{prefix}{suffix}")
        except metadata.PackageNotFoundError:
            continue
    return None
