"""Class means of the watch's reference, so that novelty is measured from images whose class is known."""

from pathlib import Path

from slipway.operations.watch.rows import ClassDirections
from slipway.operations.watch.test_split import read_reference


def reference_means(journal: Path, classifier: str, *, bundle: str) -> ClassDirections | None:
    """The class means that `slipway watch reference` measured; None without a reference of this bundle.

    Raises:
        SpecError: the file is damaged, or of another release.
    """
    reference = read_reference(journal, classifier)
    return None if reference is None or reference.bundle != bundle else reference.class_means
