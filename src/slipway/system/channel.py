"""The options of all gRPC channels of Slipway: no limit to a message, and no proxy to the same machine."""

import ipaddress
import os

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The variables from which gRPC takes its proxy, in this order; it does not read them in capitals."""


def is_loopback(host_port: str) -> bool:
    """Whether the address is literally this machine's (`localhost`, 127.0.0.0/8 or [::1]); nothing is resolved."""
    host = host_port.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def channel_options(host_port: str) -> list[tuple[str, int]]:
    """The options of a channel: messages of any size, and no proxy if the server is on this machine."""
    return [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", int(not is_loopback(host_port))),
    ]


def not_triton(said: str) -> str:
    """Explain gRPC's message `said` if it shows a server that is not a tritonserver, with the remedy; otherwise return
    an empty text."""
    if "http2 header with status: 404" in said:
        found = "answered 404 to a V2 request"
    elif "Failed parsing HTTP/2" in said:
        found = "does not speak gRPC"
    else:
        return ""
    return f"the server there {found}, so it is probably not a tritonserver; give the gRPC port of one, host:8001"


def proxy_hint(host_port: str) -> str:
    """A hint for an error of gRPC that a proxy may have caused; otherwise empty."""
    found = next((name for name in PROXIES if os.environ.get(name)), None)
    if found is None or is_loopback(host_port):
        return ""
    return f"; {found} is set, and gRPC goes through that proxy: add the host to no_proxy if it should not"
