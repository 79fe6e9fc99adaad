"""Asks `<name>_full` again for tapped images, at the server that has answered."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.client import Client, Options, Result
from slipway.client.errors import DeadlineError, GoneError, OverloadedError
from slipway.errors import SlipwayError, SpecError
from slipway.operations.journal.settings import SERVERS, Servers
from slipway.serving.command import HOST

DEADLINE_S = 10.0
GIVE_UP_S = 600.0
"""Seconds after which a request is recorded without a replay, because its server or classifier is gone."""
MOST_LOSSES = 3
"""Connections that one request may cost before it is recorded without a replay."""
WAITS = (OverloadedError, DeadlineError, GoneError)
"""What passes; another error is that of the image."""


class NotYetError(Exception):
    """The server cannot be asked now; the tap file stays. `arm` is the server that is gone, if it is."""

    def __init__(self, said: str, *, arm: str | None = None) -> None:
        super().__init__(said)
        self.arm = arm


@dataclass
class _Tries:
    since_s: float
    losses: int = 0
    """Connections that were lost while the server answered others."""


class Replayer:
    """Connections to the servers behind a gateway. Use it with `with`.

    Args:
        ports: gives the servers' gRPC ports by arm; asked again for each request, as a gateway may be changed.
    """

    def __init__(self, ports: Callable[[], Mapping[str, int]]) -> None:
        self._ports = ports
        self._clients: dict[tuple[int, str], Client] = {}
        self._tries: dict[str, _Tries] = {}
        self._alive: set[str] = set()

    def __enter__(self) -> "Replayer":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()

    def losses(self, request: str) -> int:
        """How often a request lost its server. Such a request is asked after the others."""
        return self._tries[request].losses if request in self._tries else 0

    def forget(self, request: str) -> None:
        self._tries.pop(request, None)

    def ask(
        self, request: str, classifier: str, images: Sequence[bytes], *, arm: str, bundles: Sequence[str | None]
    ) -> Sequence[Result | None]:
        """The answer for each image; None where there will be none. Another arm is asked if its bundle answered.

        Raises:
            NotYetError: the server is gone or busy.
        """
        ports = self._ports()
        arms = sorted(ports, key=lambda one: one != arm)
        first: Sequence[Result | None] = [None] * len(images)
        for number, one in enumerate(arms):
            try:
                answers = self._ask_arm(request, classifier, images, arm=one, port=ports[one])
            except NotYetError:
                if number:  # the first arm has answered, with another bundle
                    break
                raise
            first = first if number else answers
            if all(a is None or b is None or a.bundle == b for a, b in zip(answers, bundles, strict=True)):
                return answers
        return first

    def _ask_arm(
        self, request: str, classifier: str, images: Sequence[bytes], *, arm: str, port: int
    ) -> Sequence[Result | None]:
        tries = self._tries.setdefault(request, _Tries(time.monotonic()))
        if tries.losses >= MOST_LOSSES:
            return [None] * len(images)
        try:
            client = self._client(port, classifier)
            results = list(client.classify_many(images, full=True, request_id=f"journal-{request}"))
            if waits := next((result.error for result in results if isinstance(result.error, WAITS)), None):
                raise waits
        except SlipwayError as error:
            self._drop(port, classifier)  # it knows the limits of a model that may be another now
            lost = isinstance(error, GoneError)
            if lost:
                tries.losses += arm in self._alive
                self._alive.discard(arm)
            if time.monotonic() - tries.since_s > GIVE_UP_S:
                return [None] * len(images)
            raise NotYetError(str(error), arm=arm if lost else None) from None
        self._alive.add(arm)
        return [None if result.error is not None else result for result in results]

    def _client(self, port: int, classifier: str) -> Client:
        if (port, classifier) not in self._clients:
            options = Options(deadline_s=DEADLINE_S, concurrency=1)
            self._clients[port, classifier] = Client(f"grpc://{HOST}:{port}", model=classifier, options=options)
        return self._clients[port, classifier]

    def _drop(self, port: int, classifier: str) -> None:
        if client := self._clients.pop((port, classifier), None):
            client.close()


def ports_behind(folder: Path, *, otherwise: Mapping[str, int]) -> Mapping[str, int]:
    """The servers of the gateway that keeps its files in `folder`; `otherwise` if it has not run yet."""
    path = folder / SERVERS
    try:
        return Servers.read(path).grpc if path.exists() else otherwise
    except SpecError:
        return otherwise
