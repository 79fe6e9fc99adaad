"""The result file of the study."""

from slipway.contract.evidence.studies import LightLoad, PeersResult


class FullLightLoad(LightLoad):
    """Every round of the light load."""

    requests: int
    rounds: dict[str, dict[str, tuple[float, ...]]]
    """Percentiles of each stack in ms, by round."""


class FullPeersResult(PeersResult):
    """The study `peers`, with everything that it records."""

    environments: dict[str, dict[str, str]]
    """Package versions of each peer's environment."""
    batches_tried: tuple[int, ...]
    same_answers: dict[str, float]
    """Share of images that each stack answers as Triton does."""
    light_load: FullLightLoad
