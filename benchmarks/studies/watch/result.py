"""The published result of the study."""

from benchmarks.studies.watch.accuracy import Estimated
from benchmarks.studies.watch.drifts import WatchedNetwork
from slipway.contract.evidence.studies import StudyResult


class WatchResult(StudyResult):
    runs: int
    reference_rows: int
    rows_between_false_alarms: int
    networks: tuple[WatchedNetwork, ...]
    accuracy: tuple[Estimated, ...]
