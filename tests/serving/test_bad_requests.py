"""Requests that are wrong in themselves: each gets an error that names the reason, or an answer; the next is right."""

import gzip
import http.client
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from image_files import encode, photo
from PIL import Image
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.utils import InferenceServerException

from slipway.steps.guard import EMPTY, OK, TOO_LARGE, UNSUPPORTED

RED = encode(Image.new("RGB", (60, 50), (220, 0, 0)), "PNG")
EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


def element(image: bytes, length: int | None = None) -> bytes:
    """One element of a BYTES tensor, whose prefix may lie about its length."""
    return struct.pack("<I", len(image) if length is None else length) + image


IMAGE = ("IMAGE", "BYTES", (1, 1), element(RED))

Input = tuple[str, str, tuple[int, ...], bytes]


def message(*inputs: Input, model: str = "colours", outputs: Sequence[str] = (), **fields: str) -> ModelInferRequest:
    request = ModelInferRequest(model_name=model, **fields)
    for name, datatype, shape, content in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(content)
    for name in outputs:
        request.outputs.add(name=name)
    return request


@pytest.fixture
def server(own_server: Any, connect: Callable[..., Any]) -> Iterator[Any]:
    """After every test the same processes are there, and the next good request is right on both protocols."""
    tree = psutil.Process(own_server.process.pid).children(recursive=True)
    yield own_server
    for protocol in ("grpc", "http"):
        answer = connect(own_server, protocol).ask("colours_full", [RED])
        assert answer["LABEL"][0, 0] == b"red"
    assert psutil.Process(own_server.process.pid).children(recursive=True) == tree


@pytest.fixture
def send(server: Any) -> Iterator[Callable[[ModelInferRequest], Any]]:
    """Send a request as it is: no client library mends it."""
    client = triton_grpc.InferenceServerClient(server.grpc_url)
    yield lambda request, timeout_s=10.0: client._client_stub.ModelInfer(request, timeout=timeout_s)
    client.close()


def post(server: Any, request: ModelInferRequest) -> tuple[int, bytes]:
    """Send the same over HTTP: status and body of the response."""
    tensors = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(content)},
        }
        for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    described: dict[str, Any] = {"inputs": tensors}
    if request.id:
        described["id"] = request.id
    if request.outputs:
        described["outputs"] = [{"name": output.name} for output in request.outputs]
    description = json.dumps(described).encode()
    version = f"/versions/{request.model_version}" if request.model_version else ""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=30)
    connection.request(
        "POST",
        f"/v2/models/{request.model_name}{version}/infer",
        description + b"".join(request.raw_input_contents),
        {"Inference-Header-Content-Length": str(len(description))},
    )
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def error_of(server: Any, send: Any, protocol: str, request: ModelInferRequest) -> str:
    """What is wrong with a request, in the server's words."""
    if protocol == "grpc":
        with pytest.raises(grpc.RpcError) as error:
            send(request)
        return str(error.value.details())
    status, body = post(server, request)
    assert status in {400, 404, 500}
    return str(json.loads(body)["error"])


WRONG_INPUTS = {
    "no input": ([], "expected 1 inputs but got 0"),
    "another name": ([("image", *IMAGE[1:])], "unexpected inference input 'image'"),
    "an extra input": ([IMAGE, ("X", "FP32", (1, 1), bytes(4))], "expected 1 inputs but got 2"),
    "the input twice": ([IMAGE, IMAGE], "input 'IMAGE' already exists"),
    "FP32": ([("IMAGE", "FP32", (1, 1), bytes(4))], "data-type is 'FP32'"),
    "UINT8": ([("IMAGE", "UINT8", (1, len(RED)), RED)], "data-type is 'UINT8'"),
    "an unknown type": ([("IMAGE", "CAT", (1, 1), element(RED))], "expects 'BYTES'"),
    "no type": ([("IMAGE", "", (1, 1), element(RED))], "expects 'BYTES'"),
    "rank 0": ([("IMAGE", "BYTES", (), element(RED))], "has no shape"),
    "rank 1": ([("IMAGE", "BYTES", (1,), element(RED))], "unexpected shape"),
    "rank 3": ([("IMAGE", "BYTES", (1, 1, 1), element(RED))], "unexpected shape"),
    "two images in a row": ([("IMAGE", "BYTES", (1, 2), element(RED) * 2)], "unexpected shape"),
    "a negative dimension": ([("IMAGE", "BYTES", (1, -1), element(RED))], "should be specified"),
    "a negative batch": ([("IMAGE", "BYTES", (-1, 1), element(RED))], "string elements"),
    "a batch over the limit": ([("IMAGE", "BYTES", (9, 1), element(RED) * 9)], "batch-size must be <= 8"),
    "an enormous shape": ([("IMAGE", "BYTES", (2**62, 2**62), element(RED))], "unexpected shape"),
    "no bytes": ([("IMAGE", "BYTES", (1, 1), b"")], "expected 1 string elements"),
    "fewer images than the shape": ([("IMAGE", "BYTES", (2, 1), element(RED))], "expected 2 string elements"),
    "more images than the shape": ([("IMAGE", "BYTES", (1, 1), element(RED) * 2)], "unexpected number of string"),
    "half a length prefix": ([("IMAGE", "BYTES", (1, 1), b"\1\0")], "incomplete string length"),
    "a prefix that says too much": ([("IMAGE", "BYTES", (1, 1), element(RED, 10**6))], "incomplete string data"),
    "a prefix that says 4 GiB": ([("IMAGE", "BYTES", (1, 1), element(RED, 2**32 - 1))], "incomplete string data"),
    "a prefix that says too little": ([("IMAGE", "BYTES", (1, 1), element(RED, 9))], "string"),
    "a lie after a good one": ([("IMAGE", "BYTES", (2, 1), element(RED) + element(RED, 10**6))], "incomplete string"),
    "one that swallows the next": (
        [("IMAGE", "BYTES", (2, 1), element(RED, 2 * len(RED) + 4) + element(RED))],
        "expected 2 string elements",
    ),
    "a byte after the last": ([("IMAGE", "BYTES", (1, 1), element(RED) + b"x")], "incomplete string length"),
}


