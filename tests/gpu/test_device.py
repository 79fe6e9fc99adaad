"""Memory of a real GPU by the CUDA driver alone."""

import numpy as np
import pytest

from slipway.engines.device import Device


@pytest.mark.usefixtures("needs_gpu")
def test_what_is_uploaded_comes_back() -> None:
    device = Device()
    sent = np.random.default_rng(0).normal(size=(8, 3, 224, 224)).astype(np.float32)
    address = device.allocate(sent.nbytes)
    device.upload(sent, address)
    back = np.empty_like(sent)
    device.download(address, back)
    device.synchronize()
    np.testing.assert_array_equal(back, sent)
    assert device.stream
