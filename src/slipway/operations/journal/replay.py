"""Asks `<name>_full` again for tapped images, at the server that has answered, or at another with its bundle."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slipway.client import Client, Options, Result
from slipway.client.errors import DeadlineError, GoneError, OverloadedError
from slipway.errors import SlipwayError, SpecError
from slipway.operations.journal.settings import SERVERS, ArmPorts
from slipway.serving.ports import HOST

DEADLINE_S = 10.0
GIVE_UP_S = 600.0
"""Seconds after which a request is recorded without a replay, because its server or classifier is gone."""
AGAIN_S = 2.0
"""Seconds for which a server that is gone is not asked again, and for which the bundle of an answer counts as known."""
MOST_LOSSES = 3
"""Connections that one request may cost before it is recorded without a replay."""
WAITS = (OverloadedError, DeadlineError, GoneError)
"""Temporary errors; any other error belongs to the image."""
_EVERY = ""
"""Stands for every classifier of a server."""


class NotYetError(Exception):
    """The server cannot be asked now; the tap file stays."""


@dataclass
class _Tries:
    """Attempts for one request."""

    since_s: float
    vain: int = 0
    """Times that it could not be asked, or got no answer."""
    losses: int = 0
    """Connections that were lost while the server answered others."""


@dataclass
class _Server:
    """State of one server, by the monotonic clock."""

    has_answered: bool = False
    """Whether it has answered since it last failed."""
    gone_since_s: float | None = None
    quiet: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Time until which a classifier is not asked, and the reason."""
    bundles: dict[str, tuple[str | None, float]] = field(default_factory=dict)
    """The bundle of a classifier's last answer, and when it came."""

    def said_quiet(self, classifier: str, now_s: float) -> str | None:
        """Return the reason why a classifier is not asked now; None if it may be."""
        for name in (classifier, _EVERY):
            until_s, said = self.quiet.get(name, (now_s, ""))
            if now_s < until_s:
                return said
        return None

    def failed(self, classifier: str, error: SlipwayError, *, began_s: float, now_s: float) -> None:
        """Be quiet for as long as it took: all of it if it is gone, or has not answered since it last failed."""
        is_gone = isinstance(error, GoneError)
        name = classifier if self.has_answered and not is_gone else _EVERY
        self.quiet[name] = (now_s + max(now_s - began_s, AGAIN_S if is_gone else 0.0), str(error))
        if isinstance(error, WAITS):
            self.has_answered = False
        if is_gone and self.gone_since_s is None:
            self.gone_since_s = now_s

    def answered(self, classifier: str, answers: Sequence[Result | None], now_s: float) -> None:
        self.has_answered, self.gone_since_s = True, None
        if found := next((one for one in answers if one is not None), None):
            self.bundles[classifier] = (found.bundle, now_s)

    def may_have(self, classifier: str, wanted: set[str | None], now_s: float) -> bool:
        """Whether it may serve one of these bundles; no if it has just answered with another one."""
        bundle, at_s = self.bundles.get(classifier, (None, now_s - AGAIN_S))
        return bool(wanted) and (bundle in wanted or now_s - at_s >= AGAIN_S)


