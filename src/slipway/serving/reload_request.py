"""Asks a running supervisor to read its repository again."""

import http.client
import json

from slipway.errors import ServingError
from slipway.serving.key import HEADER, find_key
from slipway.serving.ports import HOST
from slipway.system.timed_http import TimedConnection


def request_reload(port: int, *, timeout_s: float, with_gateway: bool = False) -> str:
    """Make the supervisor on `port` serve its repository as it is now; returns what changed.

    Args:
        with_gateway: whether it is an error too that the gateway in front did not take up its settings. Otherwise the
            returned text says so.

    Raises:
        ServingError: it does not answer as a supervisor, this user has not its key, or the repository cannot be served.
    """
    connection = TimedConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("POST", "/reload", headers={HEADER: find_key(port)})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(f"{HOST}:{port} (--status-port) does not answer: {error}") from None
    finally:
        connection.close()
    try:
        answer = json.loads(content)
        said = str(answer.get("message") or answer["error"])
    except (ValueError, KeyError, AttributeError):
        raise ServingError(
            f"{HOST}:{port} (--status-port) is not a supervisor's: its answer to POST /reload, of status "
            f"{response.status}, has no message; give the --status-port of slipway serve"
        ) from None
    if response.status != 200 or (with_gateway and answer.get("gateway_done") is False):
        raise ServingError(said)
    return said
