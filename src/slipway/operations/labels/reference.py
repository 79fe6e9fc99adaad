"""Class means of the watch's reference, so that novelty is measured from images whose class is known."""

import base64
from pathlib import Path

import numpy as np

from slipway.contract import SpecError
from slipway.operations.watch.rows import ClassMeans, Floats
from slipway.system.yaml_json import read_plain


def reference_means(journal: Path, classifier: str, *, bundle: str) -> ClassMeans | None:
    """The class means that `slipway watch reference` measured; None without a reference of this bundle.

    Raises:
        SpecError: the file is damaged.
    """
    path = journal / "watch" / classifier / "reference.json"
    if not path.is_file():
        return None
    content = read_plain(path)
    try:
        if content["bundle"] != bundle or content["means"] is None:
            return None
        centre, directions = (_array(content["means"][name]) for name in ("centre", "directions"))
        return ClassMeans(centre, directions.reshape(-1, centre.size))
    except (KeyError, TypeError, ValueError):
        raise SpecError(f"{path}: damaged, or of another release; slipway watch reference writes it again") from None


def _array(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
