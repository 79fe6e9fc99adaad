"""HTTP bodies that are wrong in themselves: each gets an error that names the reason, or an answer."""

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from slipway.steps.guard import EMPTY, OK, TOO_LARGE, UNSUPPORTED
from tests.support.v2_requests import RED, posted
from tests.support.wrong_requests import WRONG_BODIES, as_json


@pytest.mark.parametrize(("body", "headers", "reason"), WRONG_BODIES.values(), ids=WRONG_BODIES.keys())
def test_a_wrong_http_body_is_an_error_that_names_the_reason(
    unharmed: Any, body: bytes, headers: dict[str, str], reason: str
) -> None:
    status, said = posted(unharmed, "/v2/models/colours/infer", body, headers)
    assert status in {400, 500, 501}
    assert reason in json.loads(said)["error"]


@pytest.mark.parametrize("depth", [1, 100, 10_000])
def test_data_in_lists_in_each_other_is_taken_as_the_image_that_it_holds(unharmed: Any, depth: int) -> None:
    nested = as_json().replace(b'["a"]', b"[" * depth + b'"a"' + b"]" * depth)
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
