"""The demo's digits for the experiments: their images, and their spec with some keys changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.contract import Spec
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.system.yaml_json import read_plain

CONFIGS = Path(__file__).parents[3] / "training/configs"


def digits(scratch: Path, *, config: str = "digits", **changes: Any) -> Spec:
    """Read `training/configs/<config>.yaml`, on images below `scratch`, which are written if they are missing."""
    from slipway.training.data.demo_data import write_digits

    root = scratch / "data"
    if not root.is_dir():
        write_digits(root, seed=0)
    values = read_plain(CONFIGS / f"{config}.yaml")
    values["data"]["root"] = str(root)
    for part, keys in changes.items():
        values[part] = {**values.get(part, {}), **keys}
    return Spec.parse(values, source=config)


def predict_checkpoint(
    checkpoint: Path, spec: Spec, dataset: Dataset, images: Sequence[LabelledImage]
) -> npt.NDArray[np.int64]:
    """Predict the class of each image, by the network of `checkpoint` in torch and the serving preprocess."""
    from slipway.evaluation.predict import predict
    from slipway.training.bundle.export import load_network

    network = load_network(checkpoint, spec, classes=len(dataset.labels))
    found = predict(network.run, dataset, images, preprocess=spec.preprocess, batch_size=32, what="test split")
    classes_n: npt.NDArray[np.int64] = found.logits_nc.argmax(axis=1)
    return classes_n
