"""The few calls in which Triton's two protocols differ."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Transport(Protocol):
    """A connection to one server, in one event loop. Each call raises ClientError, and DeadlineError in time."""

    async def config(self, model: str, *, deadline_s: float) -> Mapping[str, Any]:
        """The model's configuration, by the names of Triton's protobuf."""
        ...

    async def models(self, *, deadline_s: float) -> list[str]:
        """Every model that is ready, steps included."""
        ...

    async def infer(
        self, model: str, images: Sequence[bytes], *, outputs: Sequence[str], request_id: str, deadline_s: float
    ) -> dict[str, NDArray[Any]]:
        """One request. Each output has one row for each image."""
        ...

    async def close(self) -> None: ...


def image_tensor(images: Sequence[bytes]) -> NDArray[np.object_]:
    """IMAGE BYTES [n, 1]."""
    images_n1 = np.empty((len(images), 1), np.object_)
    images_n1[:, 0] = images
    return images_n1
