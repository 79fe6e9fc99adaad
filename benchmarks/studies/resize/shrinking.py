"""Sends photographs of 12 million pixels whole, and shrunk by the client."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.density.weights import BACKBONE
from benchmarks.studies.resize.photographs import jpeg, pictures
from benchmarks.studies.resize.result import Apart, Shrunk
from benchmarks.studies.resize.timing import ratio, spent_ms
from benchmarks.studies.resize.ways import Pixels
from slipway.client.shrink import shrunk
from slipway.contract import Preprocess
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor

SIZE_WH = (4000, 3000)


def shrinking(weights: Path, *, rounds: int, least_px: int, seed: int) -> dict[str, Shrunk]:
    """Measure whole and shrunk photographs of each encoding, and how an ImageNet network's answers to them differ."""
    import timm
    import torch

    torch.set_num_threads(1)
    network = timm.create_model(BACKBONE, checkpoint_path=str(weights)).eval()
    found = timm.data.resolve_model_data_config(network)
    preprocess = Preprocess(
        input_height=224, input_width=224, crop_fraction=0.875, mean=found["mean"], std=found["std"]
    ).model_dump()
    preprocessor, full = (
        Preprocessor(preprocess | {"jpeg_scaling": scaling}, max_batch_size=1, threads=1) for scaling in (True, False)
    )
    steps = (preprocessor, full)

    def probability(pixels: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(normalize(pixels, preprocess))).softmax(-1)[0].numpy()

    result = {}
    for name in ("baseline", "progressive"):
        whole = [jpeg(picture, progressive=name == "progressive") for picture in pictures(SIZE_WH, seed=seed)]
        result[name] = _measured(whole, steps, probability, rounds=rounds, least_px=least_px)
    return result


def _measured(
    whole: Sequence[bytes], steps: tuple[Preprocessor, Preprocessor], probability: Any, *, rounds: int, least_px: int
) -> Shrunk:
    preprocessor, full = steps
    small = [shrunk(image, least_px=least_px) for image in whole]
    client_ms, spent = [], np.zeros((2, rounds))
    for number in range(rounds):
        for image, smaller in zip(whole, small, strict=True):
            client_ms.append(spent_ms(partial(shrunk, image, least_px=least_px), calls=1))
            for side, sent in enumerate((image, smaller)):
                spent[side, number] += spent_ms(partial(preprocessor.run, [sent]), calls=1) / len(whole)
    middle, low, high = ratio(spent[1], spent[0])
    sides = {"whole": (preprocessor, whole), "shrunk": (preprocessor, small)}
    pixels = {name: _pixels(step, images) for name, (step, images) in sides.items()}
    in_full = _pixels(full, whole)
    return Shrunk(
        photographs=len(whole),
        sent_bytes={"whole": float(np.mean([*map(len, whole)])), "shrunk": float(np.mean([*map(len, small)]))},
        client_ms=float(np.mean(client_ms)),
        preprocess_ms={"whole": float(spent[0].mean()), "shrunk": float(spent[1].mean())},
        preprocess_ratio=middle,
        preprocess_ratio_low=low,
        preprocess_ratio_high=high,
        apart={name: _apart(in_full, given, probability) for name, given in pixels.items()},
    )


def _pixels(preprocessor: Preprocessor, images: Sequence[bytes]) -> Pixels:
    return np.concatenate([preprocessor.run([image])[0] for image in images])


def _apart(in_full: Pixels, given: Pixels, probability: Any) -> Apart:
    before, after = (np.stack([probability(one[None]) for one in pixels]) for pixels in (in_full, given))
    best, rows = before.argmax(axis=1), np.arange(len(before))
    flipped = best != after.argmax(axis=1)
    second, first = np.sort(before, axis=1)[:, -2:].T
    apart = np.abs(before[rows, best] - after[rows, best])
    return Apart(
        mean_grey_levels=float(np.abs(in_full.astype(int) - given).mean()),
        flips=int(flipped.sum()),
        flips_margin=float((first - second)[flipped].max(initial=0.0)),
        probability_mean=float(apart.mean()),
        probability_most=float(apart.max()),
    )
