"""Time that a network takes for a batch, alone in this process."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from slipway.contract.base_bundle import Owner
from slipway.contract.evidence.build import BatchLatency
from slipway.evaluation.predict import ServedNetwork

WARM_UP, RUNS = 5, 40


def time_batches(network: ServedNetwork, bundle: Owner[Any], *, batch_sizes: Iterable[int]) -> dict[int, BatchLatency]:
    """Milliseconds of one call for each batch size, on random pixels.

    They only accompany the accuracy; `choose` compares precisions, interleaved and end to end.
    """
    rng = np.random.default_rng(0)
    shape = (bundle.preprocess.input_height, bundle.preprocess.input_width, 3)
    result = {}
    for size in sorted(batch_sizes):
        pixels_nhwc_u8 = rng.integers(0, 256, (size, *shape), np.uint8)
        times_ms = []
        for _ in range(WARM_UP + RUNS):
            started = time.perf_counter()
            network(pixels_nhwc_u8)
            times_ms.append(1000 * (time.perf_counter() - started))
        p50_ms, p90_ms = np.percentile(times_ms[WARM_UP:], [50, 90])
        result[size] = BatchLatency(p50_ms=float(p50_ms), p90_ms=float(p90_ms))
    return result
