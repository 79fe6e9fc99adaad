"""The result file of the study."""

from slipway.contract.evidence.studies import Part, StudyResult


class Measured(Part):
    """Times of one image in one process with one thread, and the effect of a second busy core."""

    backbone: str
    precision: str
    preprocess_ms: tuple[float, ...]
    engine_ms: tuple[float, ...]
    """Processor time of single images."""
    batch_share: float
    """Time of a batch of two over that of its images one by one."""
    photograph_ms: tuple[float, ...]
    """Processor time of the preprocess step for photographs of 4000x3000 pixels."""
    slowing: float
    """Additional time of an image, as a share, while another core does the same work: 0.05 is 5 %."""
    copied_gb_per_s: dict[str, float]
    """Memory bandwidth of copies, by the number of processes."""
    processor_time: bool
    """Whether times are processor time, which other work on the machine changes less."""


class Checked(Part):
    """A simulation with the work of one measured side, and the rates that this side held."""

    side: str
    cores: int
    simulated_per_s: float
    measured_per_s: tuple[float, ...]
    """Rates that the side held, one for each round."""
    measured_mean_per_s: float
    ratio: float
    """Simulated rate over the measured one."""


class Held(Part):
    """The rate that a layout holds on a simulated machine."""

    cores: int
    layout: str
    processes: tuple[int, ...]
    batch: int
    photographs: float
    """Share of requests that are photographs of 12 million pixels."""
    bandwidth: str
    per_s: float
    """Highest rate with P99 within 50 ms."""
    per_core_per_s: float
    of_auto: float
    """Rate relative to that of the layout that `auto` chooses, on the same machine."""


class ScaleResult(StudyResult):
    """The study `scale`."""

    limit_ms: float
    requests: int
    measured: Measured
    overhead: dict[str, float]
    """Processor time of an image in each layout over that of the work alone, from the study `efficiency`."""
    checked: tuple[Checked, ...]
    held: tuple[Held, ...]