OVER_HTTP = {"a negative dimension": "'shape'", "a negative batch": "'shape'"}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_a_wrong_input_is_an_error_that_names_the_reason(server: Any, send: Any, name: str, protocol: str) -> None:
    inputs, reason = WRONG_INPUTS[name]
    reason = OVER_HTTP.get(name, reason) if protocol == "http" else reason
    for model in ("colours", "colours_full"):
        assert reason in error_of(server, send, protocol, message(*inputs, model=model))


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


UNKNOWN = {
    "a model": ({"model": "cats"}, "'cats' is not found"),
    "no model": ({"model": ""}, "is not found"),
    "a path as model": ({"model": "../colours"}, "is not found"),
    "a version": ({"model_version": "2"}, "version 2 is not found"),
    "a word as version": ({"model_version": "abc"}, "integral value"),
    "version -1": ({"model_version": "-1"}, "invalid model version"),
    "a version of 25 digits": ({"model_version": "9" * 25}, "integral value"),
    "an output": ({"outputs": ["LABEL", "CAT"]}, "unexpected inference output 'CAT'"),
}


NOT_A_PATH = {"no model", "a path as model", "a word as version", "version -1"}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_something_unknown_is_an_error_that_names_it(server: Any, send: Any, name: str, protocol: str) -> None:
    changed, reason = UNKNOWN[name]
    reason = "Not Found" if protocol == "http" and name in NOT_A_PATH else reason
    assert reason in error_of(server, send, protocol, message(IMAGE, **changed))


def test_an_output_that_is_asked_for_twice_is_given_once(server: Any, send: Any) -> None:
    request = message(IMAGE, outputs=["LABEL", "LABEL"])
    assert [output.name for output in send(request).outputs] == ["LABEL"]
    status, body = post(server, request)
    assert (status, body.count(b'"LABEL"')) == (200, 1)


ODD_IDS = {"lines": "two\nlines\r\nX: y", "1 MB": "x" * 1_000_000, "NUL": "\x00", "emoji": "🖼" * 1000}


@pytest.mark.parametrize("request_id", ODD_IDS.values(), ids=ODD_IDS.keys())
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_odd_request_id_changes_nothing(server: Any, send: Any, request_id: str, protocol: str) -> None:
    good = message(IMAGE, id=request_id, outputs=["LABEL"])
    answer = send(good).raw_output_contents[-1] if protocol == "grpc" else post(server, good)[1]
    assert b"red" in answer
    error = error_of(server, send, protocol, message(*WRONG_INPUTS["rank 1"][0], id=request_id))
    # The server repeats the id in its error, which then is more than gRPC takes.
    assert "unexpected shape" in error or (protocol == "grpc" and "metadata size exceeds" in error)


