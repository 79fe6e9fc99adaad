"""A head: embeddings to logits, by a linear layer or a small network. numpy alone."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]


class Head:
    """Linear layers with ReLU between them.

    Args:
        weights: of each layer, FP32 `[from, to]`.
        biases: of each layer, FP32 `[to]`.

    Raises:
        ValueError: the layers do not fit together, are not FP32, or hold numbers that are not finite.
    """

    def __init__(self, weights: list[Float], biases: list[Float]) -> None:
        sizes = [weight.shape for weight in weights]
        if not weights or any(len(size) != 2 for size in sizes) or len(weights) != len(biases):
            raise ValueError("a head has at least one layer, of a weight [from, to] and a bias [to]")
        if any(bias.shape != size[1:] for bias, size in zip(biases, sizes, strict=True)):
            raise ValueError(f"biases of {[bias.shape for bias in biases]} do not fit weights of {sizes}")
        if any(before[1] != after[0] for before, after in pairwise(sizes)):
            raise ValueError(f"layers of {sizes} do not fit together")
        if any(array.dtype != np.float32 for array in (*weights, *biases)):
            raise ValueError("weights and biases are FP32")
        if not all(np.isfinite(array).all() for array in (*weights, *biases)):
            raise ValueError("weights or biases hold NaN or infinity")
        self.weights, self.biases = weights, biases

    @property
    def embedding_size(self) -> int:
        return int(self.weights[0].shape[0])

    @property
    def classes(self) -> int:
        return int(self.biases[-1].shape[0])

    @classmethod
    def read(cls, path: Path) -> "Head":
        """From a file of `save`.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged, or as in `__init__`.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:  # leaves no damaged file open
                layers = len(arrays.files) // 2
                weights = [arrays[f"weight_{number}"] for number in range(layers)]
                biases = [arrays[f"bias_{number}"] for number in range(layers)]
        except OSError:
            raise
        except Exception as error:  # zipfile, zlib and numpy raise many kinds
            raise ValueError(f"{path.name} is damaged: {error}") from None
        return cls(weights, biases)

    def save(self, path: Path) -> None:
        """Equal heads give equal bytes."""
        named: dict[str, Float] = {}
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            named |= {f"weight_{number}": weight, f"bias_{number}": bias}
        with path.open("wb") as file:
            np.savez(file, **named)

    def run(self, embedding_nd: Float) -> Float:
        """Return `logits_nc` `[n, classes]` of `embedding_nd` `[n, d]`."""
        hidden_nh = embedding_nd
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden_nh = (np.maximum(hidden_nh, 0) if number else hidden_nh) @ weight + bias
        return hidden_nh
