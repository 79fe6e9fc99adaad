"""Runs tritonserver on a repository: starts it, watches it, reloads it while it serves, and stops it cleanly."""

from slipway.serving.command import Ports
from slipway.serving.server import Server, serve

__all__ = ["Ports", "Server", "serve"]
