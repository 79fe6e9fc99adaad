"""How each gRPC client of ours opens its channel: no limit to a message, and no proxy to the own machine."""

import ipaddress
import os

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The variables that give gRPC its proxy, the first of them that is set; in capitals it does not read them."""


def is_loopback(host_port: str) -> bool:
    """Whether the address is this machine's by its words: `localhost`, 127.0.0.0/8 or [::1]; nothing is looked up."""
    host = host_port.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def channel_options(host_port: str) -> list[tuple[str, int]]:
    """The options of a channel: a message of any size, and no proxy of the environment where the server is here."""
    return [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", int(not is_loopback(host_port))),
    ]


def proxy_hint(host_port: str) -> str:
    """What to add to an error of gRPC where a proxy may be the reason; else nothing."""
    found = next((name for name in PROXIES if os.environ.get(name)), None)
    if found is None or is_loopback(host_port):
        return ""
    return f"; {found} is set, and gRPC goes through that proxy: add the host to no_proxy if it should not"
