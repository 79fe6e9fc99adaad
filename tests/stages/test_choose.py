"""The choice of the cpu lane's precision: measured on the real steps, among what passed, and pinned by hash."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.contract import Bundle, Choice, EngineSettings, GateError, Manifest, ManifestError, Spec, bundle_id
from slipway.contract.choice import FILE_NAME, Contender
from slipway.engines.choose import _reason, choose
from slipway.system.files import sha256_file
from tests.support.colours import COLOURS

PASSED, FAILED, REFERENCE = ({"gate": {"verdict": verdict}} for verdict in ("pass", "fail", "reference"))


def build(folder: Path, *, precisions: list[str], verdicts: dict[str, dict[str, Any]]) -> tuple[Bundle, Path]:
    """`colours` with that spec, and one engine for each verdict, all of the same graph."""
    shutil.copytree(COLOURS / "bundle", folder / "bundle")
    spec = Spec.read(folder / "bundle/spec.json")
    changed = spec.model_dump(mode="json") | {"precisions": precisions}
    Spec.parse(changed, source="test").write(folder / "bundle/spec.json")
    Manifest.seal(folder / "bundle", kind="bundle", name=spec.name, bundle=bundle_id(folder / "bundle"))
    bundle = Bundle.open(folder / "bundle")
    for precision, measured in verdicts.items():
        engine = folder / "engines" / f"openvino-{precision}"
        shutil.copytree(COLOURS / "engine", engine)
        settings = EngineSettings.read(engine / "engine.json").model_copy(update={"precision": precision})
        settings.write(engine / "engine.json")
        Manifest.seal(engine, kind="engine", name=spec.name, bundle=bundle.id, measured=measured)
    return bundle, folder / "engines"


def measure(bundle: Bundle, engines: Path) -> Choice:
    return choose(bundle, engines, rounds=3, images_per_round=2)


def test_the_fastest_of_what_passed_is_pinned_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, engines = build(
        tmp_path, precisions=["int8", "bf16", "fp32"], verdicts={"fp32": REFERENCE, "bf16": PASSED, "int8": PASSED}
    )
    times_ms = {"openvino-fp32": [4.0, 4.2, 4.4], "openvino-bf16": [2.0, 2.1, 2.2], "openvino-int8": [3.0, 3.0, 3.0]}
    module = sys.modules["slipway.engines.choose"]  # the package has the function under that name
    monkeypatch.setattr(module, "interleave", lambda *_, **__: {name: np.array(ms) for name, ms in times_ms.items()})
    choice = measure(bundle, engines)
    assert choice.chosen == "openvino-bf16"
    assert Choice.read(engines / FILE_NAME) == choice
    (best,) = (candidate for candidate in choice.candidates if candidate.engine == choice.chosen)
    assert best.manifest_sha256 == sha256_file(engines / "openvino-bf16" / "manifest.json")
    assert (best.median_ms, best.speed_to_fp32) == (2.1, 2.0)
    assert "openvino-int8 1.40 times" in choice.reason
    assert "within noise" not in choice.reason


def test_a_lead_within_noise_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, engines = build(tmp_path, precisions=["int8", "fp32"], verdicts={"fp32": REFERENCE, "int8": PASSED})
    times_ms = {"openvino-fp32": [4.0, 4.0, 4.0], "openvino-int8": [3.9, 3.9, 4.1]}
    module = sys.modules["slipway.engines.choose"]
    monkeypatch.setattr(module, "interleave", lambda *_, **__: {name: np.array(ms) for name, ms in times_ms.items()})
    choice = measure(bundle, engines)
    assert choice.chosen == "openvino-int8"
    assert "by its median alone: openvino-fp32 is within noise (the intervals overlap)" in choice.reason
    assert choice.reason.endswith("; openvino-fp32 1.00 times (1.00 to 1.00)")


def test_every_candidate_is_really_measured(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, precisions=["int8", "fp32"], verdicts={"fp32": REFERENCE, "int8": PASSED})
    choice = measure(bundle, engines)
    assert choice.chosen in ("openvino-fp32", "openvino-int8")
    assert (choice.bundle, choice.rounds, choice.images_per_round) == (bundle.id, 3, 2)
    for candidate in choice.candidates:
        assert candidate.median_ms is not None
        assert 0.01 < candidate.median_ms < 1000
        assert candidate.speed_low <= candidate.speed_to_fp32 <= candidate.speed_high


def test_an_engine_that_failed_its_gate_is_neither_measured_nor_chosen(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, precisions=["int8", "fp32"], verdicts={"fp32": REFERENCE, "int8": FAILED})
    choice = measure(bundle, engines)
    assert choice.chosen == "openvino-fp32"
    assert [c.median_ms for c in choice.candidates if c.engine == "openvino-int8"] == [None]
    assert "openvino-int8 did not pass" in choice.reason


def test_fp32_is_the_yardstick_and_not_served_where_the_spec_does_not_list_it(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, precisions=["int8", "fp16"], verdicts={"fp32": REFERENCE, "int8": PASSED})
    assert measure(bundle, engines).chosen == "openvino-int8"


@pytest.mark.parametrize("precisions", [["int8"], ["fp16"], ["int8", "bf16"]])
def test_where_nothing_listed_passed_it_is_an_error_that_says_what_was_there(
    tmp_path: Path, precisions: list[str]
) -> None:
    bundle, engines = build(tmp_path, precisions=precisions, verdicts={"fp32": REFERENCE, "int8": FAILED})
    with pytest.raises(GateError, match="none of the spec's precisions can be served on the cpu lane"):
        measure(bundle, engines)
    assert not (engines / FILE_NAME).exists()


def test_without_the_reference_or_with_a_changed_engine_nothing_is_chosen(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, precisions=["int8"], verdicts={"int8": PASSED})
    with pytest.raises(ManifestError, match="openvino-fp32"):
        measure(bundle, engines)
    shutil.copytree(COLOURS / "engine", engines / "openvino-fp32")
    Manifest.seal(engines / "openvino-fp32", kind="engine", name="colours", bundle=bundle.id, measured=REFERENCE)
    (engines / "openvino-int8/decision.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"decision\.json: changed"):
        measure(bundle, engines)


def test_a_listed_precision_that_this_processor_cannot_build_is_said_and_hinders_nothing() -> None:
    measured = Contender(
        engine="openvino-fp32",
        manifest_sha256="0" * 64,
        precision="fp32",
        verdict="reference",
        median_ms=2.0,
        speed_to_fp32=1.0,
        speed_low=1.0,
        speed_high=1.0,
    )
    failed = measured.model_copy(update={"engine": "openvino-int8", "verdict": "fail", "median_ms": None})
    said = _reason(
        "openvino-fp32",
        {"openvino-fp32": measured, "openvino-int8": failed},
        ["openvino-int8", "openvino-bf16", "openvino-fp32"],
    )
    assert said.endswith("; openvino-int8 did not pass; openvino-bf16 was not built")
