"""An HTTP endpoint on 127.0.0.1 for Prometheus, and for a page if there is one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from slipway.errors import ServingError, requiring
from slipway.serving.endpoint import QuietHandler, QuietServer
from slipway.serving.ports import HOST

with requiring("prometheus_client", extra="operate"):
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.core import Metric

HOSTS = (HOST, "localhost")
TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"


class Collects(Protocol):
    """A collector that prometheus_client asks for metrics at each request."""

    def collect(self) -> Iterator[Metric]: ...


@contextmanager
def endpoint(
    port: int, metrics: Collects, *, setting: str, say: Callable[[str], None], page: Callable[[], str] | None = None
) -> Iterator[None]:
    """Answer GET /metrics on 127.0.0.1 for the duration of the block.

    A browser is refused that asks for another host: any web page may let its own name lead to 127.0.0.1.

    Args:
        setting: the key of gateway.yaml that has the port.
        say: takes a sentence if an answer cannot be made, which is then 500; one that lasts is said once.
        page: the HTML of GET /; without it, / is not found.

    Raises:
        ServingError: the port is in use.
    """
    registry = CollectorRegistry()
    registry.register(metrics)

    def answer(path: str) -> tuple[int, str, bytes]:
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
        if path == "/" and page is not None:
            return 200, HTML, page().encode()
        return 404, TEXT, b"ask for /metrics\n" if page is None else b"ask for / or /metrics\n"

    class Handler(QuietHandler):
        said = ""

        def do_GET(self) -> None:
            self.send(*self._answer())

        def _answer(self) -> tuple[int, str, bytes]:
            if self.headers.get("Host", HOST).partition(":")[0].lower() not in HOSTS:
                return 403, TEXT, f"ask for {HOST} or localhost\n".encode()
            try:
                return answer(self.path)
            except Exception as error:
                sentence = f"alert: {setting}: {self.path} cannot be answered: {type(error).__name__}: {error}"
                if Handler.said != sentence:
                    Handler.said = sentence
                    say(sentence)
                return 500, TEXT, b"cannot be answered; the process says why\n"

    try:
        server = QuietServer((HOST, port), Handler)
    except OSError as error:
        raise ServingError(
            f"{setting}: {HOST}:{port} cannot be used: {error.strerror}; end the process that listens there, or choose "
            "another"
        ) from None
    with server.answering():
        yield
