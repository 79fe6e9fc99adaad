"""The few calls that differ between Triton's two protocols."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Transport(Protocol):
    """A connection to one server, in one event loop. Each call raises ClientError, or DeadlineError if it is late."""

    async def config(self, model: str, *, deadline_s: float) -> Mapping[str, Any]:
        """The model's configuration, with the field names of Triton's protobuf."""
        ...

    async def models(self, *, deadline_s: float) -> list[str]:
        """The names of all models that are ready, steps included."""
        ...

    async def infer(
        self, model: str, images: Sequence[bytes], *, outputs: Sequence[str], request_id: str, deadline_s: float
    ) -> dict[str, NDArray[Any]]:
        """Send one request. Each output has one row for each image."""
        ...

    async def close(self) -> None: ...


def image_tensor(images: Sequence[bytes]) -> NDArray[np.object_]:
    """The input tensor IMAGE, BYTES [n, 1]."""
    images_n1 = np.empty((len(images), 1), np.object_)
    images_n1[:, 0] = images
    return images_n1
