"""Latency of each ensemble at the gateway, from the histograms that the gateway keeps since it started."""

import threading
import time
from collections import defaultdict

from slipway.contract.spec import LatencyGate
from slipway.errors import ServingError
from slipway.operations.gateway.access_logs import LATENCY, SCOPE
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release.metrics import fetch, samples
from slipway.operations.watch.facts import Latency

AGAIN_S, WAIT_S = 10.0, 1.0
_NAME = f"envoy_{SCOPE}_{LATENCY}"


class LatencyReader:
    """Asks the gateway in a thread of its own, so that one that answers slowly, or without an end, delays no look."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._thread: threading.Thread | None = None
        self._asked_s = -AGAIN_S
        self._found: dict[str, Latency] = {}

    def latest(self) -> dict[str, Latency]:
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
        self._found = read_latency(self._settings)


def read_latency(settings: GatewaySettings) -> dict[str, Latency]:
    """The latency of each ensemble that was asked, both arms together.

    It is empty if the gateway does not answer, or not as Envoy's histograms are here: the page and the status say that
    the latency is unknown.
    """
    try:
        return latency_of(fetch(settings, rf"^{SCOPE}\.{LATENCY}"), settings)
    except (ServingError, KeyError, ValueError, ArithmeticError):
        return {}


def latency_of(text: str, settings: GatewaySettings) -> dict[str, Latency]:
    """The latency in a text of metrics; histograms of both arms are merged."""
    edges: defaultdict[str, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
    requests: defaultdict[str, float] = defaultdict(float)
    for one in samples(text):
        model = one.labels.get("model", "")
        if one.name == f"{_NAME}_count":
            requests[model] += one.value
        elif one.name == f"{_NAME}_bucket" and one.labels["le"] != "+Inf":
            edges[model][float(one.labels["le"]) / 1000] += one.value
    found = {}
    for model, total in requests.items():
        budget = settings.budgets_ms.get(model, LatencyGate().p99_ms)
        within = edges[model].get(budget)
        found[model] = Latency(
            requests=round(total),
            p50_ms=_percentile(edges[model], total, 0.50),
            p99_ms=_percentile(edges[model], total, 0.99),
            budget_ms=budget,
            over_budget=None if within is None else max(0, round(total - within)),
        )
    return found


def _percentile(edges: dict[float, float], total: float, share: float) -> float | None:
    """Upper edge of the bucket that holds it; None without a request, and beyond the last edge."""
    return next((edge for edge, count in sorted(edges.items()) if total and count >= share * total), None)
