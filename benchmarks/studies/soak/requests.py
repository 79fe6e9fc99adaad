"""Makes the requests of the study, sends them, and reads the answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
GOOD_IMAGES, WHOLE_FILES, SIDES = 90, 450, (16, 128)
MOST_DAMAGED, MOST_GOOD = 6, 2  # of one request
LARGEST = ((8000, 8000), (1200, 1200), (1200, 1200))
"""The largest image that the server accepts; and one of as many pixels as a damaged image may have. Pixels of under 32
MiB stay in malloc's heap, which keeps that size, from the second time on."""


@dataclass(frozen=True)
class ImageAnswer:
    """The answer to one image."""

    status: int
    labels: tuple[bytes, ...]
    scores: tuple[float, ...]
    class_ids: tuple[int, ...]

    def same_as(self, other: "ImageAnswer") -> bool:
        near = all(abs(a - b) < 1e-3 for a, b in zip(self.scores, other.scores, strict=True))
        return near and (self.status, self.labels) == (other.status, other.labels)

    @property
    def blank(self) -> bool:
        return not any(self.labels) and not any(self.scores) and set(self.class_ids) == {-1}


@dataclass(frozen=True)
class Request:
    """Images in order, and the numbers of the good ones by their place."""

    number: int
    images: list[bytes]
    good: dict[int, int]

    @property
    def damaged(self) -> int:
        return len(self.images) - len(self.good)


class Asker:
    """A connection over one protocol."""

    def __init__(self, server: Any, protocol: str, *, timeout_s: float) -> None:
        import tritonclient.grpc
        import tritonclient.http

        from slipway.system.channel import channel_options

        self.protocol = protocol
        self.module = {"grpc": tritonclient.grpc, "http": tritonclient.http}[protocol]
        if protocol == "grpc":
            options = channel_options(server.grpc_url)
            self.client = self.module.InferenceServerClient(server.grpc_url, channel_args=options)
            self.options = {"client_timeout": timeout_s}
        else:
            self.client = self.module.InferenceServerClient(server.http_url, network_timeout=timeout_s)
            self.options = {}

    def ask(self, model: str, images: Sequence[bytes]) -> list[ImageAnswer]:
        import numpy as np

        tensor = self.module.InferInput("IMAGE", [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[image] for image in images], np.object_))
        result = self.client.infer(model, [tensor], **self.options)
        columns = [result.as_numpy(name).tolist() for name in ("STATUS", "LABEL", "SCORE", "CLASS_ID")]
        return [ImageAnswer(status, *map(tuple, rest)) for (status,), *rest in zip(*columns, strict=True)]


def corpus(seed: int) -> tuple[list[bytes], list[Any], list[bytes]]:
    """Make good images to be answered, whole files to be damaged, and the largest images."""
    from PIL import Image

    from tests.support.image_files import encode, photo
    from tests.support.mutations import good_files

    pictures = [photo(192, 144, seed=number) for number in range(12)]
    plain = [Image.new("RGB", (64, 48), colour) for colour in ("#0000c8", "#00a000", "#dc0000")]
    good = good_files([*pictures, *plain], GOOD_IMAGES, seed=seed, sides=SIDES)
    files = good_files(pictures, WHOLE_FILES, seed=seed + 1, sides=SIDES)
    largest = [encode(Image.new("RGB", size), "WEBP", lossless=True, method=0) for size in LARGEST]
    return [file.data for file in good], files, largest


def make_requests(good: Sequence[bytes], files: Sequence[Any], *, images: int, seed: int) -> Iterator[Request]:
    """Make requests that hold `images` damaged images together; equal arguments give equal requests."""
    import numpy as np

    from tests.support.mutations import damaged

    rng = np.random.default_rng(seed)
    bad = (data for _, _, data in damaged(files, images, seed=seed))
    for request in count():
        batch = list(islice(bad, int(rng.integers(1, MOST_DAMAGED + 1))))
        if not batch:
            return
        numbers = rng.integers(len(good), size=int(rng.integers(MOST_GOOD + 1))).tolist()
        mixed: list[Any] = [*batch, *numbers]
        rng.shuffle(mixed)
        places = {place: entry for place, entry in enumerate(mixed) if isinstance(entry, int)}
        yield Request(request, [good[entry] if isinstance(entry, int) else entry for entry in mixed], places)


def taken(requests: Iterator[Request], *, images: int) -> Iterator[Request]:
    """Take the next requests, until they hold that many damaged images."""
    while images > 0 and (request := next(requests, None)):
        images -= request.damaged
        yield request