class Replayer:
    """Connections to the servers behind a gateway. Use it with `with`.

    A server that is gone or slow holds up its own requests alone: it is asked for half of the time at most.

    Args:
        ports: gives the servers' gRPC ports by arm; asked again for each request, as a gateway may be changed.
    """

    def __init__(self, ports: Callable[[], Mapping[str, int]]) -> None:
        self._ports = ports
        self._clients: dict[tuple[int, str], Client] = {}
        self._tries: dict[str, _Tries] = {}
        self._servers: dict[int, _Server] = {}

    def __enter__(self) -> "Replayer":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()

    def order(self, request: str) -> tuple[int, int]:
        """Return how often a request was tried in vain, and how often it lost its server. Requests with fewer tries
        come first."""
        tries = self._tries.get(request)
        return (tries.vain, tries.losses) if tries else (0, 0)

    def forget_others(self, requests: Iterable[str]) -> None:
        there = set(requests)
        self._tries = {request: tries for request, tries in self._tries.items() if request in there}

    def ask(
        self, request: str, classifier: str, images: Sequence[bytes], *, arm: str, bundles: Sequence[str | None]
    ) -> Sequence[Result | None]:
        """The answer for each image; None where there will be none.

        Where the arm does not answer, or answers with another bundle than the served one, another arm that has the
        served bundle is asked: stable answers in place of a candidate that is not ready, and serves its bundle later.

        Args:
            bundles: served with each image; None where the client did not ask.

        Raises:
            NotYetError: the server is gone or busy, and none that is known to have its bundle answers.
        """
        nothing: Sequence[Result | None] = [None] * len(images)
        tries = self._tries.setdefault(request, _Tries(time.monotonic()))
        if tries.losses >= MOST_LOSSES:
            return nothing
        ports = self._ports()
        own, *others = [ports[one] for one in sorted(ports, key=lambda one: one != arm)]
        wanted = set(bundles) - {None}
        first: Sequence[Result | None] | None = None
        silent: dict[int, NotYetError] = {}
        for port in (own, *others):
            if port != own and not self._server(port).may_have(classifier, wanted, time.monotonic()):
                continue
            try:
                answers = self._ask_port(request, classifier, images, port=port)
            except NotYetError as error:
                silent[port] = error
                continue
            if _are_by(answers, bundles, otherwise=port == own):
                return answers
            first = answers if port == own else first
        if first is not None:
            return first
        if self._are_given_up(silent, tries):
            return nothing
        tries.vain += 1
        raise silent[own]

    def _are_given_up(self, ports: Iterable[int], tries: _Tries) -> bool:
        """Whether every server that may have the bundle is gone for too long, or the request has waited so long."""
        now_s = time.monotonic()
        gone_s = [self._server(port).gone_since_s for port in ports]
        return now_s - tries.since_s > GIVE_UP_S or all(one is not None and now_s - one > GIVE_UP_S for one in gone_s)

    def _server(self, port: int) -> _Server:
        return self._servers.setdefault(port, _Server())

    def _ask_port(
        self, request: str, classifier: str, images: Sequence[bytes], *, port: int
    ) -> Sequence[Result | None]:
        server, began_s = self._server(port), time.monotonic()
        if (said := server.said_quiet(classifier, began_s)) is not None:
            raise NotYetError(said)
        answers: list[Result | None] = []
        try:
            client = self._client(port, classifier)
            for result in client.classify_many(images, full=True, request_id=f"journal-{request}"):
                if isinstance(result.error, WAITS):
                    raise result.error  # the images after it may take as long
                answers.append(None if result.error is not None else result)
        except SlipwayError as error:
            if former := self._clients.pop((port, classifier), None):
                former.close()  # it knows the limits of a model that may be another now
            self._tries[request].losses += server.has_answered and isinstance(error, GoneError)
            server.failed(classifier, error, began_s=began_s, now_s=time.monotonic())
            raise NotYetError(str(error)) from None
        server.answered(classifier, answers, time.monotonic())
        return answers

    def _client(self, port: int, classifier: str) -> Client:
        if (port, classifier) not in self._clients:
            options = Options(deadline_s=DEADLINE_S, concurrency=1)
            self._clients[port, classifier] = Client(f"grpc://{HOST}:{port}", model=classifier, options=options)
        return self._clients[port, classifier]


def _are_by(answers: Sequence[Result | None], bundles: Sequence[str | None], *, otherwise: bool) -> bool:
    """Whether all answers are by the served bundle; `otherwise` where no answer or no bundle tells."""
    pairs = [(answer.bundle, bundle) for answer, bundle in zip(answers, bundles, strict=True) if answer and bundle]
    return all(one == served for one, served in pairs) if pairs else otherwise


def ports_behind(folder: Path, *, otherwise: Mapping[str, int]) -> Mapping[str, int]:
    """The servers of the gateway that keeps its files in `folder`; `otherwise` if it has not run yet."""
    path = folder / SERVERS
    try:
        return ArmPorts.read(path).grpc if path.exists() else otherwise
    except SpecError:
        return otherwise
