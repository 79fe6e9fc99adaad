"""Makes foreign images, which belong to no class, from the pixels at hand, to compare scores for `unknown` on.

Source: Hendrycks et al., "Deep Anomaly Detection with Outlier Exposure", 2019, where such images (noise, jigsaw) stand
in for outliers that are not available yet.
"""

from collections.abc import Callable

import numpy as np

from slipway.evaluation.predict import Float, Network

TILES = 4  # along each side


def shuffled(pixels_nchw: Float, rng: np.random.Generator) -> Float:
    """Cut each image into 4 x 4 tiles and shuffle them: colours and strokes stay, shapes do not.

    Rows and columns that do not fill a tile stay where they are.
    """
    out_nchw = pixels_nchw.copy()
    height, width = (side // TILES for side in pixels_nchw.shape[2:])
    corners = [(row * height, column * width) for row in range(TILES) for column in range(TILES)]
    for image_chw, out_chw in zip(pixels_nchw, out_nchw, strict=True):
        for (top, left), place in zip(corners, rng.permutation(len(corners)), strict=True):
            row, column = corners[place]
            out_chw[:, row : row + height, column : column + width] = image_chw[
                :, top : top + height, left : left + width
            ]
    return out_nchw


def noise(pixels_nchw: Float, rng: np.random.Generator) -> Float:
    """Draw independent uniform pixels between the least and the greatest value of each channel in these images."""
    low_1c11, high_1c11 = pixels_nchw.min(axis=(0, 2, 3), keepdims=True), pixels_nchw.max(axis=(0, 2, 3), keepdims=True)
    return rng.uniform(low_1c11, high_1c11, pixels_nchw.shape).astype(np.float32)


KINDS: dict[str, Callable[[Float, np.random.Generator], Float]] = {"shuffled": shuffled, "noise": noise}


def foreign_network(network: Network, kind: str, *, seed: int = 0) -> Network:
    """Return `network` wrapped so that it sees a stand-in of `kind` instead of every image."""
    rng = np.random.default_rng(seed)
    return lambda pixels_nchw: network(KINDS[kind](pixels_nchw, rng))
