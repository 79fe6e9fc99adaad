"""What the adapters share: the images of many requests as one batch, and the rows of its answer back to each."""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils


def ready() -> None:
    """Called last in `initialize`. What a model keeps for ever, the garbage collector need not look through again: a
    full collection takes 50 ms with DALI and OpenVINO loaded, and a request would wait for it."""
    gc.collect()
    gc.freeze()


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


def rows_of(batches: Iterable[Sequence[Any]]) -> Iterator[slice]:
    """Where each batch is in the batch of all."""
    first = 0
    for batch in batches:
        yield slice(first, first + len(batch))
        first += len(batch)


def response(request: Any, tensors: Mapping[str, Any], rows: slice) -> Any:
    """What `request` asks for, of those rows that are its own."""
    asked = request.requested_output_names()
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, array[rows]) for name, array in tensors.items() if name in asked]
    )
