"""Runs tritonserver on a repository: starts it, watches it, reloads it while it serves, and stops it cleanly."""

from typing import TYPE_CHECKING, Any

from slipway.serving.ports import Ports

if TYPE_CHECKING:
    from slipway.serving.server import Server, serve

__all__ = ["Ports", "Server", "serve"]


def __getattr__(name: str) -> Any:
    """The rest of `__all__` once it is asked for: `slipway reload` needs no Triton client, which takes 0.3 s."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from slipway.serving import server

    return getattr(server, name)
