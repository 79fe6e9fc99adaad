"""Find and start tritonserver, wait until it answers, stop it without a trace."""

from slipway.serving.server import Ports, Server, serve

__all__ = ["Ports", "Server", "serve"]
