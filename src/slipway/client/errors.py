"""Why there is no answer.

SlipwayError
├── SpecError                an option, address or name is not allowed: nothing was sent
└── ClientError              there is no answer
    ├── ImageError           to this image: it cannot be read, or is nothing that can be sent
    ├── RequestError         to this request; another may be answered
    │   ├── DeadlineError    not in time
    │   └── OverloadedError  the server had too much to do, each time it was asked
    └── ServerError          to any request
        ├── GoneError        nobody listens, or the connection was lost
        ├── ModelError       the server has no such classifier ready
        └── ForbiddenError   the server keeps what was asked to those who have its key
"""

from slipway.errors import SlipwayError


class ClientError(SlipwayError):
    """There is no answer."""


class ImageError(ClientError):
    """An image that cannot be read, or is nothing that can be sent."""


class RequestError(ClientError):
    """A request that the server did not answer; another may be answered."""


class DeadlineError(RequestError):
    """A request that was not answered in time."""


class OverloadedError(RequestError):
    """A request that the server refused because it had too much to do."""


class ServerError(ClientError):
    """A server that answers no request of this kind."""


class GoneError(ServerError):
    """Nobody listens at the address, or the connection was lost."""


class ModelError(ServerError):
    """The server has no such classifier ready."""


class ForbiddenError(ServerError):
    """The server keeps what was asked to those who have its key."""
