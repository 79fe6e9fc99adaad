"""The result file of the study."""

from slipway.contract.evidence.studies import Part, StudyResult


class Way(Part):
    """One way to resize."""

    ms: float
    """Median processor time of an image."""
    to_dali: float
    """Processor time relative to DALI's, the median of the rounds."""
    to_dali_low: float
    to_dali_high: float
    """The 10th and 90th percentile of the rounds."""
    mean_grey_levels: float
    """Mean difference to DALI's pixels, over all photographs."""
    worst_mean_grey_levels: float
    """The mean difference of the photograph that differs most."""
    most_grey_levels: int


class Case(Part):
    """Images of one size, resized to the input of a network."""

    size_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    ways: dict[str, Way]
    whole_ms: float | None = None
    """Median processor time of the whole image, from encoded bytes to logits, in the same rounds; None where images of
    this size are not JPEGs."""
    gain: dict[str, float] | None = None
    """Share of the whole image's processor time that each way would save."""


class Apart(Part):
    """Answers of an ImageNet network to pixels, compared with those to a photograph that was decoded in full."""

    mean_grey_levels: float
    flips: int
    """Photographs whose best class differs."""
    flips_margin: float
    """Largest lead in probability that the best class of such a photograph had over the second."""
    probability_mean: float
    probability_most: float
    """Largest difference of the best class's probability, over the photographs."""


class Shrunk(Part):
    """Photographs of 12 million pixels in one encoding, sent whole and shrunk by the client."""

    photographs: int
    sent_bytes: dict[str, float]
    """Mean size, `whole` and `shrunk`."""
    client_ms: float
    """Mean processor time of the shrinking."""
    preprocess_ms: dict[str, float]
    """Mean processor time of the server's preprocess step."""
    preprocess_ratio: float
    preprocess_ratio_low: float
    preprocess_ratio_high: float
    """Time for a shrunk photograph over that for a whole one: median of the rounds with their 10th and 90th
    percentile."""
    apart: dict[str, Apart]
    """Answers to photographs `whole`, which the server decodes at a fraction, and `shrunk` by the client."""


class ResizeResult(StudyResult):
    """The study `resize`."""

    backbone: str
    rounds: int
    left_out: dict[str, str]
    cases: dict[str, Case]
    shrink_px: int
    shrink: dict[str, Shrunk]