def test_client_deadlines_of_one_to_four_milliseconds_are_survived(server: Any) -> None:
    image = np.array([[encode(photo(400, 300, seed=seed), "PNG")] for seed in range(4)], np.object_)

    def impatient(offset: int) -> list[str]:
        client = triton_grpc.InferenceServerClient(server.grpc_url)
        tensor = triton_grpc.InferInput("IMAGE", image.shape, "BYTES")
        tensor.set_data_from_numpy(image)
        failures = []
        for index in range(40):
            try:
                client.infer("colours", [tensor], client_timeout=0.001 * (1 + (index + offset) % 4))
            except InferenceServerException as error:
                failures.append(error.message())
        client.close()
        return failures

    with ThreadPoolExecutor(4) as pool:
        failures = [failure for failures in pool.map(impatient, range(4)) for failure in failures]
    assert failures, "some deadlines were missed, or nothing is tested here"
    assert {"Deadline Exceeded" in failure for failure in failures} == {True}, set(failures)


def test_http_clients_that_wait_one_to_four_milliseconds_are_survived(server: Any) -> None:
    head, body = _http_request(encode(photo(400, 300), "PNG"))
    missed = 0
    for index in range(40):
        with socket.create_connection(("127.0.0.1", server.ports.http), timeout=5) as connection:
            connection.sendall(head + body)
            connection.settimeout(0.001 * (1 + index % 4))
            try:
                connection.recv(1)
            except TimeoutError:
                missed += 1
    assert missed, "some gave up, or nothing is tested here"


def test_clients_that_go_away_harm_nobody(server: Any) -> None:
    client = triton_grpc.InferenceServerClient(server.grpc_url)
    for _ in range(10):
        call = client._client_stub.ModelInfer.future(message(IMAGE))
        time.sleep(0.002)
        call.cancel()
    client.close()
    head, body = _http_request(RED)
    for sent in (head[:20], head, head + body[: len(body) // 2], head + body):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.ports.http), timeout=5) as connection:
                connection.sendall(sent)


def _http_request(image: bytes) -> tuple[bytes, bytes]:
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(image) + 4}}
    description = json.dumps({"inputs": [tensor]}).encode()
    body = description + element(image)
    head = f"POST /v2/models/colours/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Inference-Header-Content-Length: {len(description)}\r\n\r\n".encode(), body


def _described(**changes: Any) -> bytes:
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [1, 1], "data": ["a"], **changes}
    return json.dumps({"inputs": [{name: value for name, value in tensor.items() if value is not None}]}).encode()


def _binary(size: Any) -> tuple[bytes, dict[str, str]]:
    description = _described(data=None, parameters={"binary_data_size": size})
    return description + element(RED), {"Inference-Header-Content-Length": str(len(description))}


WRONG_BODIES = {
    "not JSON": (b'{"inputs":', {}, "failed to parse"),
    "bytes that are no text": (b"\xff\xfe{}", {}, "failed to parse"),
    "an image": (RED, {}, "failed to parse"),
    "a list": (b"[]", {}, "'inputs'"),
    "no inputs": (b"{}", {}, "'inputs'"),
    "inputs that are no list": (b'{"inputs": {}}', {}, "'inputs'"),
    "a name that is a number": (_described(name=5), {}, "'name'"),
    "a shape that is text": (_described(shape="x"), {}, "'shape'"),
    "a shape with a fraction": (_described(shape=[1.5, 1]), {}, "'shape'"),
    "a shape over 64 bits": (_described(shape=[2**64, 1]), {}, "'shape'"),
    "no data": (_described(data=None), {}, "Input must set only one"),
    "an empty list of data": (_described(data=[]), {}, "expected 1 string elements"),
    "more data than the shape": (_described(data=["a"] * 9), {}, "unexpected number of string elements"),
    "numbers for images": (_described(data=[5]), {}, "JSON bytes array"),
    "an object for images": (_described(data={"b64": "x"}), {}, "'data'"),
    "an id that is a number": (_described()[:-1] + b', "id": 5}', {}, "'id'"),
    "an unknown output": (_described()[:-1] + b', "outputs": [{"name": "X"}]}', {}, "unexpected inference output 'X'"),
    "more bytes announced than sent": (*_binary(10**6), "unexpected size for input 'IMAGE'"),
    "fewer bytes announced than sent": (*_binary(5), "unexpected additional input data"),
    "a negative size": (*_binary(-5), "'binary_data_size'"),
    "a header length past the end": (RED, {"Inference-Header-Content-Length": "1000000"}, "inference header size"),
    "a negative header length": (RED, {"Inference-Header-Content-Length": "-5"}, "inference header size"),
    "an unknown compression": (_described(), {"Content-Encoding": "br"}, "Unsupported compression"),
    "blanks, compressed a thousandfold": (gzip.compress(b" " * 10**7), {"Content-Encoding": "gzip"}, "failed to parse"),
    "100 MB of zeros in 100 kB": (gzip.compress(bytes(10**8)), {"Content-Encoding": "gzip"}, "failed to parse"),
    "the same, deflated": (zlib.compress(bytes(10**8)), {"Content-Encoding": "deflate"}, "failed to parse"),
    "compressed twice": (gzip.compress(gzip.compress(_described())), {"Content-Encoding": "gzip"}, "failed to parse"),
    "10,000 lists in each other": (b"[" * 10_000, {}, "failed to parse"),
    "10,000 objects in each other": (b'{"inputs":' * 10_000, {}, "failed to parse"),
}


