"""Asks a running supervisor to read its repository again."""

import http.client
import json

from slipway.contract import ServingError
from slipway.serving.command import HOST
from slipway.serving.endpoint import KEY_HEADER
from slipway.serving.key import find_key


def request_reload(port: int, *, timeout_s: float) -> str:
    """Make the supervisor on `port` serve its repository as it is now; returns what changed.

    Raises:
        ServingError: it does not answer, this user has not its key, or the repository cannot be served.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("POST", "/reload", headers={KEY_HEADER: find_key(port)})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(f"{HOST}:{port} (--status-port) does not answer: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise ServingError(answer.get("message") or answer.get("error"))
    return str(answer["message"])
