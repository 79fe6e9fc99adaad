"""Ten thousand classes: trained, exported, built, reported on and served, with the time and memory of each step.

The images are made up: 32 pixels wide, a pattern of 4 x 4 tones for each class, and four images of it that differ in
noise (two to train, one to tune, one to be judged by). The target is that every step ends; accuracy is a by-product.
"""

from pathlib import Path
from typing import Any

import numpy as np

from slipway.system.yaml_json import dump_yaml

CLASSES, SIDE_PX, TILES = 10_000, 32, 4
MOST_MIB = 8192
SPLITS = ("train", "train", "validation", "test")
SPEC: dict[str, Any] = {
    "name": "classes",
    "data": {"root": "data"},
    "preprocess": {"input_height": SIDE_PX, "input_width": SIDE_PX},
    "backbone": {"name": "resnet10t", "pretrained": False},
    "recipe": {
        **{"epochs": 1, "batch_size": 128, "learning_rate": 0.003, "warmup_epochs": 0, "label_smoothing": 0.0},
        "augment": {"horizontal_flip": False, "crop_scale": [1.0, 1.0]},
    },
    "calibration": {"images": 500},
    "precisions": ["fp32"],
    "accuracy": {"prove_classes": False},
    "serving": {"instances": 1},
}


def write_images(root: Path, *, classes: int) -> None:
    """Write `root/<split>/<class>/<number>.png`."""
    from PIL import Image
    from tqdm import tqdm

    rng = np.random.default_rng(0)
    tones = rng.integers(40, 216, (classes, TILES, TILES, 3))
    for class_id in tqdm(range(classes), desc="writing images", unit="class", leave=False, disable=None):
        pattern = np.kron(tones[class_id], np.ones((SIDE_PX // TILES, SIDE_PX // TILES, 1)))
        for number, split in enumerate(SPLITS):
            pixels = (pattern + rng.normal(0, 12, pattern.shape)).clip(0, 255).astype(np.uint8)
            folder = root / split / f"class_{class_id:05d}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png", compress_level=1)


def measure(scratch: Path, *, classes: int = CLASSES) -> dict[str, Any]:
    from benchmarks.studies.training.steps import measured, run_step, served_equals_offline

    write_images(scratch / "data", classes=classes)
    (scratch / "spec.yaml").write_text(dump_yaml(SPEC), encoding="utf-8")
    steps = {
        "train": run_step("training/train.py", "spec.yaml", "--out", "checkpoint", cwd=scratch),
        "export": run_step("training/export.py", "checkpoint", "--out", "bundle", cwd=scratch),
        "evaluate": run_step("training/evaluate.py", "bundle", cwd=scratch),
        "compile": run_step("build/compile.py", "bundle", "--graphs", "graphs", "--out", "engines", cwd=scratch),
        "assemble": run_step(
            "build/assemble.py", "bundle", "--engine", "engines/openvino-fp32", "--out", "repository", cwd=scratch
        ),
    }
    engine = scratch / "engines/openvino-fp32"
    served = served_equals_offline(scratch / "repository", scratch / "bundle", engine, cwd=scratch, most=1000)
    found = measured(scratch / "bundle")
    worst = max(step["peak_mib"] for step in steps.values())
    sizes = {
        name: round((scratch / name).stat().st_size / 2**20, 1)
        for name in ("bundle/model.onnx", "bundle/evaluation.json", "evaluation.html")
    }
    return {
        "classes": classes,
        "images": measured(scratch / "checkpoint")["images"],
        "top1": found["top1"],
        "steps": steps,
        "size_mib": sizes,
        "served": served,
        "targets": [
            {
                "what": f"{classes:,} classes train, export, build and serve, no step over {MOST_MIB / 1024:g} GiB",
                "asked": "every step ends; served answers equal offline ones, 100 %",
                "measured": "; ".join(f"{n} {s['seconds']:.0f} s, {s['peak_mib']:,} MiB" for n, s in steps.items())
                + f"; served {served['equal']} of {served['images']} equal, {served['server_mib']:,} MiB",
                "met": served["equal"] == served["images"] and worst <= MOST_MIB,
            }
        ],
    }
