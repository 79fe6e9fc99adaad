"""The metrics of a watch over a classifier."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.prometheus import served

C = 'classifier="colours"'


@dataclass
class WatchStandIn:
    port: int = 0
    drift_alarm: int = 0
    accuracy_alarm: int = 0

    def drift(self) -> None:
        self.drift_alarm = 1

    def lose_accuracy(self) -> None:
        self.accuracy_alarm = 1

    def text(self) -> str:
        lines = [
            f"slipway_watch_rows_total{{{C}}} 5",
            f'slipway_watch_images_total{{{C},status="OK"}} 5',
            f'slipway_watch_predicted_total{{{C},class="red"}} 5',
            f"slipway_watch_drift_log10_evidence{{{C}}} 5",
            f"slipway_watch_drift_log10_threshold{{{C}}} 5",
            f"slipway_watch_drift_alarm{{{C}}} {self.drift_alarm}",
            f"slipway_watch_mean_confidence{{{C}}} .5",
            f'slipway_watch_accuracy{{{C},bound="value"}} .5',
            f"slipway_watch_accuracy_reference{{{C}}} .5",
            f"slipway_watch_accuracy_alarm{{{C}}} {self.accuracy_alarm}",
            f'slipway_watch_recall_alarm{{{C},class="red"}} 0',
            f"slipway_watch_labels_asked_total{{{C}}} 5",
            f"slipway_watch_labels_total{{{C}}} 5",
            f'slipway_watch_reference_rows{{{C},source="test"}} 5',
            f"slipway_watch_rows_per_second{{{C}}} 5",
            f"slipway_watch_looked_timestamp_seconds {time.time()}",
        ]
        return "\n".join(lines) + "\n"


@contextmanager
def watch_metrics() -> Iterator[WatchStandIn]:
    one = WatchStandIn()
    with served(lambda *_: (200, one.text().encode())) as port:
        one.port = port
        yield one
