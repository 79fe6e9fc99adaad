"""What a server's refusal means. Triton gives one code to several things: its words tell them apart.

| refused for | gRPC | HTTP | words of tritonserver 2.51 |
| --- | --- | --- | --- |
| load | UNAVAILABLE | 503 | Exceeds maximum queue size · Request timeout expired |
| the key | UNAVAILABLE | 403 | This protocol (API) is restricted, expecting header '…' |
| the model | NOT_FOUND | 404 | Request for unknown model: '…' is not found |
| nobody there | UNAVAILABLE | | failed to connect to all addresses · Socket closed: gRPC's own |
"""

from slipway.client.errors import (
    ClientError,
    DeadlineError,
    ForbiddenError,
    GoneError,
    ModelError,
    OverloadedError,
    RequestError,
)
from slipway.client.options import Address
from slipway.contract.selection import is_busy
from slipway.system.channel import proxy_hint

_RESTRICTED = ("is restricted, expecting header",)
_NO_JSON = "in the client while decoding the response"
_NOT_READY = ("is not at ready state", "has no available versions", "stopped accepting", "server is stopping")


def refusal(code: str, said: str, *, address: Address) -> ClientError:
    """The error that a refusal is.

    Args:
        code: gRPC's name of it, such as `UNAVAILABLE`, or the number of HTTP's status.
        said: the server's words, or the gRPC library's where no server answered.
    """
    said = said.partition("\n")[0].strip()  # without the stack trace of a step that raised
    if _NO_JSON in said:
        said = "no words of a tritonserver: a proxy or a gateway answers"
    unavailable = code in ("UNAVAILABLE", "503")
    if unavailable and is_busy(said):
        return OverloadedError(f"{address} has too much to do ({said}); ask less at once, or give it more time")
    if code in ("UNAVAILABLE", "403") and _one_of(_RESTRICTED, said):
        return ForbiddenError(f"{address} keeps this to those who have its key ({said})")
    if code in ("NOT_FOUND", "404") or (unavailable and _one_of(_NOT_READY, said)):
        return ModelError(f"{address} does not serve it ({said})")
    if code == "UNAVAILABLE":  # gRPC's own word for a connection that is not there
        return gone(said, address=address)
    if code == "DEADLINE_EXCEEDED":
        return late(address=address)
    return RequestError(f"{address} did not answer: {said} ({code})")


def _one_of(marks: tuple[str, ...], said: str) -> bool:
    return any(mark in said.lower() for mark in marks)


def gone(said: str, *, address: Address) -> GoneError:
    return GoneError(
        f"no tritonserver answers at {address} ({said}); start one, or give reconnect_s to wait for one that restarts"
        f"{_proxy(address)}"
    )


def late(*, address: Address) -> DeadlineError:
    return DeadlineError(
        f"{address} did not answer in time; give deadline_s more, or ask less at once{_proxy(address)}"
    )


def _proxy(address: Address) -> str:
    return proxy_hint(address.host_port) if address.protocol == "grpc" else ""  # HTTP goes through none
