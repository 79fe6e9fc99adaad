"""Photographs of 12 million pixels, sent whole and shrunk by the client."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.density.weights import BACKBONE
from benchmarks.studies.resize.photographs import jpeg, pictures
from benchmarks.studies.resize.result import Shrunk
from benchmarks.studies.resize.timing import ratio, spent_ms
from slipway.client.shrink import shrunk
from slipway.contract import Preprocess
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor

SIZE_WH = (4000, 3000)


def shrinking(weights: Path, *, rounds: int, least_px: int, seed: int) -> dict[str, Shrunk]:
    """By encoding; an ImageNet network says what it makes of the pixels."""
    import timm
    import torch

    torch.set_num_threads(1)
    network = timm.create_model(BACKBONE, checkpoint_path=str(weights)).eval()
    found = timm.data.resolve_model_data_config(network)
    preprocess = Preprocess(
        input_height=224, input_width=224, crop_fraction=0.875, mean=found["mean"], std=found["std"]
    ).model_dump()
    preprocessor = Preprocessor(preprocess, max_batch_size=1, threads=1)

    def probability(pixels: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(normalize(pixels, preprocess))).softmax(-1)[0].numpy()

    result = {}
    for name in ("baseline", "progressive"):
        whole = [jpeg(picture, progressive=name == "progressive") for picture in pictures(SIZE_WH, seed=seed)]
        result[name] = _measured(whole, preprocessor, probability, rounds=rounds, least_px=least_px)
    return result


def _measured(
    whole: Sequence[bytes], preprocessor: Preprocessor, probability: Any, *, rounds: int, least_px: int
) -> Shrunk:
    small = [shrunk(image, least_px=least_px) for image in whole]
    client_ms, spent = [], np.zeros((2, rounds))
    for number in range(rounds):
        for image, smaller in zip(whole, small, strict=True):
            client_ms.append(spent_ms(partial(shrunk, image, least_px=least_px), calls=1))
            for side, sent in enumerate((image, smaller)):
                spent[side, number] += spent_ms(partial(preprocessor.run, [sent]), calls=1) / len(whole)
    pixels = [[preprocessor.run([image])[0].copy() for image in images] for images in (whole, small)]
    answers = [np.stack([probability(one) for one in side]) for side in pixels]
    best = answers[0].argmax(axis=1)
    rows = np.arange(len(best))
    apart = np.abs(answers[0][rows, best] - answers[1][rows, best])
    middle, low, high = ratio(spent[1], spent[0])
    return Shrunk(
        photographs=len(whole),
        sent_bytes={"whole": float(np.mean([*map(len, whole)])), "shrunk": float(np.mean([*map(len, small)]))},
        client_ms=float(np.mean(client_ms)),
        preprocess_ms={"whole": float(spent[0].mean()), "shrunk": float(spent[1].mean())},
        preprocess_ratio=middle,
        preprocess_ratio_low=low,
        preprocess_ratio_high=high,
        mean_grey_levels=float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(*pixels, strict=True)])),
        flips=int((best != answers[1].argmax(axis=1)).sum()),
        probability_mean=float(apart.mean()),
        probability_most=float(apart.max()),
    )
