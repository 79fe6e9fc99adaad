"""The calls to the CUDA driver that run a plan, against a stand-in for it that copies for real."""

import ctypes
from typing import Any

import numpy as np
import pytest

from slipway.contract import CompileError
from slipway.engines import device as module
from slipway.engines.device import Device

OUT_OF_MEMORY = 2


class Driver:
    """Plays libcuda.so.1: its memory is this process's, and a context has to be current."""

    def __init__(self) -> None:
        self.current, self.waited, self.blocks = False, 0, []

    def cuInit(self, flags: int) -> int:
        return flags

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = ordinal
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, _: ctypes.c_int) -> int:
        context._obj.value = 0xC
        return 0

    def cuCtxSetCurrent(self, context: ctypes.c_void_p) -> int:
        self.current = context.value == 0xC
        return 0

    def cuStreamCreate(self, stream: Any, flags: int) -> int:
        assert self.current
        assert flags == 1  # else it would wait for CUDA's default stream
        stream._obj.value = 0x5
        return 0

    def cuMemAlloc_v2(self, address: Any, size: ctypes.c_size_t) -> int:
        if size.value > 2**20:
            return OUT_OF_MEMORY
        self.blocks.append(ctypes.create_string_buffer(size.value))
        address._obj.value = ctypes.addressof(self.blocks[-1])
        return 0

    def cuMemcpyHtoDAsync_v2(self, to: Any, source: Any, size: ctypes.c_size_t, stream: ctypes.c_void_p) -> int:
        assert stream.value == 0x5
        ctypes.memmove(to.value, source, size.value)
        return 0

    def cuMemcpyDtoHAsync_v2(self, to: Any, source: Any, size: ctypes.c_size_t, stream: ctypes.c_void_p) -> int:
        assert stream.value == 0x5
        ctypes.memmove(to, source.value, size.value)
        return 0

    def cuStreamSynchronize(self, stream: ctypes.c_void_p) -> int:
        self.waited += stream.value == 0x5
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:
        assert code == OUT_OF_MEMORY
        text._obj.value = b"out of memory"
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(module.ctypes, "CDLL", lambda _: driver)
    return driver


def test_what_is_uploaded_comes_back(driver: Driver) -> None:
    device = Device()
    sent = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    address = device.allocate(sent.nbytes)
    device.upload(sent, address)
    back = np.empty_like(sent)
    device.download(address, back)
    device.synchronize()
    np.testing.assert_array_equal(back, sent)
    assert device.stream == 0x5
    assert driver.waited == 1


def test_an_error_of_cuda_is_named_with_its_reason(driver: Driver) -> None:
    device = Device()
    with pytest.raises(CompileError, match=r"CUDA's cuMemAlloc_v2 failed: out of memory \(error 2\)"):
        device.allocate(2**21)
    assert driver.current


def test_without_a_driver_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    with pytest.raises(CompileError, match=r"no CUDA driver: libcuda\.so\.1.*; run this where"):
        Device()
