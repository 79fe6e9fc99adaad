"""Latency of each ensemble at the gateway in the last minutes: what its histograms have gained meanwhile."""

import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass

from slipway.contract.spec import LatencyGate
from slipway.errors import ServingError
from slipway.operations.gateway.access_logs import LATENCY, SCOPE
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release.metrics import fetch, samples
from slipway.operations.watch.facts import GatewayLatency

AGAIN_S, WAIT_S = 10.0, 1.0
RECENT_S = 600.0
"""The latency is that of this time, or of the time since the first reading if that is less."""
_NAME = f"envoy_{SCOPE}_{LATENCY}"


@dataclass(frozen=True)
class Counted:
    """Requests of an ensemble since the gateway started, both arms together."""

    requests: int
    within: dict[float, int]
    """Requests that took at most so many ms, by the edges of the histogram's buckets."""

    def since(self, before: "Counted") -> "Counted":
        within = {edge: count - before.within.get(edge, 0) for edge, count in self.within.items()}
        return Counted(self.requests - before.requests, within)


NONE = Counted(0, {})


class LatencyReader:
    """Asks the gateway in a thread of its own, so that one that answers slowly, or without an end, delays no look."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._thread: threading.Thread | None = None
        self._asked_s = -AGAIN_S
        self._found: dict[str, GatewayLatency] = {}
        self._readings: deque[tuple[float, dict[str, Counted]]] = deque()

    def latest(self) -> dict[str, GatewayLatency]:
        """The newest answer; empty if the gateway does not answer. It waits for a new one for a second at most."""
        is_asking = self._thread is not None and self._thread.is_alive()
        if not is_asking and time.monotonic() - self._asked_s >= AGAIN_S:
            self._asked_s = time.monotonic()
            self._found = {}  # unknown until it is answered, however the thread ends
            self._thread = threading.Thread(target=self._ask, daemon=True)
            self._thread.start()
            self._thread.join(WAIT_S)
        return self._found

    def _ask(self) -> None:
        now = read_counts(self._settings)
        if not now:
            return
        read_s, kept = time.monotonic(), self._readings
        if kept and any(now.get(name, NONE).requests < one.requests for name, one in kept[-1][1].items()):
            kept.clear()  # the gateway was started again
        while kept and kept[0][0] < read_s - RECENT_S - AGAIN_S:
            kept.popleft()
        since_s, before = kept[0] if kept else (None, dict[str, Counted]())
        kept.append((read_s, now))
        self._found = {
            name: latency_of(
                one.since(before.get(name, NONE)),
                budget_ms=self._settings.all_budgets_ms.get(name),
                seconds=None if since_s is None else read_s - since_s,
            )
            for name, one in now.items()
        }


def read_counts(settings: GatewaySettings) -> dict[str, Counted]:
    """The counts of each ensemble that was asked.

    They are empty if the gateway does not answer, or not as Envoy's histograms are here: the page and the status say
    that the latency is unknown.
    """
    try:
        return counts_of(fetch(settings, rf"^{SCOPE}\.{LATENCY}"))
    except (ServingError, KeyError, ValueError, ArithmeticError):
        return {}


def counts_of(text: str) -> dict[str, Counted]:
    """The counts in a text of metrics; histograms of both arms are merged."""
    within: defaultdict[str, defaultdict[float, int]] = defaultdict(lambda: defaultdict(int))
    requests: defaultdict[str, int] = defaultdict(int)
    for one in samples(text):
        model = one.labels.get("model", "")
        if one.name == f"{_NAME}_count":
            requests[model] += round(one.value)
        elif one.name == f"{_NAME}_bucket" and one.labels["le"] != "+Inf":
            within[model][float(one.labels["le"]) / 1000] += round(one.value)
    return {model: Counted(total, dict(within[model])) for model, total in requests.items()}


def latency_of(counted: Counted, *, budget_ms: float | None, seconds: float | None) -> GatewayLatency:
    """The latency of these requests.

    Args:
        budget_ms: the latency budget; None for the default.
        seconds: in which they came; None for all since the gateway started.
    """
    counted_at_ms = LatencyGate().p99_ms if budget_ms is None else budget_ms
    within = counted.within.get(counted_at_ms)
    return GatewayLatency(
        requests=counted.requests,
        seconds=seconds,
        p50_ms=_percentile(counted, 0.50),
        p99_ms=_percentile(counted, 0.99),
        budget_ms=counted_at_ms,
        over_budget=None if within is None else max(0, counted.requests - within),
        is_default_budget=budget_ms is None,
    )


def _percentile(counted: Counted, share: float) -> float | None:
    """Upper edge of the bucket that holds it; None without a request, and beyond the last edge."""
    least = share * counted.requests
    return next((edge for edge, count in sorted(counted.within.items()) if counted.requests and count >= least), None)
