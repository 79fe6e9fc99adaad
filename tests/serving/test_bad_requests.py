"""Requests that are wrong in themselves, to ensembles and to steps: an error with the reason; the next is right."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.utils import InferenceServerException

from tests.support.v2_requests import IMAGE, RED, Input, element, message, post
from tests.support.wrong_requests import UNKNOWN, WRONG_INPUTS

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


def error_of(unharmed: Any, send: Any, protocol: str, request: ModelInferRequest) -> str:
    """What is wrong with a request, in the server's words."""
    if protocol == "grpc":
        with pytest.raises(grpc.RpcError) as error:
            send(request)
        return str(error.value.details())
    status, body = post(unharmed, request)
    assert status in {400, 404, 500}
    return str(json.loads(body)["error"])


OVER_HTTP = {"a negative dimension": "'shape'", "a negative batch": "'shape'"}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_a_wrong_input_is_an_error_that_names_the_reason(unharmed: Any, send: Any, name: str, protocol: str) -> None:
    inputs, reason = WRONG_INPUTS[name]
    reason = OVER_HTTP.get(name, reason) if protocol == "http" else reason
    for model in ("colours", "colours_full"):
        assert reason in error_of(unharmed, send, protocol, message(*inputs, model=model))


def test_a_wrong_input_is_the_clients_fault_by_its_code(send: Any) -> None:
    for inputs, _ in WRONG_INPUTS.values():
        with pytest.raises(grpc.RpcError) as error:
            send(message(*inputs))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("batch", [0, 2**32, 2**40])
def test_a_batch_size_that_triton_cuts_to_zero_is_answered_for_the_one_image(send: Any, batch: int) -> None:
    answer = send(message(("IMAGE", "BYTES", (batch, 1), element(RED)), outputs=["LABEL"]))
    assert list(answer.outputs[0].shape) == [2], "Triton 2.51 takes it for a request without a batch dimension"
    assert b"red" in answer.raw_output_contents[0]


NOT_A_PATH = {"no model", "a path as model", "a word as version", "version -1"}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_something_unknown_is_an_error_that_names_it(unharmed: Any, send: Any, name: str, protocol: str) -> None:
    changed, reason = UNKNOWN[name]
    reason = "Not Found" if protocol == "http" and name in NOT_A_PATH else reason
    assert reason in error_of(unharmed, send, protocol, message(IMAGE, **changed))


def test_an_output_that_is_asked_for_twice_is_given_once(unharmed: Any, send: Any) -> None:
    request = message(IMAGE, outputs=["LABEL", "LABEL"])
    assert [output.name for output in send(request).outputs] == ["LABEL"]
    status, body = post(unharmed, request)
    assert (status, body.count(b'"LABEL"')) == (200, 1)


ODD_IDS = {"lines": "two\nlines\r\nX: y", "1 MB": "x" * 1_000_000, "NUL": "\x00", "emoji": "🖼" * 1000}


@pytest.mark.parametrize("request_id", ODD_IDS.values(), ids=ODD_IDS.keys())
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_odd_request_id_changes_nothing(unharmed: Any, send: Any, request_id: str, protocol: str) -> None:
    good = message(IMAGE, id=request_id, outputs=["LABEL"])
    answer = send(good).raw_output_contents[-1] if protocol == "grpc" else post(unharmed, good)[1]
    assert b"red" in answer
    error = error_of(unharmed, send, protocol, message(*WRONG_INPUTS["rank 1"][0], id=request_id))
    # The server repeats the id in its error, which then is more than gRPC takes.
    assert "unexpected shape" in error or (protocol == "grpc" and "metadata size exceeds" in error)


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
