"""HTTP bodies that are wrong in themselves: each gets an error that names the reason, or an answer."""

import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from slipway.steps.guard import EMPTY, OK, TOO_LARGE, UNSUPPORTED
from tests.support.v2_requests import RED, element


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
    unharmed: Any, body: bytes, headers: dict[str, str], reason: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", unharmed.ports.http, timeout=10)
    connection.request("POST", "/v2/models/colours/infer", body, headers)
    response = connection.getresponse()
    assert response.status in {400, 500, 501}
    assert reason in json.loads(response.read())["error"]
    connection.close()


@pytest.mark.parametrize("depth", [1, 100, 10_000])
def test_data_in_lists_in_each_other_is_taken_as_the_image_that_it_holds(unharmed: Any, depth: int) -> None:
    nested = _described().replace(b'["a"]', b"[" * depth + b'"a"' + b"]" * depth)
    assert _status(unharmed, nested, {}) == UNSUPPORTED


@pytest.mark.parametrize("body", [b"", b"abc" * 100], ids=["nothing", "no gzip"])
def test_an_http_body_of_nothing_is_an_empty_image(unharmed: Any, body: bytes) -> None:
    """Triton 2.51 takes a body without JSON for the one input, and what it cannot unpack for nothing."""
    assert _status(unharmed, body, {"Content-Encoding": "gzip"} if body else {}) == EMPTY


def _status(unharmed: Any, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", unharmed.ports.http, timeout=10)
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
    unharmed: Any, connect: Callable[..., Any], protocol: str
) -> None:
    answer = connect(unharmed, protocol).ask("colours", [RED, b"\xff\xd8" + bytes(100 * 2**20), RED])
    assert answer["STATUS"][:, 0].tolist() == [OK, TOO_LARGE, OK]
    assert answer["LABEL"][:, 0].tolist() == [b"red", b"", b"red"]


@pytest.mark.parametrize("length", [str(10**12), "-1", "abc", "1e3", "9" * 23])
def test_a_length_that_is_enormous_or_no_number_holds_nobody_up(unharmed: Any, length: str) -> None:
    """The server closes the connection, or waits for what never comes until its client goes."""
    head = f"POST /v2/models/colours/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", unharmed.ports.http), timeout=0.5) as connection:
        connection.sendall(head.encode() + b"x" * 1000)
        try:
            assert connection.recv(1000) == b"" or length == str(10**12)
        except TimeoutError:
            assert length == str(10**12)
