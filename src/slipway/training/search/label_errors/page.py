"""Renders `LabelErrors` as one self-contained HTML page: a contact sheet of the suspects, the worst first."""

from pathlib import Path
from statistics import fmean

from slipway.pages import environment
from slipway.training.data.inspection.pictures import thumbnails
from slipway.training.data.inspection.viewer import Viewer
from slipway.training.search.label_errors.result import LabelErrors

SHOWN = 400
LABELS = 200


def render(found: LabelErrors, *, root: Path, exif_orientation: bool) -> str:
    """Render the page. Labels and file names are untrusted: Jinja escapes every one of them."""
    shown = found.suspects[:SHOWN]
    return (
        environment("slipway.training.search.label_errors")
        .get_template("label_errors.html")
        .render(
            title=f"{found.name}: label errors",
            found=found,
            agreement=fmean(found.top1_by_fold) if found.top1_by_fold else None,
            by_label=list(found.suspects_by_label.items())[:LABELS],
            shown=shown,
            pictures=thumbnails(
                [suspect.path for suspect in shown], root=root, viewer=Viewer(exif_orientation=exif_orientation)
            ),
        )
    )