@pytest.mark.parametrize(("body", "headers", "reason"), WRONG_BODIES.values(), ids=WRONG_BODIES.keys())
def test_a_wrong_http_body_is_an_error_that_names_the_reason(
    server: Any, body: bytes, headers: dict[str, str], reason: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=10)
    connection.request("POST", "/v2/models/colours/infer", body, headers)
    response = connection.getresponse()
    assert response.status in {400, 500, 501}
    assert reason in json.loads(response.read())["error"]
    connection.close()


@pytest.mark.parametrize("depth", [1, 100, 10_000])
def test_data_in_lists_in_each_other_is_taken_as_the_image_that_it_holds(server: Any, depth: int) -> None:
    nested = _described().replace(b'["a"]', b"[" * depth + b'"a"' + b"]" * depth)
    assert _status(server, nested, {}) == UNSUPPORTED


@pytest.mark.parametrize("body", [b"", b"abc" * 100], ids=["nothing", "no gzip"])
def test_an_http_body_of_nothing_is_an_empty_image(server: Any, body: bytes) -> None:
    """Triton 2.51 takes a body without JSON for the one input, and what it cannot unpack for nothing."""
    assert _status(server, body, {"Content-Encoding": "gzip"} if body else {}) == EMPTY


def _status(server: Any, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=10)
    connection.request("POST", "/v2/models/colours/infer", body, headers)
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, content
    described = json.JSONDecoder().raw_decode(content.decode("latin-1"))[0]
    connection.close()
    (status,) = (output for output in described["outputs"] if output["name"] == "STATUS")
    if "data" in status:
        return int(status["data"][0])
    start = int(response.headers["Inference-Header-Content-Length"])
    for output in described["outputs"]:
        size = output["parameters"]["binary_data_size"]
        if output is status:
            return int.from_bytes(content[start : start + size], "little")
        start += size
    raise AssertionError("no STATUS")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_body_far_over_the_limit_is_one_image_that_is_too_large(
    server: Any, connect: Callable[..., Any], protocol: str
) -> None:
    answer = connect(server, protocol).ask("colours", [RED, b"\xff\xd8" + bytes(100 * 2**20), RED])
    assert answer["STATUS"][:, 0].tolist() == [OK, TOO_LARGE, OK]
    assert answer["LABEL"][:, 0].tolist() == [b"red", b"", b"red"]


@pytest.mark.parametrize("length", [str(10**12), "-1", "abc", "1e3", "9" * 23])
def test_a_length_that_is_enormous_or_no_number_holds_nobody_up(server: Any, length: str) -> None:
    """The server closes the connection, or waits for what never comes until its client goes."""
    head = f"POST /v2/models/colours/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.ports.http), timeout=0.5) as connection:
        connection.sendall(head.encode() + b"x" * 1000)
        try:
            assert connection.recv(1000) == b"" or length == str(10**12)
        except TimeoutError:
            assert length == str(10**12)


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
    pytest.param("engine", [("pixels_nchw", "FP32", (0, 3, 32, 32), bytes(4 * 3 * 32 * 32))], id="engine"),
]


@pytest.mark.parametrize(("kind", "inputs"), TO_STEPS)
def test_a_wrong_request_to_a_step_harms_no_request_that_it_is_batched_with(
    server: Any, send: Any, connect: Callable[..., Any], kind: str, inputs: list[Input]
) -> None:
    harmed = errors_of_good_requests(server, send, connect, message(*inputs, model=step(kind)))
    assert harmed == [], f"{len(harmed)} of 200 good requests got the error of another"


@pytest.mark.parametrize(("kind", "inputs"), COUNTED_WRONG)
def test_what_triton_counts_wrong_gives_neighbours_an_error_and_never_a_wrong_answer(
    server: Any, send: Any, connect: Callable[..., Any], kind: str, inputs: list[Input]
) -> None:
    errors_of_good_requests(server, send, connect, message(*inputs, model=step(kind)))
    assert connect(server, "grpc").ask("colours", [RED])["LABEL"][0, 0] == b"red", "and all is well afterwards"


def errors_of_good_requests(server: Any, send: Any, connect: Callable[..., Any], wrong: Any) -> list[str]:
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
        client, errors = connect(server, "grpc"), []
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
