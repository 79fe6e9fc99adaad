#!/usr/bin/env python3
"""Confidence: the calibration error, and `unknown` on photographs and on a digit that was held out of training.

Everything is measured on the bundle, in FP32, decoded and decided as served. The photographs are scikit-image's.
"""

import importlib.util
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

HELD_OUT, EPOCHS = "9", 10
BENCHMARKS = Path(__file__).parents[1]


def measure(scratch: Path) -> dict[str, Any]:
    from _digits import digits

    from slipway.contract import Bundle
    from slipway.training import export, train

    guard, confidence = script("guard"), script("confidence")
    spec = digits(scratch, config="digits_unknown", recipe={"epochs": EPOCHS})
    train(spec, scratch / "checkpoint")
    export(scratch / "checkpoint", scratch / "bundle")
    bundle = Bundle.open(scratch / "bundle")
    evaluation = json.loads((bundle.path / "evaluation.json").read_text(encoding="utf-8"))
    result = {
        "bundle": bundle.id,
        "score": evaluation["unknown"]["score"],
        "scores": evaluation["unknown"]["scores"],
        "top1": evaluation["top1"],
        "reliability": evaluation["reliability"],
        "known": evaluation["unknown"]["test"],
        "foreign": foreign(bundle, guard, confidence),
        "held_out": confidence.held_out(spec, HELD_OUT, scratch),
    }
    return {**result, "targets": targets(result, confidence)}


def foreign(bundle: Any, guard: ModuleType, confidence: ModuleType) -> dict[str, Any]:
    """What is `unknown` of scikit-image's photographs; without that package none is measured, and the target missed."""
    from slipway.contract import DataError

    try:
        folder = guard.scikit_image()
    except DataError as error:
        return {"images": 0, "unknown_rate": 0.0, "not_measured": str(error)}
    photographs = [path for name in guard.PHOTOGRAPHS for path in sorted(folder.glob(f"{name}.*"))]
    found: dict[str, Any] = confidence.foreign(bundle, photographs)
    return found


def targets(result: dict[str, Any], limits: ModuleType) -> list[dict[str, Any]]:
    before, after = (result["reliability"][when] for when in ("before", "after"))
    known, photographs, held_out = result["known"], result["foreign"], result["held_out"]
    told = [f"{r['ece']:.4f} ({r['ece_interval'][0]:.4f} to {r['ece_interval'][1]:.4f})" for r in (after, before)]
    return [
        {
            "what": "calibration error (ECE, 15 equal-mass bins, bootstrap interval) of the test digits",
            "asked": f"at most {limits.MAX_ECE}",
            "measured": f"{told[0]}; before calibration {told[1]}",
            "met": after["ece"] <= limits.MAX_ECE,
        },
        {
            "what": f"AUROC of the unknown score: digits against the {HELD_OUT}s, never trained on",
            "asked": f"at least {limits.MIN_AUROC}",
            "measured": f"{held_out['auroc']:.3f} ({held_out['score']}; {held_out['images']} images)",
            "met": held_out["auroc"] >= limits.MIN_AUROC,
        },
        {
            "what": "unknown of scikit-image's photographs",
            "asked": f"at least {limits.MIN_FOREIGN_UNKNOWN:.0%}",
            "measured": photographs.get(
                "not_measured", f"{photographs['unknown_rate']:.1%} of {photographs['images']}"
            ),
            "met": photographs["unknown_rate"] >= limits.MIN_FOREIGN_UNKNOWN,
        },
        {
            "what": "unknown of the test digits at the same threshold",
            "asked": f"at most {limits.MAX_KNOWN_UNKNOWN:.0%}",
            "measured": f"{known['unknown_rate']:.2%} of {known['images']}",
            "met": known["unknown_rate"] <= limits.MAX_KNOWN_UNKNOWN,
        },
    ]


def script(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder)), indent=1))
