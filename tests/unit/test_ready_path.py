"""Whether a server is ready, for all its classifiers and for some."""

import urllib.error
import urllib.request

from slipway.serving import Ports
from slipway.serving.endpoint import endpoint
from slipway.serving.status import Status


def test_the_vital_classifiers_alone_decide_where_they_are_named() -> None:
    status, port = Status(), Ports.free().http
    status.set_all({"a": "", "b": "", "c": "lost"}, alone=())
    expected = {
        "/ready": 503,
        "/ready/a": 200,
        "/ready/c": 503,
        "/ready?only=a,b": 200,
        "/ready?only=a,c": 503,
        "/ready?only=a,nobody": 404,
        "/ready?only=": 404,
        "/ready/a/b": 404,
    }
    found = {}
    with endpoint(port, status=status, reload=lambda: (False, ""), key="key"):
        for path in expected:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                    found[path] = answer.status
            except urllib.error.HTTPError as error:
                found[path] = error.code
                error.close()
    assert found == expected
