"""The errors of the client, as a tree.

SlipwayError
├── SpecError                an option, address or name is invalid; nothing was sent
└── ClientError              there is no answer
    ├── ImageError           this image cannot be read, or cannot be sent
    ├── RequestError         this request was not answered; the next one may be
    │   ├── DeadlineError    it was not answered in time
    │   └── OverloadedError  the server rejected it for load, at every attempt
    └── ServerError          the server answers no request
        ├── GoneError        nothing listens at the address, or the connection was lost
        ├── ModelError       the server has no such classifier ready
        └── ForbiddenError   the server requires a key, or a gateway does not forward the request
"""

from slipway.errors import SlipwayError


class ClientError(SlipwayError):
    """The client got no answer."""


class ImageError(ClientError):
    """An image cannot be read, or cannot be sent."""


class RequestError(ClientError):
    """The server did not answer this request; the next one may succeed."""


class DeadlineError(RequestError):
    """A request was not answered in time."""


class OverloadedError(RequestError):
    """The server rejected a request because it is overloaded."""


class ServerError(ClientError):
    """The server answers no request of this kind."""


class GoneError(ServerError):
    """Nothing listens at the address, or the connection was lost."""


class ModelError(ServerError):
    """The server has no such classifier ready."""


class ForbiddenError(ServerError):
    """The server requires a key for this request, or a gateway does not forward it."""
