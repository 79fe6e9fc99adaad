"""The part of Envoy's `envoy.data.tap.v3.TraceWrapper` that the journal reads; fields it does not know are passed over.

No package has Envoy's messages for Python, so these few are described here, with the field numbers of Envoy's own
proto files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_PACKAGE = "slipway.tap"
_BYTES, _BOOL, _INT32, _INT64, _MESSAGE = 12, 8, 5, 3, 11
_MESSAGES: Mapping[str, tuple[tuple[str, int, int, str, bool], ...]] = {
    "Time": (("seconds", 1, _INT64, "", False), ("nanos", 2, _INT32, "", False)),
    # Text is read as bytes: protobuf would refuse a file whose header is not UTF-8.
    "Header": (("key", 1, _BYTES, "", False), ("value", 2, _BYTES, "", False), ("raw_value", 3, _BYTES, "", False)),
    "Body": (
        ("as_bytes", 1, _BYTES, "", False),
        ("as_string", 2, _BYTES, "", False),
        ("truncated", 3, _BOOL, "", False),
    ),
    "Message": (
        ("headers", 1, _MESSAGE, "Header", True),
        ("body", 2, _MESSAGE, "Body", False),
        ("trailers", 3, _MESSAGE, "Header", True),
        ("headers_received_time", 4, _MESSAGE, "Time", False),
    ),
    "Buffered": (("request", 1, _MESSAGE, "Message", False), ("response", 2, _MESSAGE, "Message", False)),
    "Wrapper": (("http_buffered_trace", 1, _MESSAGE, "Buffered", False),),
}


@dataclass(frozen=True)
class Trace:
    """One request and its answer as Envoy tapped them. Names of headers are in lower case."""

    request_headers: Mapping[str, str]
    request_body: bytes
    response_headers: Mapping[str, str]
    response_body: bytes
    response_trailers: Mapping[str, str]
    truncated: bool
    """Whether a body is longer than the tap's buffer."""
    time_s: float | None
    """Unix time at which the request's headers arrived."""


def read_trace(content: bytes) -> Trace | None:
    """Read a tap file in the format PROTO_BINARY; None if it is not whole.

    The file is one message with its length in front, so every part of it but the whole is an error.
    """
    if not content:
        return None
    try:
        found = _wrapper().FromString(content)
    except DecodeError:
        return None
    if not found.HasField("http_buffered_trace"):
        return None
    request, response = found.http_buffered_trace.request, found.http_buffered_trace.response
    time = request.headers_received_time
    return Trace(
        _headers(request.headers),
        request.body.as_bytes or request.body.as_string,
        _headers(response.headers),
        response.body.as_bytes or response.body.as_string,
        _headers(response.trailers),
        request.body.truncated or response.body.truncated,
        time.seconds + time.nanos / 1e9 if request.HasField("headers_received_time") else None,
    )


def _headers(given: Any) -> dict[str, str]:
    return {
        header.key.decode("latin-1").lower(): (header.value or header.raw_value).decode("latin-1") for header in given
    }


@cache
def _wrapper() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="slipway/tap.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of, repeated in fields:
            added = message.field.add(name=field, number=number, type=kind, label=3 if repeated else 1)
            if of:
                added.type_name = f".{_PACKAGE}.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Wrapper"))
