"""Multi-label through to serving: pages of one to three digits, trained, quantised, gated and asked for from Triton.

Every label and score of every test page is compared with the offline evaluation.
"""

from pathlib import Path

from benchmarks.studies.training.result import Found, Target

LEAST_MAP = 0.97


def measure(scratch: Path) -> Found:
    from benchmarks.studies.training.steps import ROOT, measured, run_step, served_equals_offline
    from slipway.contract.evidence.build import BundleMeasured, CheckpointMeasured, EngineMeasured

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
    found, int8 = measured(scratch / run / "bundle", BundleMeasured), measured(scratch / engine, EngineMeasured)
    assert found.map is not None  # of several labels
    assert found.map_interval is not None
    low, high = found.map_interval
    figures = {"map", "exact_match", "macro_f1", "ece"}
    return Found(
        test_images=found.images,
        epochs=measured(scratch / run / "checkpoint", CheckpointMeasured).epochs,
        fp32=found.model_dump(include=figures | {"map_interval", "ece_interval"}),
        int8=int8.model_dump(include=figures) | {"gate": int8.gate.verdict},
        steps=steps,
        served=served,
        targets=(
            Target(
                what="multi-label pages, mAP on the test split",
                asked=f"at least {LEAST_MAP}",
                measured=f"{found.map:.4f} ({low:.4f} to {high:.4f}); INT8 {int8.map:.4f}",
                met=found.map >= LEAST_MAP,
            ),
            Target(
                what="multi-label pages, served answers equal offline ones (INT8)",
                asked="100 %",
                measured=f"{served.equal} of {served.images}, scores within {served.largest_score_difference:.1g}",
                met=served.equal == served.images,
            ),
        ),
    )
