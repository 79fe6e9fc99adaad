"""Makes rows of real networks: real images, unchanged and shifted, pass through them to confidence and embedding."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from benchmarks.studies.density.weights import BACKBONE, lite0
from benchmarks.studies.study import load_photographs, scikit_image
from benchmarks.studies.watch.oracle import ratios, seen
from slipway.operations.watch.rows import ClassDirections, Floats, Rows
from slipway.operations.watch.rows import rows_of as watched_rows

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

PIXELS = 96
TRAIN = 700
"""Images that a head, or a network, is fitted to; the others are the population of the streams."""
POPULATION = 1800
EPOCHS, BATCH = 10, 32
FOREIGN = {"digits": 9, "photographs": 4}
"""The class that no network was fitted to: the digit 9, and crops of `chelsea`."""
FOREIGN_NAME, FOREIGN_SHARE = "15 % of a foreign class", 0.15
BRIGHTNESS = "brightness -25 %"
MEAN, STD = 0.45, 0.25


@dataclass(frozen=True)
class Data:
    name: str
    pixels: Images
    labels: Labels

    def known(self) -> tuple[Images, Labels]:
        """Return the images of the classes that a network is fitted to."""
        of = self.labels != FOREIGN[self.name]
        return self.pixels[of], self.labels[of]


@dataclass(frozen=True)
class Population:
    """Answers of one network to the images of one data set. The streams draw from them with replacement."""

    name: str
    described: str
    rows: dict[str, Rows]
    """The rows of the known classes, `unchanged` and for each shift."""
    foreign: Rows
    right: dict[str, npt.NDArray[np.bool_]]
    """Whether each answer is right, by the keys of `rows`."""
    ratios: dict[str, tuple[Floats, Floats]]
    """Likelihood ratios of the oracle for rows before and after the changes that have a bar."""

    def accuracy(self, shift: str) -> float:
        return float(self.right[shift].mean())


def darker(images: Images, share: float) -> Images:
    scaled: Images = np.round(images * (1 - share)).astype(np.uint8)
    return scaled


def recompressed(images: Images, quality: int) -> Images:
    from PIL import Image

    def once(image: Images) -> Images:
        stored = BytesIO()
        Image.fromarray(image).save(stored, "JPEG", quality=quality)
        again: Images = np.asarray(Image.open(stored).convert("RGB"))
        return again

    return np.stack([once(image) for image in images])


def noisy(images: Images, levels: float) -> Images:
    noise = np.random.default_rng(0).normal(0, levels, images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


SHIFTS: dict[str, Callable[[Images], Images]] = {
    BRIGHTNESS: lambda images: darker(images, 0.25),
    "brightness -2 %": lambda images: darker(images, 0.02),
    "JPEG quality 90": lambda images: recompressed(images, 90),
    "noise of 1 level": lambda images: noisy(images, 1.0),
}


def populations(seed: int) -> Iterator[Population]:
    """Yield the populations of one network after another: frozen, random, and trained here."""
    import timm
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    digits = Data("digits", *digit_images(seed))
    photographs = Data("photographs", *photograph_images(seed))
    with tempfile.TemporaryDirectory() as folder:
        pretrained = _pretrained(lite0(Path(folder)))
    frozen = f"{BACKBONE} with ImageNet weights, frozen"
    yield described("lite0, digits", frozen, pretrained, digits)
    yield described("lite0, photographs", frozen, pretrained, photographs)
    random = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0)
    yield described("random, digits", "mobilenetv3_small_050 with random weights, frozen", random, digits)
    small = Data("digits", digits.pixels[:, ::2, ::2], digits.labels)
    pixels, labels = small.known()
    trained = timm.create_model("resnet10t", pretrained=False, num_classes=0)
    train(trained, pixels[:TRAIN], labels[:TRAIN])
    yield described("resnet10t, digits", f"resnet10t trained here for {EPOCHS} epochs", trained, small)


def _pretrained(weights: Path) -> "torch.nn.Module":
    import timm
    from safetensors.torch import load_file

    network: torch.nn.Module = timm.create_model(BACKBONE, pretrained=False)
    network.load_state_dict(load_file(weights))
    network.reset_classifier(0)  # type: ignore[operator]
    return network


def digit_images(seed: int) -> tuple[Images, Labels]:
    """Load scikit-learn's 1,797 digits of 8 x 8 pixels, enlarged, in a random order."""
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
    """Cut random crops of scikit-image's photographs; the class of a crop is its photograph."""
    rng = np.random.default_rng(seed)
    pictures = [np.asarray(picture) for picture in load_photographs(scikit_image()).values()]
    labels = rng.integers(0, len(pictures), TRAIN + POPULATION)

    def crop(picture: Images) -> Images:
        top, left = (int(rng.integers(0, size - PIXELS + 1)) for size in picture.shape[:2])
        return picture[top : top + PIXELS, left : left + PIXELS]

    return np.stack([crop(pictures[label]) for label in labels]), labels.astype(np.int64)


