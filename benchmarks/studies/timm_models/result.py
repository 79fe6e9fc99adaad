"""The result file of the study."""

from slipway.contract.evidence.origin import Origin
from slipway.contract.typed_file import Evidence


class Checked(Evidence):
    """A network whose backbone is the model."""

    constructor: str = ""
    parameters: int = 0
    embedding: int = 0
    """Length of the embedding."""
    mlp: bool = False
    """Whether a head with a hidden layer was tried too."""


class Tried(Checked):
    """One model. One that cannot be used has a reason, and no figures of a network."""

    family: str
    """The file of timm that defines it."""
    usable: bool
    px: tuple[int, int]
    """Height and width at which it was tried last."""
    seconds: float
    reason: str = ""
    """Why it cannot be used."""
    refused_by_name: bool = False
    """Whether the product refuses the model by its name."""


class TimmResult(Evidence, Origin):
    """The study `timm_models`."""

    seed: int
    models: dict[str, Tried]
    left_out: dict[str, str]
    """Models that are not part of the question, and why."""

    @property
    def families(self) -> set[str]:
        return {model.family for model in self.models.values()}
