"""Memory and a stream of a GPU, by the CUDA driver alone: every machine with a GPU has it, in the version that fits."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.contract import CompileError

_NON_BLOCKING = 1
Array = npt.NDArray[np.generic]


class Device:
    """The first GPU that CUDA shows to this process, with a stream of its own, in the context that TensorRT uses.

    On CUDA's default stream TensorRT waits more than it has to.

    Raises:
        CompileError: the driver is missing or refuses; the message has CUDA's reason. All methods raise it.
    """

    def __init__(self) -> None:
        try:
            self._cuda: Any = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CompileError(f"no CUDA driver: {error}; run this where an NVIDIA GPU has its driver") from None
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        self._stream = stream

    @property
    def stream(self) -> int:
        """The handle, as TensorRT takes it."""
        assert self._stream.value is not None
        return self._stream.value

    def allocate(self, size: int) -> int:
        """The address of `size` bytes, which are there until the process ends."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def upload(self, array: Array, address: int) -> None:
        """Start copying a contiguous array to `address`."""
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), _pointer(array), size, self._stream)

    def download(self, address: int, array: Array) -> None:
        """Start filling a contiguous array from `address`; `synchronize` ends that."""
        size = ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", _pointer(array), ctypes.c_uint64(address), size, self._stream)

    def synchronize(self) -> None:
        """Wait for everything on the stream."""
        self._call("cuStreamSynchronize", self._stream)

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._cuda, function)(*arguments)
        if code != 0:
            said = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(said))
            raise CompileError(f"CUDA's {function} failed: {(said.value or b'unknown').decode()} (error {code})")


def _pointer(array: Array) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
