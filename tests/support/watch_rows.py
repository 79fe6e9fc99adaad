"""A made journal with rows of two kinds, and the reference of its bundle, for the watch."""

from pathlib import Path
from typing import Any

import numpy as np

from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.journal.pictures import Picture
from slipway.operations.journal.store import Store
from slipway.operations.watch.rows import ClassDirections, rows_of
from slipway.operations.watch.test_split import (
    EncodedDirections,
    TestReference,
    class_counts,
    confidence_bins,
    drift_reference,
    pictures_of,
    samples_of,
    write_reference,
)
from tests.support.journal_rows import BUNDLE, made_row

LABELS = ("zero", "one", "two")
MEANS = np.eye(3) * 4.0


def drawn(count: int, *, seed: int, classes: int = 3, foreign: float = 0.0) -> dict[str, Any]:
    """Columns of `count` answers; `foreign` is the share of images that are like no class."""
    rng = np.random.default_rng(seed)
    class_id, new = rng.integers(0, classes, count), rng.random(count) < foreign
    embedding = np.where(new[:, None], -4.0, MEANS[class_id]) + rng.normal(0, 0.7, (count, 3))
    confidence = np.clip(rng.beta(30, 0.7, count) - 0.4 * new, 0.34, 1.0)
    return {
        "class_id": class_id,
        "embedding": embedding,
        "confidence": confidence,
        "brightness": rng.beta(20, 20, count),
    }


def add_drawn(store: Store, columns: dict[str, Any], *, name: str, **changes: Any) -> list[int]:
    """Take the answers in as rows of one request, and return their numbers."""
    rows = []
    for image, class_id in enumerate(columns["class_id"].tolist()):
        confidence, dark = float(columns["confidence"][image]), float(columns["brightness"][image])
        own: dict[str, Any] = {
            **{"image": image, "class_id": class_id, "label": LABELS[class_id], "score": confidence},
            **{"probability": np.full(3, 1 / 3, np.float32), "time_s": 1000.0 + image},
            **{"embedding": columns["embedding"][image].astype(np.float32)},
            **{"picture": Picture("PNG", 64, 48, None if np.isnan(dark) else dark)},
        }
        rows.append(made_row(name, **{**own, **changes}))
    store.add(name, rows, {}, counts=lambda _: {}, now_s=1000.0)
    return [id_ for (id_,) in store.query("SELECT id FROM rows WHERE request = ? ORDER BY id", [name])]


def made_reference(
    journal: Path, *, rows: int = 600, has_embedding: bool = True, bundle: str = BUNDLE, classifier: str = "digits"
) -> TestReference:
    """The reference of the bundle of made rows, written to its place."""
    columns, split = drawn(rows, seed=1), drawn(300, seed=2)
    means = ClassDirections.of(split["embedding"], split["class_id"]) if has_embedding else None
    found = rows_of(columns["confidence"], columns["class_id"], columns["brightness"], columns["embedding"], means)
    made = TestReference(
        classifier=classifier,
        bundle=bundle,
        made_s=1.0,
        labels=LABELS,
        rows=rows,
        refused=0,
        accuracy=0.98,
        recall=dict.fromkeys(range(3), 0.98),
        images=dict.fromkeys(range(3), rows // 3),
        predicted=class_counts(columns["class_id"]),
        means=None if means is None else EncodedDirections.of(means),
        drift=drift_reference(found, has_embedding=has_embedding),
        confidence=confidence_bins(columns["confidence"]),
        measures=samples_of(found, has_embedding=has_embedding),
        pictures=pictures_of(["PNG"] * rows, [(64, 48)] * rows, [10] * rows, columns["brightness"].tolist()),
    )
    write_reference(journal, made)
    return made


def watch_settings(folder: Path, **watch: Any) -> GatewaySettings:
    """Settings of a gateway that nobody runs, with the journal in `folder`."""
    return GatewaySettings.parse(
        {
            "teams": {"pets": {"key_file": "pets.key"}},
            "metrics_port": 1,
            "observe": {"journal": str(folder)},
            "watch": {"reference_rows": 1000, **watch},
        },
        source="gateway.yaml",
    )
