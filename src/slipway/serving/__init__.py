"""tritonserver on a repository: started, watched, changed while it runs, and stopped without a trace."""

from slipway.serving.command import Ports
from slipway.serving.server import Server, serve

__all__ = ["Ports", "Server", "serve"]
