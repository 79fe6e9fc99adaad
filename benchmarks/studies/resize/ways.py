"""Ways to resize: each takes `UINT8 [h, w, 3]` and returns the input of a network, cut out of the middle."""

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from slipway.contract import Preprocess

Pixels = npt.NDArray[np.uint8]
Resize = Callable[[Pixels, tuple[int, int]], Pixels]
"""Pixels and the size to which they are resized, height and width."""
Reduce = Callable[[Pixels, int], Pixels]
"""A function that averages blocks of so many whole pixels a side."""
SERVED, DALI = "fast_image_resize", "DALI"


def ways(preprocess: Preprocess) -> tuple[dict[str, Resize], dict[str, str]]:
    """Return the ways by name, all with one thread and a triangular filter or an average; and why others are left
    out."""
    cut_hw = (preprocess.input_height, preprocess.input_width)
    dali = _dali(preprocess)
    whole: dict[str, Resize] = {
        "Pillow, bilinear": _pillow,
        "torch, bilinear with antialias": _torch(),
    }
    left_out: dict[str, str] = {}
    reduce: dict[str, Reduce] = {"Pillow": _reduced_by_pillow}
    for name, make in {"OpenCV, INTER_AREA": _opencv, "libvips, linear": _libvips}.items():
        try:
            whole[name] = make()
        except ImportError as error:
            left_out[name] = str(error)
    if "OpenCV, INTER_AREA" in whole:
        reduce["OpenCV"] = _reduced_by(whole["OpenCV, INTER_AREA"])
    cut = {name: _cut(resize, cut_hw) for name, resize in whole.items()}
    in_two = {f"{name}, average of whole pixels, then DALI": _two_steps(by, dali) for name, by in reduce.items()}
    before = _dali(preprocess, _resized_whole)
    served = _served(preprocess)
    return {SERVED: served, DALI: dali, "DALI, all of the image": before, **cut, **in_two}, left_out


def _served(preprocess: Preprocess) -> Resize:
    """Resize as the preprocess step does on a CPU, from decoded pixels on."""
    from slipway.steps.cpu_resize import CpuResize

    return _of_step(preprocess, CpuResize(preprocess.model_dump(), threads=1))


def _dali(preprocess: Preprocess, graph: Any = None) -> Resize:
    """Resize with DALI on a CPU; `graph` replaces the graph that a GPU runs."""
    from slipway.steps import dali_graph, dali_resize

    with patch.object(dali_resize, "resize", graph or dali_graph.resize):
        step = dali_resize.DaliResize(preprocess.model_dump(), max_batch_size=2, threads=1, device_id=None)
    return _of_step(preprocess, step)


def _of_step(preprocess: Preprocess, step: Any) -> Resize:
    from slipway.steps.preprocess import Preprocessor
    from slipway.steps.scaled_jpeg import Decoded

    preprocessor = Preprocessor(preprocess.model_dump(), max_batch_size=2, threads=1)
    preprocessor._resize = step

    def resize(pixels: Pixels, _: tuple[int, int]) -> Pixels:
        preprocessor._decode_good = lambda *_: [Decoded.whole(pixels)]  # type: ignore[method-assign]
        fitted = preprocessor._fit([b""], np.zeros(1, np.int32), np.array([pixels.size // 3], np.int64))
        found: Pixels = preprocessor._on_cpu(1, fitted)[0]
        return found

    return resize


def _resized_whole(images: Any, config: dict[str, Any], new_hw: Any, **at: Any) -> Any:
    """Resize with the graph before ADR 0082, which resized pixels that it then cut off."""
    from nvidia.dali import fn, types

    resized = fn.resize(images, size=new_hw, interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.crop(resized, crop=(config["input_height"], config["input_width"]), rounding="round", **at)


def _cut(resize: Resize, cut_hw: tuple[int, int]) -> Resize:
    def cut(pixels: Pixels, new_hw: tuple[int, int]) -> Pixels:
        top, left = (round((new - cut) / 2) for new, cut in zip(new_hw, cut_hw, strict=True))
        return np.ascontiguousarray(resize(pixels, new_hw)[top : top + cut_hw[0], left : left + cut_hw[1]])

    return cut


def _two_steps(reduce: Reduce, resize: Resize) -> Resize:
    """Average blocks of whole pixels, as large as leave at least the new size; DALI does the rest."""

    def in_two(pixels: Pixels, new_hw: tuple[int, int]) -> Pixels:
        times = min(side // new for side, new in zip(pixels.shape[:2], new_hw, strict=True))
        return resize(reduce(pixels, times) if times > 1 else pixels, new_hw)

    return in_two


def _pillow(pixels: Pixels, new_hw: tuple[int, int]) -> Pixels:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize(new_hw[::-1], Image.Resampling.BILINEAR))


def _reduced_by_pillow(pixels: Pixels, times: int) -> Pixels:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(times))


def _torch() -> Resize:
    import torch
    from torch.nn.functional import interpolate

    torch.set_num_threads(1)

    def resize(pixels: Pixels, new_hw: tuple[int, int]) -> Pixels:
        nchw = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # in memory as before: channels last
        resized = interpolate(nchw, size=new_hw, mode="bilinear", antialias=True)
        found: Pixels = resized[0].permute(1, 2, 0).numpy()
        return found

    return resize


def _opencv() -> Resize:
    import cv2

    cv2.setNumThreads(1)
    return lambda pixels, new_hw: np.asarray(cv2.resize(pixels, new_hw[::-1], interpolation=cv2.INTER_AREA))


def _reduced_by(area: Resize) -> Reduce:
    def reduced(pixels: Pixels, times: int) -> Pixels:
        height, width = (side // times for side in pixels.shape[:2])
        return area(pixels[: height * times, : width * times], (height, width))

    return reduced


def _libvips() -> Resize:
    os.environ["VIPS_CONCURRENCY"] = "1"  # read once, at the import
    import pyvips

    def resize(pixels: Pixels, new_hw: tuple[int, int]) -> Pixels:
        image = pyvips.Image.new_from_array(pixels)
        across, down = (image.width / new_hw[1], image.height / new_hw[0])
        resized = image.reduce(across, down, kernel="linear")
        return np.asarray(resized.numpy())[: new_hw[0], : new_hw[1]]

    return resize
