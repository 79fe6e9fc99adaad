"""`Card`: a GPU of this machine, as CUDA's driver shows it to this process."""

import ctypes
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from slipway.contract.typed_file import Contract

CUDA, NVML = "libcuda.so.1", "libnvidia-ml.so.1"
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute
_TEXT_BYTES = 96


class Card(Contract):
    """A GPU, and the driver that runs it. Speed is measured on one, and plans are tuned for one."""

    name: str
    """Name of the GPU, such as `NVIDIA L4`."""
    compute_capability: str = Field(pattern=r"^\d+[.]\d+$")
    multiprocessors: int = Field(ge=1)
    """Number of multiprocessors. A slice of a GPU (MIG) has its own number, but the name of the whole GPU."""
    memory_mib: int = Field(ge=1)
    driver: str
    """Version of the driver, such as `580.95.05`; empty if unknown."""
    cuda: str
    """The newest CUDA that the driver can run, such as `13.0`; a compatibility package may raise it."""

    def same_model(self, other: "Card") -> bool:
        """Whether a plan for this card is one for `other`: the name and the multiprocessors are equal, and no tenth of
        the memory is missing (error correction takes 6 %)."""
        same = (self.name, self.multiprocessors) == (other.name, other.multiprocessors)
        return same and other.memory_mib >= 0.9 * self.memory_mib

    def __str__(self) -> str:
        return (
            f"{self.name} (compute capability {self.compute_capability}, {self.multiprocessors} multiprocessors, "
            f"{self.memory_mib / 1024:.0f} GiB)"
        )


def cards() -> tuple[Card, ...]:
    """The GPUs that CUDA shows to this process, in CUDA's order; none without a driver or a GPU."""
    try:
        cuda = ctypes.CDLL(CUDA)
    except OSError:
        return ()
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    driver, newest = _driver(), _integer(cuda.cuDriverGetVersion)
    return tuple(
        Card(driver=driver, cuda=f"{newest // 1000}.{newest % 1000 // 10}", **fields)
        for fields in _devices(cuda, count.value)
    )


def _devices(cuda: Any, count: int) -> Iterator[dict[str, Any]]:
    for index in range(count):
        device, name, size = ctypes.c_int(), ctypes.create_string_buffer(_TEXT_BYTES), ctypes.c_size_t()
        failed = (
            cuda.cuDeviceGet(ctypes.byref(device), index)
            or cuda.cuDeviceGetName(name, _TEXT_BYTES, device)
            or cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        )
        if failed:
            continue
        major, minor, multiprocessors = (
            _integer(cuda.cuDeviceGetAttribute, attribute, device) for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS)
        )
        yield {
            "name": name.value.decode(errors="replace"),
            "compute_capability": f"{major}.{minor}",
            "multiprocessors": multiprocessors,
            "memory_mib": size.value >> 20,
        }


def _integer(function: Any, *arguments: Any) -> int:
    number = ctypes.c_int()
    function(ctypes.byref(number), *arguments)
    return number.value


def _driver() -> str:
    """The version of the kernel's driver; empty where NVIDIA's management library is not there."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return ""
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    if nvml.nvmlInit_v2():
        return ""
    failed = nvml.nvmlSystemGetDriverVersion(text, _TEXT_BYTES)
    nvml.nvmlShutdown()
    return "" if failed else text.value.decode()
