"""The present state: which classifiers answer, and the supervisor's metrics. Its thread writes, others read."""

from collections.abc import Mapping

from slipway.contract import MissingDependencyError

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge
except ImportError:
    raise MissingDependencyError("prometheus_client", extra="serve") from None


class Status:
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
        self._problems: dict[str, str] = {}

    def problems(self) -> dict[str, str]:
        """Classifier to the reason why it does not answer, or an empty text. Empty until the first start is over."""
        return dict(self._problems)

    def set_all(self, problems: Mapping[str, str]) -> None:
        """Replace the state of all classifiers."""
        self._ready.clear()
        self._seconds.clear()
        for name, problem in problems.items():
            self._ready.labels(name).set(not problem)
        self._problems = dict(problems)

    def set_one(self, classifier: str, problem: str, *, seconds: float) -> None:
        """Record that a classifier answered or failed a probe after `seconds`."""
        self._problems = {**self._problems, classifier: problem}
        self._ready.labels(classifier).set(not problem)
        self._seconds.labels(classifier).set(seconds)
