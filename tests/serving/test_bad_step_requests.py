"""Wrong requests to a step, past the ensembles: what they do to requests that they are batched with."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.v2_requests import RED, Input, element, message

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


def step(kind: str) -> str:
    (folder,) = EXAMPLE.glob(f"{kind}_*")
    return folder.name


LOGITS, STATUS = ("logits_nc", "FP32", (1, 3), bytes(12)), ("image_status", "INT32", (1, 1), bytes(4))
TO_STEPS = [
    pytest.param("post", [LOGITS, STATUS], id="post without the embedding"),
    pytest.param("preprocess", [("IMAGE", "BYTES", (0, 1), element(RED))], id="preprocess with no batch"),
]


# Triton 2.51 takes batch size 0 for a request without a batch dimension, and then counts its first dimension as images:
# "batch size 10 for 'post_…', max allowed is 8" goes to all of a dynamic batch. No step and no ensemble can prevent it.
COUNTED_WRONG = [
    pytest.param(
        "post", [("logits_nc", "FP32", (0, 3), bytes(12)), ("image_status", "INT32", (0, 1), bytes(4))], id="post"
    ),
    pytest.param("engine", [("pixels_nhwc_u8", "UINT8", (0, 32, 32, 3), bytes(32 * 32 * 3))], id="engine"),
]


@pytest.mark.parametrize(("kind", "inputs"), TO_STEPS)
def test_a_wrong_request_to_a_step_harms_no_request_that_it_is_batched_with(
    unharmed: Any, send: Any, connect: Callable[..., Any], kind: str, inputs: list[Input]
) -> None:
    harmed = errors_of_good_requests(unharmed, send, connect, message(*inputs, model=step(kind)))
    assert harmed == [], f"{len(harmed)} of 200 good requests got the error of another"


@pytest.mark.parametrize(("kind", "inputs"), COUNTED_WRONG)
def test_what_triton_counts_wrong_gives_neighbours_an_error_and_never_a_wrong_answer(
    unharmed: Any, send: Any, connect: Callable[..., Any], kind: str, inputs: list[Input]
) -> None:
    errors_of_good_requests(unharmed, send, connect, message(*inputs, model=step(kind)))
    assert connect(unharmed, "grpc").ask("colours", [RED])["LABEL"][0, 0] == b"red", "and all is well afterwards"


def errors_of_good_requests(unharmed: Any, send: Any, connect: Callable[..., Any], wrong: Any) -> list[str]:
    """Errors of 200 good requests while `wrong` ones are sent all the time; an answer that is not right fails."""
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            try:
                send(wrong)
            except grpc.RpcError:
                continue

    threads = [threading.Thread(target=disturb) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        client, errors = connect(unharmed, "grpc"), []
        for _ in range(200):
            try:
                assert client.ask("colours", [RED])["LABEL"][0, 0] == b"red"
            except InferenceServerException as error:
                errors.append(str(error))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return errors
