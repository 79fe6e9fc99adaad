"""All seeded defects."""

from tests.support.lint_defects_configurations import CONFIGURATIONS
from tests.support.lint_defects_ensembles import ENSEMBLES, SWITCHED_OFF, TENSORS
from tests.support.lint_defects_files import FILES
from tests.support.lint_defects_gpu import SPEED
from tests.support.lint_defects_heads import HEADS
from tests.support.lint_defects_lanes import GPU, OURS
from tests.support.seeded_defects import Defect

CORPUS: tuple[Defect, ...] = (*CONFIGURATIONS, *TENSORS, *ENSEMBLES, *FILES, *OURS, *HEADS, *GPU, *SPEED)
RECORDED: tuple[Defect, ...] = (*CORPUS, *SWITCHED_OFF)
"""What the server was asked about."""

__all__ = ["CORPUS", "RECORDED", "SWITCHED_OFF"]
