"""The endpoint of a watch, with the real metrics and page, over facts that a test sets."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from slipway.operations.endpoint import endpoint
from slipway.operations.watch.metrics import WatchMetrics
from slipway.operations.watch.page import LivePage
from tests.support.prometheus import free_port
from tests.support.watched import made_facts, made_watched


class StandIn:
    """A watch over the classifier `colours` that has looked just now."""

    def __init__(self) -> None:
        self.port = free_port()
        self.metrics = Looked()
        self.change()

    def change(self, *, drifted: bool = False, accuracy: float = 0.97) -> None:
        """Show facts with these alarms; an accuracy under 0.93 is one."""
        self.metrics.facts = (made_facts(watched=made_watched(drifted=drifted, accuracy=accuracy)),)


class Looked(WatchMetrics):
    @property
    def looked_s(self) -> float:
        return time.time()

    @looked_s.setter
    def looked_s(self, _: float) -> None:
        pass


@contextmanager
def watch_stand_in() -> Iterator[StandIn]:
    one = StandIn()
    page = LivePage(lambda: one.metrics.facts)
    with endpoint(one.port, one.metrics, setting="watch.metrics_port", say=print, page=page):
        yield one
