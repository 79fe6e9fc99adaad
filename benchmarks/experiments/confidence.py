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

HELD_OUT = "9"
BENCHMARKS = Path(__file__).parents[1]


def measure(scratch: Path) -> dict[str, Any]:
    from _digits import digits

    from slipway.contract import Bundle
    from slipway.training import export, train

    guard, confidence = script("guard"), script("confidence")
    folder = guard.scikit_image()
    photographs = [path for name in guard.PHOTOGRAPHS for path in sorted(folder.glob(f"{name}.*"))]
    spec = digits(scratch, config="digits_unknown")
    train(spec, scratch / "checkpoint")
    export(scratch / "checkpoint", scratch / "bundle")
    bundle = Bundle.open(scratch / "bundle")
    evaluation = json.loads((bundle.path / "evaluation.json").read_text(encoding="utf-8"))
    before, after = (evaluation["reliability"][when] for when in ("before", "after"))
    known = evaluation["unknown"]["test"]
    foreign = confidence.foreign(bundle, photographs)
    held_out = confidence.held_out(spec, HELD_OUT, scratch)
    most_ece, least_auroc = confidence.MAX_ECE, confidence.MIN_AUROC
    least_foreign, most_known = confidence.MIN_FOREIGN_UNKNOWN, confidence.MAX_KNOWN_UNKNOWN
    low, high = after["ece_interval"]
    return {
        "bundle": bundle.id,
        "score": evaluation["unknown"]["score"],
        "scores": evaluation["unknown"]["scores"],
        "top1": evaluation["top1"],
        "ece": {"before": before["ece"], "before_interval": before["ece_interval"]}
        | {"after": after["ece"], "after_interval": after["ece_interval"]},
        "known": known,
        "foreign": foreign,
        "held_out": held_out,
        "targets": [
            {
                "what": "calibration error (ECE, 15 equal-mass bins) of the test digits, after calibration",
                "asked": f"at most {most_ece}",
                "measured": f"{after['ece']:.4f} (bootstrap {low:.4f} to {high:.4f}); before {before['ece']:.4f} "
                f"({before['ece_interval'][0]:.4f} to {before['ece_interval'][1]:.4f})",
                "met": after["ece"] <= most_ece,
            },
            {
                "what": f"AUROC of the unknown score: digits against the {HELD_OUT}s, never trained on",
                "asked": f"at least {least_auroc}",
                "measured": f"{held_out['auroc']:.3f} ({held_out['score']}; {held_out['images']} images)",
                "met": held_out["auroc"] >= least_auroc,
            },
            {
                "what": "unknown of scikit-image's photographs",
                "asked": f"at least {least_foreign:.0%}",
                "measured": f"{foreign['unknown_rate']:.1%} of {foreign['images']}",
                "met": foreign["unknown_rate"] >= least_foreign,
            },
            {
                "what": "unknown of the test digits at the same threshold",
                "asked": f"at most {most_known:.0%}",
                "measured": f"{known['unknown_rate']:.2%} of {known['images']}",
                "met": known["unknown_rate"] <= most_known,
            },
        ],
    }


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
