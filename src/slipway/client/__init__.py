"""The Python client: one typed interface to a served classifier, over gRPC and HTTP, with and without an event loop.

Example::

    with Client("grpc://127.0.0.1:8001", model="colours") as client:
        print(client.classify("image.jpg").label)
        for result in client.classify_many("folder"):
            print(result.source, result.label, result.error)
"""

from slipway.client.async_client import AsyncClient
from slipway.client.client import Client
from slipway.client.errors import (
    ClientError,
    DeadlineError,
    ForbiddenError,
    GoneError,
    ImageError,
    ModelError,
    OverloadedError,
    RequestError,
    ServerError,
)
from slipway.client.images import Source, find_images
from slipway.client.options import Options
from slipway.client.result import Candidate, Result

__all__ = [
    "AsyncClient",
    "Candidate",
    "Client",
    "ClientError",
    "DeadlineError",
    "ForbiddenError",
    "GoneError",
    "ImageError",
    "ModelError",
    "Options",
    "OverloadedError",
    "RequestError",
    "Result",
    "ServerError",
    "Source",
    "find_images",
]
