"""Requests that are wrong in themselves and harm nobody: the server, or the gateway before it, says what is wrong."""

import gzip
import json
import zlib
from typing import Any

from tests.support.v2_requests import IMAGE, RED, Input, element

WRONG_INPUTS: dict[str, tuple[list[Input], str]] = {
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
"""The inputs of a request, and what is said of them."""

UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "a model": ({"model": "cats"}, "'cats' is not found"),
    "no model": ({"model": ""}, "is not found"),
    "a path as model": ({"model": "../colours"}, "is not found"),
    "a version": ({"model_version": "2"}, "version 2 is not found"),
    "a word as version": ({"model_version": "abc"}, "integral value"),
    "version -1": ({"model_version": "-1"}, "invalid model version"),
    "a version of 25 digits": ({"model_version": "9" * 25}, "integral value"),
    "an output": ({"outputs": ["LABEL", "CAT"]}, "unexpected inference output 'CAT'"),
}
"""What such a request has in place of the right name, and what is said of it."""


def as_json(**changes: Any) -> bytes:
    """The JSON of a request for one image, which is in it too; a part that is None is left out."""
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [1, 1], "data": ["a"], **changes}
    return json.dumps({"inputs": [{name: value for name, value in tensor.items() if value is not None}]}).encode()


_SIZE = len(element(RED))


def _binary(size: Any = _SIZE, *, beside: bytes = b"", **changes: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request whose tensor follows the JSON; `beside` are more members of the JSON."""
    front = as_json(data=None, parameters={"binary_data_size": size}, **changes)[:-1] + beside + b"}"
    return front + element(RED), {"Inference-Header-Content-Length": str(len(front))}


WRONG_BODIES = {
    "not JSON": (b'{"inputs":', {}, "failed to parse"),
    "bytes that are not text": (b"\xff\xfe{}", {}, "failed to parse"),
    "an image": (RED, {}, "failed to parse"),
    "a list": (b"[]", {}, "'inputs'"),
    "no inputs": (b"{}", {}, "'inputs'"),
    "inputs that are not a list": (b'{"inputs": {}}', {}, "'inputs'"),
    "an input that is a number": (b'{"inputs": [5]}', {}, "Input must set only one"),
    "a name that is a number": (*_binary(name=5), "'name'"),
    "a shape that is text": (*_binary(shape="x"), "'shape'"),
    "a shape with a fraction": (*_binary(shape=[1.5, 1]), "'shape'"),
    "a shape over 64 bits": (*_binary(shape=[2**64, 1]), "'shape'"),
    "no data": (as_json(data=None), {}, "Input must set only one"),
    "an empty list of data": (as_json(data=[]), {}, "expected 1 string elements"),
    "more data than the shape": (as_json(data=["a"] * 9), {}, "unexpected number of string elements"),
    "numbers for images": (as_json(data=[5]), {}, "JSON bytes array"),
    "text for numbers": (as_json(datatype="FP32", data=["a"]), {}, "'data'"),
    "an object for images": (as_json(data={"b64": "x"}), {}, "'data'"),
    "an id that is a number": (*_binary(beside=b', "id": 5'), "'id'"),
    "parameters that are a list": (*_binary(beside=b', "parameters": []'), "request params"),
    "a priority that is text": (*_binary(beside=b', "parameters": {"priority": "x"}'), "'priority'"),
    "a sequence of 129 letters": (
        *_binary(beside=b', "parameters": {"sequence_id": "%b"}' % (b"x" * 129)),
        "correlation ID",
    ),
    "outputs that are text": (*_binary(beside=b', "outputs": "LABEL"'), "'outputs'"),
    "an output without a name": (*_binary(beside=b', "outputs": [{}]'), "'name'"),
    "an unknown output": (*_binary(beside=b', "outputs": [{"name": "X"}]'), "unexpected inference output 'X'"),
    "more bytes announced than sent": (*_binary(10**6), "unexpected size for input 'IMAGE'"),
    "fewer bytes announced than sent": (*_binary(5), "unexpected additional input data"),
    "a negative size": (*_binary(-5), "'binary_data_size'"),
    "a header length past the end": (RED, {"Inference-Header-Content-Length": "1000000"}, "inference header size"),
    "a negative header length": (RED, {"Inference-Header-Content-Length": "-5"}, "inference header size"),
    "an unknown compression": (as_json(), {"Content-Encoding": "br"}, "Unsupported compression"),
    "blanks, compressed a thousandfold": (gzip.compress(b" " * 10**7), {"Content-Encoding": "gzip"}, "failed to parse"),
    "100 MB of zeros in 100 kB": (gzip.compress(bytes(10**8)), {"Content-Encoding": "gzip"}, "failed to parse"),
    "the same, deflated": (zlib.compress(bytes(10**8)), {"Content-Encoding": "deflate"}, "failed to parse"),
    "compressed twice": (gzip.compress(gzip.compress(as_json())), {"Content-Encoding": "gzip"}, "failed to parse"),
    "10,000 lists in each other": (b"[" * 10_000, {}, "failed to parse"),
    "10,000 objects in each other": (b'{"inputs":' * 10_000, {}, "failed to parse"),
}
"""Body, headers, and what is said of them."""
