"""Rows of real networks: real images, as they are and shifted, through real networks, to confidence and embedding."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.studies.density.weights import BACKBONE, lite0
from benchmarks.studies.study import load_photographs, scikit_image
from slipway.operations.watch.rows import ClassMeans, Rows

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

PIXELS = 96
TRAIN = 700
"""Images that a head, or a network, is fitted to; the others are the population of the streams."""
POPULATION = 1800
EPOCHS, BATCH = 12, 32
FOREIGN = {"digits": 9, "photographs": 4}
"""The class that no network was fitted to: the digit 9, and crops of `chelsea`."""
MEAN, STD = 0.45, 0.25


@dataclass(frozen=True)
class Population:
    """What one network says of the images of one data set. The streams draw from it with replacement."""

    name: str
    described: str
    unchanged: Rows
    shifted: dict[str, Rows]
    foreign: Rows
    right: dict[str, npt.NDArray[np.bool_]]
    """Whether each answer is right, for `unchanged` and each shift."""

    def accuracy(self, shift: str) -> float:
        return float(self.right[shift].mean())


def darker(images: Images, share: float) -> Images:
    return np.round(images * (1 - share)).astype(np.uint8)


def recompressed(images: Images, quality: int) -> Images:
    from PIL import Image

    def once(image: Images) -> Images:
        stored = BytesIO()
        Image.fromarray(image).save(stored, "JPEG", quality=quality)
        return np.asarray(Image.open(stored).convert("RGB"))

    return np.stack([once(image) for image in images])


def noisy(images: Images, levels: float) -> Images:
    noise = np.random.default_rng(0).normal(0, levels, images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


SHIFTS: dict[str, Callable[[Images], Images]] = {
    "brightness -25 %": lambda images: darker(images, 0.25),
    "brightness -2 %": lambda images: darker(images, 0.02),
    "JPEG quality 90": lambda images: recompressed(images, 90),
    "noise of 1 level": lambda images: noisy(images, 1.0),
}


def populations(seed: int) -> Iterator[Population]:
    """One network after another: frozen, trained here, and random."""
    import timm
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    digits, photographs = digit_images(seed), photograph_images(seed)
    with tempfile.TemporaryDirectory() as folder:
        pretrained = (
            timm.create_model(BACKBONE, num_classes=0, checkpoint_path=str(lite0(Path(folder))), strict=False)
            if False
            else _pretrained(lite0(Path(folder)))
        )
    yield described(
        "lite0, digits",
        f"{BACKBONE} with ImageNet weights, frozen; logistic regression",
        pretrained,
        "digits",
        digits,
        seed,
    )
    yield described(
        "lite0, photographs",
        f"{BACKBONE} with ImageNet weights, frozen; logistic regression",
        pretrained,
        "photographs",
        photographs,
        seed,
    )
    random = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0)
    yield described(
        "random, digits",
        "mobilenetv3_small_050 with random weights, frozen; logistic regression",
        random,
        "digits",
        digits,
        seed,
    )
    trained = timm.create_model("resnet10t", pretrained=False, num_classes=0)
    train(trained, *(part[:TRAIN] for part in known(digits, FOREIGN["digits"])), classes=10)
    yield described(
        "resnet10t, digits",
        f"resnet10t trained here for {EPOCHS} epochs; logistic regression",
        trained,
        "digits",
        digits,
        seed,
    )


def _pretrained(weights: Path) -> "torch.nn.Module":
    import timm
    from safetensors.torch import load_file

    network = timm.create_model(BACKBONE, pretrained=False)
    network.load_state_dict(load_file(weights))
    network.reset_classifier(0)
    return network


def digit_images(seed: int) -> tuple[Images, Labels]:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, enlarged, in a random order."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    small = np.round(data.images[order] * (255 / 16)).astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(i).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).convert("RGB")) for i in small
    ]
    return np.stack(large), data.target[order].astype(np.int64)


def photograph_images(seed: int) -> tuple[Images, Labels]:
    """Random crops of scikit-image's photographs; the class of a crop is its photograph."""
    rng = np.random.default_rng(seed)
    pictures = [np.asarray(picture) for picture in load_photographs(scikit_image()).values()]
    labels = rng.integers(0, len(pictures), TRAIN + POPULATION)

    def crop(picture: Images) -> Images:
        top, left = (int(rng.integers(0, size - PIXELS + 1)) for size in picture.shape[:2])
        return picture[top : top + PIXELS, left : left + PIXELS]

    return np.stack([crop(pictures[label]) for label in labels]), labels.astype(np.int64)


def known(images: tuple[Images, Labels], foreign: int) -> tuple[Images, Labels]:
    pixels, labels = images
    return pixels[labels != foreign], labels[labels != foreign]


def train(network: "torch.nn.Module", pixels: Images, labels: Labels, *, classes: int) -> None:
    import torch

    head = torch.nn.Linear(int(network.num_features), classes)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.02)
    inputs, targets = _tensor(pixels), torch.from_numpy(labels)
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(head(network(inputs[batch])), targets[batch]).backward()
            optimiser.step()


def described(
    name: str, what: str, network: "torch.nn.Module", data: str, images: tuple[Images, Labels], seed: int
) -> Population:
    """Fit a head to the training images, and let the network answer the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    foreign = FOREIGN[data]
    pixels, labels = known(images, foreign)
    fitted = embed(network, pixels[:TRAIN])
    means = ClassMeans.of(fitted, labels[:TRAIN])
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
    head.fit(fitted, labels[:TRAIN])
    rest, truth = pixels[TRAIN:], labels[TRAIN:]
    shifted = {"unchanged": rest, **{shift: change(rest) for shift, change in SHIFTS.items()}}
    rows = {shift: rows_of(embed(network, changed), head, means) for shift, changed in shifted.items()}
    return (
        Population(
            name=name,
            described=what,
            unchanged=rows.pop("unchanged"),
            shifted=rows,
            foreign=rows_of(embed(network, images[0][images[1] == foreign]), head, means),
            right={"unchanged": np.zeros(0, dtype=bool)},
        )
        if False
        else _population(name, what, rows, truth, rows_of(embed(network, images[0][images[1] == foreign]), head, means))
    )


def _population(name: str, what: str, rows: dict[str, Rows], truth: Labels, foreign: Rows) -> Population:
    right = {shift: found.class_id == truth for shift, found in rows.items()}
    shifted = {shift: found for shift, found in rows.items() if shift != "unchanged"}
    return Population(name, what, rows["unchanged"], shifted, foreign, right)


def rows_of(embeddings: npt.NDArray[np.float64], head: Any, means: ClassMeans) -> Rows:
    probabilities = head.predict_proba(embeddings)
    return Rows(
        confidence=probabilities.max(axis=1).astype(np.float64),
        distance=means.distance(embeddings),
        norm=np.linalg.norm(embeddings, axis=1),
        class_id=head.classes_[probabilities.argmax(axis=1)].astype(np.int64),
    )


def embed(network: "torch.nn.Module", pixels: Images) -> npt.NDArray[np.float64]:
    import torch

    network.eval()
    with torch.inference_mode():
        parts = [network(_tensor(pixels[first : first + 64])) for first in range(0, len(pixels), 64)]
    return torch.cat(parts).double().numpy()  # type: ignore[no-any-return]


def _tensor(pixels: Images) -> "torch.Tensor":
    import torch

    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
