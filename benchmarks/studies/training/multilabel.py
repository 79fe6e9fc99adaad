"""Multi-label through to serving: pages of one to three digits, trained, quantised, gated and asked for from Triton.

Every label and score of every test page is compared with the offline evaluation.
"""

from pathlib import Path
from typing import Any

LEAST_MAP = 0.97


def measure(scratch: Path) -> dict[str, Any]:
    from benchmarks.studies.training.steps import ROOT, measured, run_step, served_equals_offline

    run = Path("runs/pages")
    spec = ROOT / "training/configs/pages.yaml"
    engines, engine = run / "engines", run / "engines/openvino-int8"
    graphs = run / "graphs"
    steps = {
        "make_pages": run_step("training/make_pages.py", cwd=scratch),
        "train": run_step("training/train.py", spec, "--out", run / "checkpoint", cwd=scratch),
        "export": run_step("training/export.py", run / "checkpoint", "--out", run / "bundle", cwd=scratch),
        "quantize": run_step("build/quantize.py", run / "bundle", "--out", graphs / "int8", cwd=scratch),
        "compile": run_step("build/compile.py", run / "bundle", "--graphs", graphs, "--out", engines, cwd=scratch),
        "assemble": run_step(
            "build/assemble.py", run / "bundle", "--engine", engine, "--out", "repository", cwd=scratch
        ),
    }
    served = served_equals_offline(scratch / "repository", scratch / run / "bundle", scratch / engine, cwd=scratch)
    found, int8 = measured(scratch / run / "bundle"), measured(scratch / engine)
    low, high = found["map_interval"]
    return {
        "test_images": found["images"],
        "epochs": measured(scratch / run / "checkpoint")["epochs"],
        "fp32": {
            name: found[name] for name in ("map", "map_interval", "exact_match", "macro_f1", "ece", "ece_interval")
        },
        "int8": {name: int8[name] for name in ("map", "exact_match", "macro_f1", "ece")}
        | {"gate": int8["gate"]["verdict"]},
        "steps": steps,
        "served": served,
        "targets": [
            {
                "what": "multi-label pages, mAP on the test split",
                "asked": f"at least {LEAST_MAP}",
                "measured": f"{found['map']:.4f} ({low:.4f} to {high:.4f}); INT8 {int8['map']:.4f}",
                "met": found["map"] >= LEAST_MAP,
            },
            {
                "what": "multi-label pages, served answers equal offline ones (INT8)",
                "asked": "100 %",
                "measured": f"{served['equal']} of {served['images']}, scores within "
                f"{served['largest_score_difference']:.1g}",
                "met": served["equal"] == served["images"],
            },
        ],
    }
