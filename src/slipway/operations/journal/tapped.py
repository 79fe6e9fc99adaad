"""Reads a tap file of Envoy: which images were asked, and what was answered for each.

Every reader raises `TapError` for what it cannot read; nothing of the headers but those named here goes further.
"""

import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as triton

from slipway.errors import DataError
from slipway.operations.journal.settings import MOST_ANSWER_BYTES, SAMPLED_HEADER
from slipway.operations.journal.trace import Trace, read_trace

ARM_HEADER = "slipway-arm"
LENGTH_HEADER = "inference-header-content-length"
_INFER = re.compile(r"/v2/models/([a-z][a-z0-9_]*)(/versions/\d+)?/infer")
_FORMATS = {"FP32": "f", "INT32": "i", "INT64": "q", "FP64": "d"}
_MOST_IMAGES = 4096


class TapError(DataError):
    """A tap file cannot be read; `kind` says why, for the counters."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(said)
        self.kind = kind


@dataclass(frozen=True)
class TappedAnswer:
    """Answer of one classifier for one image; fields are None if the client did not ask for them."""

    labels: tuple[str, ...] | None = None
    """Best first, without the empty ones at the end."""
    scores: tuple[float, ...] | None = None
    class_ids: tuple[int, ...] | None = None
    status: int | None = None
    bundle: str | None = None


@dataclass(frozen=True)
class Tapped:
    """One request for inference and its answer."""

    model: str
    client_id: str
    """Id that the client gave its request; may be empty."""
    time_s: float | None
    """Unix time at which the request arrived, by Envoy's clock."""
    sampled_with: float
    """Probability with which the request was chosen."""
    arm: str
    images: tuple[bytes, ...]
    answers: Mapping[str, tuple[TappedAnswer, ...]]
    """Answers by classifier, one for each image."""


def read_tapped(content: bytes) -> Tapped:
    """Read the content of a tap file.

    Raises:
        TapError: `unfinished` (the file is not whole), `truncated` (a body is larger than Envoy's buffer), `failed`
            (the server gave no answer), or `unreadable`.
    """
    trace = read_trace(content)
    if trace is None:
        raise TapError("unfinished", "not a whole tap file")
    if trace.truncated:
        raise TapError("truncated", "a body is longer than the tap's buffer")
    path = trace.request_headers.get(":path", "")
    try:
        sampled_with = float(trace.request_headers[SAMPLED_HEADER])
        if not 0 < sampled_with <= 1:
            raise ValueError(sampled_with)
    except (KeyError, ValueError):
        raise TapError("unreadable", f"no probability in {SAMPLED_HEADER}") from None
    try:
        if path.endswith("/ModelInfer"):
            model, client_id, images, outputs = _grpc(trace)
        else:
            model, client_id, images, outputs = _http(trace, path)
        answers = _answers(model, outputs, images=len(images))
    except (DecodeError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise TapError("unreadable", f"{type(error).__name__}: {error}") from None
    arm = trace.response_headers.get(ARM_HEADER, "stable")
    return Tapped(model, client_id, trace.time_s, sampled_with, arm, images, answers)


_Parts = tuple[str, str, tuple[bytes, ...], Mapping[str, list[list[Any]]]]
"""Model, the client's id, images, and each output as a list for each image."""


def _grpc(trace: Trace) -> _Parts:
    status = trace.response_trailers.get("grpc-status", trace.response_headers.get("grpc-status"))
    if trace.response_headers.get(":status") != "200" or status != "0":
        raise TapError("failed", f"the answer is gRPC status {status}")
    request = triton.ModelInferRequest.FromString(_message(trace.request_body))
    answer = triton.ModelInferResponse.FromString(_message(trace.response_body))
    place = [tensor.name for tensor in request.inputs].index("IMAGE")
    if request.raw_input_contents:
        images = tuple(_elements(request.raw_input_contents[place]))
    else:
        images = tuple(request.inputs[place].contents.bytes_contents)
    outputs: dict[str, list[list[Any]]] = {}
    for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        outputs[tensor.name] = _rows(_values(tensor.datatype, raw), len(images))
    return request.model_name, request.id, images, outputs


def _message(body: bytes) -> bytes:
    """The one message of a gRPC body: a byte 0, four bytes of length, and the message."""
    flag, length = struct.unpack_from(">BI", body)
    if flag or length != len(body) - 5:
        raise ValueError("not one uncompressed gRPC message")
    return body[5:]


def _http(trace: Trace, path: str) -> _Parts:
    if (code := trace.response_headers.get(":status")) != "200":
        raise TapError("failed", f"the answer is HTTP {code}")
    found = _INFER.fullmatch(path)
    if found is None:
        raise ValueError("not a path for inference")
    described, content = _split(trace.request_body, trace.request_headers[LENGTH_HEADER])
    client_id = ""
    if described is None:
        images: tuple[bytes, ...] = (content,)  # a raw request: the body is the image, without a length
    else:
        client_id = _text(described.get("id", ""))
        (image,) = [
            (tensor, raw) for tensor, raw in _tensors(described["inputs"], content) if tensor["name"] == "IMAGE"
        ]
        tensor, raw = image
        images = tuple(str(one).encode() for one in _flat(tensor["data"])) if raw is None else tuple(_elements(raw))
    body = _unpacked(trace.response_body, trace.response_headers.get("content-encoding", ""))
    described, content = _split(body, trace.response_headers.get(LENGTH_HEADER))
    if described is None:
        raise ValueError("an answer without a description")
    outputs: dict[str, list[list[Any]]] = {}
    for tensor, raw in _tensors(described["outputs"], content):
        values = _flat(tensor["data"]) if raw is None else _values(tensor["datatype"], raw)
        outputs[tensor["name"]] = _rows(values, len(images))
    return found[1], client_id, images, outputs


def _unpacked(body: bytes, encoding: str) -> bytes:
    """An answer as it was before tritonserver compressed it: most HTTP clients accept that."""
    if not encoding:
        return body
    if encoding not in ("gzip", "deflate"):
        raise ValueError(f"content-encoding {encoding}")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)  # both
    try:
        content = unpacking.decompress(body, MOST_ANSWER_BYTES)
    except zlib.error as error:
        raise ValueError(f"not {encoding}: {error}") from None
    if not unpacking.eof:
        raise ValueError("a compressed answer is cut off, or too large")
    return content


