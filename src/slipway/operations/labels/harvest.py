"""Gathers the labelled images of a journal for a data set."""

from collections import defaultdict
from collections.abc import Iterable

from slipway.contract.dataset import NewImage
from slipway.operations.journal.store import Store, image_path, read_image
from slipway.operations.labels.truth import decided, labels_of


def harvest(store: Store, classifier: str) -> tuple[list[NewImage], list[str]]:
    """The images of a classifier's labelled rows, whatever bundle answered.

    Left out are images on which annotators are divided, images with different labels in several rows, and images that
    are no longer kept.

    Returns:
        The images, each once, in the order of their SHA-256, and a sentence on each one that is left out.
    """
    said = labels_of(store, classifier)
    facts = {
        row: (sha256, image_format)
        for row, sha256, image_format in store.query(
            "SELECT id, sha256, format FROM rows WHERE classifier = ? AND sha256 IS NOT NULL AND id IN "
            "(SELECT row FROM labels)",
            (classifier,),
        )
    }
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row in said:
        if row in facts:
            rows_of[facts[row][0]].append(row)
    images: list[NewImage] = []
    left_out: list[str] = []
    for sha256, rows in sorted(rows_of.items()):
        named = f"row {', '.join(map(str, rows))}"
        labels = {label for row in rows if (label := decided(said[row])) is not None}
        file = image_path(store.folder, sha256)
        if not labels:
            left_out.append(f"{named}: annotators are divided between {_listed(said[rows[0]].values())}")
        elif len(labels) > 1:
            left_out.append(f"{named}: the same image, labelled {_listed(labels)}")
        elif not file.is_file():
            left_out.append(f"{named}: its image is no longer kept")
        elif read_image(store.folder, sha256) is None:
            left_out.append(f"{named}: its image is damaged: {file}")
        else:
            images.append(NewImage(file=str(file), sha256=sha256, label=labels.pop(), format=facts[rows[0]][1]))
    return images, left_out


def _listed(labels: Iterable[str]) -> str:
    return " and ".join(repr(label) for label in sorted(set(labels)))
