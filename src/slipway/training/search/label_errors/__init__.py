"""Finds labels that are probably wrong with cleanlab on cross-validated predictions; writes JSON, CSV and one page."""

from slipway.training.search.label_errors.find import (
    PAGE,
    RESULT,
    SUSPECTS,
    LabelErrors,
    Suspect,
    check_clean,
    find_label_errors,
    suspects,
    write_clean,
)

__all__ = [
    "PAGE",
    "RESULT",
    "SUSPECTS",
    "LabelErrors",
    "Suspect",
    "check_clean",
    "find_label_errors",
    "suspects",
    "write_clean",
]
