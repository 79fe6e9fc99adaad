"""The present state: which classifiers answer, and the supervisor's metrics. Its thread writes, others read."""

from collections.abc import Callable, Collection, Mapping

from slipway.errors import requiring

with requiring("prometheus_client", extra="serve"):
    from prometheus_client import CollectorRegistry, Counter, Gauge


class ServingStatus:
    """The state of every classifier, and counters since the start of the supervisor."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.starts = Counter("slipway_server_starts", "Number of starts of tritonserver", registry=self.registry)
        self.repairs = Counter("slipway_step_repairs", "Number of steps that were loaded again", registry=self.registry)
        self.reloads = Counter(
            "slipway_reloads", "Number of reload requests, by result", ["result"], registry=self.registry
        )
        self.messages_lost = Gauge(
            "slipway_messages_lost", "Number of events that nobody read in time", registry=self.registry
        )
        self.seconds_to_ready = Gauge("slipway_seconds_to_ready", "Duration of the last start", registry=self.registry)
        self._ready = Gauge("slipway_ready", "1 if the last probe was answered", ["classifier"], registry=self.registry)
        self._seconds = Gauge(
            "slipway_probe_seconds", "Duration of the last probe", ["classifier"], registry=self.registry
        )
        self.turn_seconds = Gauge(
            "slipway_probe_turn_seconds", "Time in which each classifier is probed once", registry=self.registry
        )
        self._problems: dict[str, str] = {}
        self._alone: frozenset[str] = frozenset()
        self.turn_s = 0.0
        """Seconds in which each classifier is probed once; 0 until the first start is over."""

    def watch_gateway(self, is_ready: Callable[[], bool]) -> None:
        """Publish whether the gateway listens."""
        gauge = Gauge("slipway_gateway_ready", "1 if the gateway listens", registry=self.registry)
        gauge.set_function(is_ready)

    def problems(self) -> dict[str, str]:
        """Classifier to the reason why it does not answer, or an empty text. Empty until the first start is over."""
        return dict(self._problems)

    def is_ready(self) -> bool:
        """Whether everything answers, but for heads that are broken while their group answers: a head is one of many,
        and no reason to keep all requests away."""
        problems = self._problems
        return bool(problems) and not any(problem for name, problem in problems.items() if name not in self._alone)

    def set_all(self, problems: Mapping[str, str], *, alone: Collection[str]) -> None:
        """Replace the state of all classifiers; `alone` are heads that are broken while their group answers."""
        self._ready.clear()
        self._seconds.clear()
        self._problems = {}
        self.set_some(problems, alone=alone)

    def set_some(self, problems: Mapping[str, str], *, alone: Collection[str]) -> None:
        """Replace the state of some classifiers."""
        self._problems, self._alone = {**self._problems, **problems}, frozenset(alone)
        for name, problem in problems.items():
            self._ready.labels(name).set(not problem)

    def set_seconds(self, classifier: str, seconds: float) -> None:
        """Record that a classifier answered or failed a probe after `seconds`."""
        self._seconds.labels(classifier).set(seconds)

    def set_turn(self, seconds: float) -> None:
        """Record in which time each classifier is probed once."""
        self.turn_s = round(seconds, 1)
        self.turn_seconds.set(seconds)
