"""What is so now: which classifier answers, and the supervisor's metrics. Its thread writes, others read."""

from collections.abc import Mapping

from slipway.contract import MissingDependencyError

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge
except ImportError:
    raise MissingDependencyError("prometheus_client", extra="serve") from None


class Status:
    """State of every classifier, and counters since the supervisor's start."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.starts = Counter("slipway_server_starts", "Times that tritonserver was started", registry=self.registry)
        self.repairs = Counter("slipway_step_repairs", "Times that a step was loaded again", registry=self.registry)
        self.reloads = Counter("slipway_reloads", "Asked for, by result", ["result"], registry=self.registry)
        self.messages_lost = Gauge("slipway_messages_lost", "Events that nobody read in time", registry=self.registry)
        self.seconds_to_ready = Gauge("slipway_seconds_to_ready", "Of the last start", registry=self.registry)
        self._ready = Gauge(
            "slipway_ready", "1 where the last image was answered", ["classifier"], registry=self.registry
        )
        self._seconds = Gauge("slipway_probe_seconds", "Of the last image", ["classifier"], registry=self.registry)
        self._problems: dict[str, str] = {}

    def problems(self) -> dict[str, str]:
        """Every classifier, with why it gives no answer or an empty text. None before the first start is through."""
        return dict(self._problems)

    def set_all(self, problems: Mapping[str, str]) -> None:
        """These are the classifiers."""
        self._ready.clear()
        self._seconds.clear()
        for name, problem in problems.items():
            self._ready.labels(name).set(not problem)
        self._problems = dict(problems)

    def set_one(self, classifier: str, problem: str, *, seconds: float) -> None:
        """One was asked, and answered or failed after `seconds`."""
        self._problems = {**self._problems, classifier: problem}
        self._ready.labels(classifier).set(not problem)
        self._seconds.labels(classifier).set(seconds)
