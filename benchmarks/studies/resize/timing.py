"""Measures the processor time of several ways in interleaved rounds, and the difference of their pixels to DALI's."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.studies.resize.photographs import jpeg, pictures
from benchmarks.studies.resize.result import Case, Way
from benchmarks.studies.resize.ways import DALI, Pixels, Resize
from slipway.contract import Preprocess
from slipway.steps.engine_openvino import Engine
from slipway.steps.preprocess import Preprocessor

CALLS = 3
Times = npt.NDArray[np.float64]


def spent_ms(call: Callable[[], object], *, calls: int = CALLS) -> float:
    """Return the processor time of a call in ms, over all threads of this process: the mean of some calls."""
    started_ns = time.process_time_ns()
    for _ in range(calls):
        call()
    return (time.process_time_ns() - started_ns) / 1e6 / calls


def interleaved(calls: Mapping[str, Sequence[Callable[[], object]]], *, rounds: int) -> dict[str, Times]:
    """Time each way in milliseconds, `[rounds]`: in a round each way takes every image once, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for warm in calls.values():
        warm[0]()
    for _ in range(rounds):
        spent = dict.fromkeys(calls, 0.0)
        for turn in zip(*calls.values(), strict=True):
            for name, call in zip(calls, turn, strict=True):
                spent[name] += spent_ms(call)
        for name, of_calls in calls.items():
            times[name].append(spent[name] / len(of_calls))
    return {name: np.array(values) for name, values in times.items()}


def ratio(times: Times, to: Times) -> tuple[float, float, float]:
    """Return the median, 10th and 90th percentile over the rounds."""
    middle, low, high = np.percentile(times / to, [50, 10, 90]).tolist()
    return middle, low, high


def case(
    ways: Mapping[str, Resize],
    preprocess: Preprocess,
    size_wh: tuple[int, int],
    *,
    engine: Engine | None,
    rounds: int,
    seed: int,
) -> Case:
    """Measure every way on photographs of one size. With an engine, JPEGs are timed as a whole in the same rounds."""
    shown = list(pictures(size_wh, seed=seed))
    images = [np.array(picture) for picture in shown]
    preprocessor = Preprocessor(preprocess.model_dump(), max_batch_size=1, threads=1)
    (height,), (width,) = preprocessor._geometry([(size_wh[1], size_wh[0])])[0]
    new_hw = (int(height), int(width))
    calls = {name: [partial(resize, image, new_hw) for image in images] for name, resize in ways.items()}
    if engine is not None:
        calls["whole"] = [partial(_classify, preprocessor, engine, jpeg(picture)) for picture in shown]
    times = interleaved(calls, rounds=rounds)
    whole = times.pop("whole", None)
    pixels = {name: np.stack([call() for call in calls[name]]) for name in ways}
    gain = None
    if whole is not None:
        gain = {name: float(np.median((times[DALI] - times[name]) / whole)) for name in ways if name != DALI}
    return Case(
        size_hw=(size_wh[1], size_wh[0]),
        resized_hw=new_hw,
        ways={name: _way(times[name], times[DALI], pixels[name], pixels[DALI]) for name in ways},
        whole_ms=None if whole is None else float(np.median(whole)),
        gain=gain,
    )


def _classify(preprocessor: Preprocessor, engine: Engine, image: bytes) -> Pixels:
    pixels = preprocessor.run([image])[0]
    engine.run(pixels)
    return pixels


def _way(times: Times, times_of_dali: Times, pixels_nhwc_u8: Pixels, of_dali_nhwc_u8: Pixels) -> Way:
    apart = np.abs(pixels_nhwc_u8.astype(int) - of_dali_nhwc_u8)
    middle, low, high = ratio(times, times_of_dali)
    return Way(
        ms=float(np.median(times)),
        to_dali=middle,
        to_dali_low=low,
        to_dali_high=high,
        mean_grey_levels=float(apart.mean()),
        worst_mean_grey_levels=float(apart.mean(axis=(1, 2, 3)).max()),
        most_grey_levels=int(apart.max()),
    )