def train(network: "torch.nn.Module", pixels: Images, labels: Labels) -> None:
    import torch

    head = torch.nn.Linear(cast(int, network.num_features), 10)
    optimiser = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.02)
    inputs, targets, rng = _tensor(pixels), torch.from_numpy(labels), np.random.default_rng(0)
    network.train()
    for _ in range(EPOCHS):
        order = rng.permutation(len(labels))
        for batch in (order[first : first + BATCH] for first in range(0, len(order), BATCH)):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(head(network(inputs[batch])), targets[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def described(name: str, what: str, network: "torch.nn.Module", data: Data) -> Population:
    """Fit a logistic regression to the embeddings of the training images, and let both answer the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pixels, labels = data.known()
    fitted = embed(network, pixels[:TRAIN])
    means = ClassDirections.of(fitted, labels[:TRAIN], light_of(pixels[:TRAIN]))
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
    head.fit(fitted, labels[:TRAIN])
    rest, truth = pixels[TRAIN:], labels[TRAIN:]
    images = {"unchanged": rest, **{shift: change(rest) for shift, change in SHIFTS.items()}}
    images[FOREIGN_NAME] = data.pixels[data.labels == FOREIGN[data.name]]
    embedded = {kind: embed(network, of) for kind, of in images.items()}
    rows = {kind: rows_of(embedded[kind], of, head, means) for kind, of in images.items()}
    told = {kind: seen(rows[kind], embedded[kind]) for kind in ("unchanged", BRIGHTNESS, FOREIGN_NAME)}
    foreign = rows.pop(FOREIGN_NAME)
    return Population(
        name=name,
        described=f"{what}; logistic regression",
        rows=rows,
        foreign=foreign,
        right={shift: found.class_id == truth for shift, found in rows.items()},
        ratios={kind: ratios(told["unchanged"], told[kind]) for kind in (BRIGHTNESS, FOREIGN_NAME)},
    )


def rows_of(embeddings: Floats, pixels: Images, head: Any, means: ClassDirections) -> Rows:
    """Make rows as the watch takes them."""
    probabilities = head.predict_proba(embeddings)
    class_id = head.classes_[probabilities.argmax(axis=1)].astype(np.int64)
    return watched_rows(probabilities.max(axis=1).astype(np.float64), class_id, light_of(pixels), embeddings, means)


def light_of(pixels: Images) -> Floats:
    light: Floats = pixels.mean(axis=(1, 2, 3)) / 255
    return light


def embed(network: "torch.nn.Module", pixels: Images) -> npt.NDArray[np.float64]:
    import torch

    network.eval()
    with torch.inference_mode():
        parts = [network(_tensor(pixels[first : first + 64])) for first in range(0, len(pixels), 64)]
    embeddings: npt.NDArray[np.float64] = torch.cat(parts).double().numpy()
    return embeddings


def _tensor(pixels: Images) -> "torch.Tensor":
    import torch

    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
