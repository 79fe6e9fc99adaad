"""What the adapters that take IMAGE share: the images of many requests as one batch, and its rows back to each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils


def images_of(requests: Sequence[Any]) -> tuple[dict[int, list[bytes]], list[Any]]:
    """The encoded images by the index of their request, and one response for each request: None where there are any.

    A request whose bytes cannot be read as strings fails alone, not with those batched beside it.
    """
    batches: dict[int, list[bytes]] = {}
    responses: list[Any] = [None] * len(requests)
    for index, request in enumerate(requests):
        try:
            batches[index] = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1).tolist()
        except Exception as error:
            failure = pb_utils.TritonError(f"IMAGE is not a BYTES tensor of encoded images: {error}")
            responses[index] = pb_utils.InferenceResponse(error=failure)
    return batches, responses


def rows_of(batches: Mapping[int, Sequence[bytes]]) -> Iterator[tuple[int, slice]]:
    """Of each request, by its index: where its images are in the batch of all."""
    first = 0
    for index, batch in batches.items():
        yield index, slice(first, first + len(batch))
        first += len(batch)
