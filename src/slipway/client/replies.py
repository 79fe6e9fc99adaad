"""Turns a server's refusal into an error. Triton uses one code for several causes; its message tells them apart.

| cause | gRPC | HTTP | message of tritonserver 2.51 |
| --- | --- | --- | --- |
| overload | UNAVAILABLE | 503 | Exceeds maximum queue size · Request timeout expired |
| no admin key | UNAVAILABLE | 403 | This protocol (API) is restricted, expecting header '…' |
| unknown model | NOT_FOUND | 404 | Request for unknown model: '…' is not found |
| no key | UNAUTHENTICATED | 401 | of a gateway: the header slipway-key does not hold a team's key |
| not forwarded | PERMISSION_DENIED | 403 | of a gateway: the gateway forwards … alone |
| over a team's rate | RESOURCE_EXHAUSTED | 429 | of a gateway: the team is over its rate |
| no server | UNAVAILABLE | | failed to connect to all addresses · Socket closed (gRPC's own messages) |
| other certificate | UNAVAILABLE | | CERTIFICATE_VERIFY_FAILED · Hostname Verification Check |
| old certificate | UNAVAILABLE | | certificate has expired · certificate is not yet valid |
| no TLS | UNAVAILABLE | | WRONG_VERSION_NUMBER |
"""

from slipway.client.errors import (
    ClientError,
    DeadlineError,
    ForbiddenError,
    GoneError,
    ModelError,
    OverloadedError,
    RequestError,
    ServerError,
)
from slipway.client.options import Address
from slipway.contract.shared_rules import is_busy
from slipway.system.channel import not_triton, proxy_hint

_RESTRICTED = ("is restricted, expecting header",)
_OVER_RATE = "over its rate"
_NO_JSON = "in the client while decoding the response"
_NOT_TRITON = (_NO_JSON, "client received an empty response")
_GATEWAY = "the gateway "
_UNTRUSTED = ("certificate_verify_failed", "certificate verify failed", "hostname verification check failed")
_OUTDATED = ("certificate has expired", "certificate is not yet valid")
_WITHOUT_TLS = ("wrong_version_number", "wrong version number")
_NOT_READY = ("is not at ready state", "has no available versions", "stopped accepting", "server is stopping")


def refusal(code: str, said: str, *, address: Address) -> ClientError:
    """The error for a refusal.

    Args:
        code: the name of gRPC's status, such as `UNAVAILABLE`, or the number of HTTP's.
        said: the message of the server, or of the gRPC library where no server answered.
    """
    said = said.partition("\n")[0].strip()  # without the stack trace of a step that raised
    return (
        _of_another_server(code, said, address=address)
        or _of_gateway(code, said, address=address)
        or _of_triton(code, said, address=address)
    )


def _of_another_server(code: str, said: str, *, address: Address) -> ClientError | None:
    if code == "404" and _one_of(_NOT_TRITON, said):
        return ModelError(  # as a proxy may answer while it has no server
            f"{address} answered 404 to a V2 request, so it is probably not a tritonserver; give the HTTP port of one, "
            "http://host:8000"
        )
    if address.protocol == "grpc" and (remedy := not_triton(said)):
        return ServerError(f"no tritonserver answers at {address} ({said}); {remedy}")
    return None


def _of_gateway(code: str, said: str, *, address: Address) -> ClientError | None:
    """The error for a refusal of the gateway (docs/gateway.md), which stands before a tritonserver."""
    if code in ("UNAUTHENTICATED", "401"):
        return ForbiddenError(f"{address} requires the key of a team ({said}); give it as the option key")
    if code in ("PERMISSION_DENIED", "403") and said.startswith(_GATEWAY):
        return ForbiddenError(f"{address} does not forward this ({said})")
    if code in ("RESOURCE_EXHAUSTED", "429") and _OVER_RATE in said:
        return OverloadedError(f"{address} rejects this rate ({said}); send fewer requests, or ask for a higher rate")
    if code in ("UNAVAILABLE", "503") and said.startswith(_GATEWAY):
        return gone(said, address=address)
    return None


def _of_triton(code: str, said: str, *, address: Address) -> ClientError:
    if _NO_JSON in said:
        said = "not a tritonserver's message: a proxy or a gateway answers"
    unavailable = code in ("UNAVAILABLE", "503")
    if unavailable and is_busy(said):
        return OverloadedError(f"{address} is overloaded ({said}); reduce concurrency, or raise deadline_s")
    if code in ("UNAVAILABLE", "403") and _one_of(_RESTRICTED, said):
        return ForbiddenError(f"{address} requires its admin key for this ({said})")
    if code in ("NOT_FOUND", "404") or (unavailable and _one_of(_NOT_READY, said)):
        return ModelError(f"{address} does not serve this model ({said})")
    if code == "UNAVAILABLE":  # gRPC's own code for a missing connection
        return gone(said, address=address)
    if code == "DEADLINE_EXCEEDED":
        return late(address=address)
    return RequestError(f"{address} did not answer: {said} ({code})")


def _one_of(marks: tuple[str, ...], said: str) -> bool:
    return any(mark in said.lower() for mark in marks)


def gone(said: str, *, address: Address) -> ServerError:
    if _one_of(_OUTDATED, said):
        return ServerError(
            f"the certificate of {address} has ended, or has not begun ({said}); its owner has to replace it "
            "(docs/keys.md), unless this machine's clock is wrong"
        )
    if _one_of(_WITHOUT_TLS, said):
        return ServerError(
            f"{address} answers without TLS ({said}); give the port of a gateway with TLS, or "
            f"{address.protocol}://{address.host_port}"
        )
    if _one_of(_UNTRUSTED, said):
        return ServerError(
            f"the certificate of {address} is not trusted ({said}); give the PEM file of its authority as certificate, "
            "and the host by a name that the certificate has"
        )
    return GoneError(
        f"no tritonserver answers at {address} ({said}); start one, or set reconnect_s to wait for a restart"
        f"{_proxy(address)}"
    )


def late(*, address: Address) -> DeadlineError:
    return DeadlineError(f"{address} did not answer in time; raise deadline_s, or reduce concurrency{_proxy(address)}")


def _proxy(address: Address) -> str:
    return proxy_hint(address.host_port) if address.protocol == "grpc" else ""  # HTTP uses no proxy
