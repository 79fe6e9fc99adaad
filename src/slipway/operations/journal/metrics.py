"""The collector's metrics for Prometheus, on 127.0.0.1."""

import time
from collections.abc import Iterator
from pathlib import Path

from slipway.errors import requiring
from slipway.operations.journal.collector import FILES, PARITY, ROWS
from slipway.operations.journal.spool import read_dropped, tap_files
from slipway.operations.journal.store import Counts

with requiring("prometheus_client", extra="operate"):
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "slipway_journal"
COUNTERS = {
    ROWS: ("Rows taken in", ("classifier", "arm")),
    PARITY: ("Images that were asked again, by what came of it", ("classifier", "result")),
    FILES: ("Tap files that left the spool, by what came of them", ("result",)),
}


class JournalMetrics:
    """Metrics of the endpoint. The collector's thread adds to the counters; the spool is looked at for each request."""

    def __init__(self, spool: Path, *, dropped_in: Path) -> None:
        self.counters: Counts = {}
        self.looked_s = 0.0
        """Unix time of the last look at the spool that ended without an error."""
        self._spool, self._dropped_in = spool, dropped_in

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        for name, (help_text, labels) in COUNTERS.items():
            family = CounterMetricFamily(f"{PREFIX}_{name}", help_text, labels=labels)
            for (counter, values), value in sorted(self.counters.items()):
                if counter == name:
                    family.add_metric(values, value)
            yield family
        files = tap_files(self._spool)
        gauges: dict[str, tuple[str, float]] = {
            "spool_files": ("Tap files in the spool", len(files)),
            "spool_bytes": ("Their size", sum(file.size for file in files)),
            "lag_seconds": ("Age of the oldest", max(0.0, time.time() - files[0].modified_ns / 1e9) if files else 0.0),
            "looked_timestamp_seconds": ("Time of the last look at the spool without an error", self.looked_s),
        }
        for name, (help_text, measured) in gauges.items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=measured)
        dropped = read_dropped(self._dropped_in)
        yield CounterMetricFamily(f"{PREFIX}_dropped", "Tap files that the bound of the spool removed", value=dropped)