def _split(body: bytes, length: str | None) -> tuple[dict[str, Any] | None, bytes]:
    """The JSON in front of a body, None for a length of 0, and the tensors behind it."""
    end = len(body) if length is None else int(length)
    if not 0 <= end <= len(body):
        raise ValueError("the header is longer than the body")
    if end == 0:
        return None, body
    try:
        described = json.loads(body[:end])
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(described, dict):
        raise ValueError("the JSON is not an object")
    return described, body[end:]


def _tensors(described: Any, content: bytes) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    """Each tensor with its bytes, or with None where its data are JSON."""
    at = 0
    for tensor in described:
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            yield tensor, None
            continue
        if not isinstance(size, int) or not 0 <= size <= len(content) - at:
            raise ValueError("binary_data_size is not that of the body")
        yield tensor, content[at : at + size]
        at += size


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    found: list[Any] = []
    for one in data:
        found += _flat(one)
    return found


def _elements(raw: bytes) -> Iterator[bytes]:
    """The elements of a BYTES tensor: four bytes of length and the content, each."""
    at = 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        if at + 4 + size > len(raw):
            raise ValueError("a BYTES tensor is shorter than its lengths")
        yield raw[at + 4 : at + 4 + size]
        at += 4 + size


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        return list(_elements(raw))
    letter = _FORMATS[datatype]
    return list(struct.unpack(f"<{len(raw) // struct.calcsize(letter)}{letter}", raw))


def _rows(values: list[Any], images: int) -> list[list[Any]]:
    if not 0 < images <= _MOST_IMAGES or len(values) % images:
        raise ValueError(f"{len(values)} values for {images} images")
    width = len(values) // images
    return [values[row * width : (row + 1) * width] for row in range(images)]


def _answers(model: str, outputs: Mapping[str, list[list[Any]]], *, images: int) -> dict[str, tuple[TappedAnswer, ...]]:
    """The answers by classifier. An ensemble for several has outputs such as `cats.LABEL`."""
    by_classifier: dict[str, dict[str, list[list[Any]]]] = {}
    for name, rows in outputs.items():
        classifier, dot, output = name.rpartition(".")
        by_classifier.setdefault(classifier if dot else model.removesuffix("_full"), {})[output] = rows
    if not by_classifier:
        raise ValueError("an answer without an output")
    return {
        classifier: tuple(_served({name: rows[row] for name, rows in given.items()}) for row in range(images))
        for classifier, given in by_classifier.items()
    }


def _served(outputs: Mapping[str, list[Any]]) -> TappedAnswer:
    labels = scores = class_ids = None
    if "LABEL" in outputs:
        labels = tuple(text for text in map(_text, outputs["LABEL"]) if text)
    keep = len(labels) if labels is not None else None
    if "SCORE" in outputs:
        scores = tuple(float(score) for score in outputs["SCORE"][:keep])
    if "CLASS_ID" in outputs:
        class_ids = tuple(_int32(one) for one in outputs["CLASS_ID"][:keep])
    return TappedAnswer(
        labels,
        scores,
        class_ids,
        _int32(outputs["STATUS"][0]) if "STATUS" in outputs else None,
        _text(outputs["BUNDLE"][0]) if "BUNDLE" in outputs else None,
    )


def _text(value: Any) -> str:
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text.encode(errors="replace").decode()  # half a surrogate, which JSON can hold and SQLite cannot


def _int32(value: Any) -> int:
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{value} does not fit into INT32")
    return int(value)
