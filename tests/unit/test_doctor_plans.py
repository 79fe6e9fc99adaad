"""The doctor on plans and GPUs: which plan Triton would take on which GPU, and whether it would load there."""

from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Bundle
from slipway.lint.models import read_models
from slipway.repository import Classifier, assemble
from slipway.serving.doctor.findings import Finding
from slipway.serving.doctor.gpu import Gpu, check_plans, find_gpus
from tests.support.colours import COLOURS
from tests.support.plans import stand_in_plan

H100, L4 = Gpu("NVIDIA H100", "9.0", "580.95.05"), Gpu("NVIDIA L4", "8.9", "580.95.05")


def host(*gpus: Gpu, installed: str | None = "10.16.1", told: bool = False) -> dict[str, Any]:
    return {"gpus": gpus, "installed": installed, "told": told}


ANY_AMPERE, COMPATIBLE = {"hardware_compatibility": "ampere_plus"}, {"version_compatible": True}
SAME = {"hardware_compatibility": "same_compute_capability"}


@pytest.mark.parametrize(
    ("plans", "machine", "state", "says"),
    [
        ({"9.0": {}}, host(H100), "ok", "fits TensorRT 10.16.1 and every GPU of this machine"),
        ({"9.0": {}, "8.9": {}}, host(H100, L4), "ok", "fit"),
        ({"9.0": {}}, host(H100, L4), "fail", "no plan for NVIDIA L4 (compute capability 8.9), only for 9.0"),
        ({"8.0": ANY_AMPERE}, host(L4, H100), "ok", "fit"),
        ({"8.0": ANY_AMPERE}, host(Gpu("NVIDIA T4", "7.5", "580.95.05")), "fail", "would be taken for NVIDIA T4"),
        ({"8.0": SAME}, host(L4), "fail", "no plan for"),
        ({"9.0": {}}, host(H100, installed="10.15.0"), "fail", "by TensorRT 10.16.1.11 for that version only"),
        ({"9.0": COMPATIBLE}, host(H100, installed="10.17.0", told=True), "ok", "fit"),
        ({"9.0": COMPATIBLE}, host(H100, installed="10.17.0"), "fail", "lane.json does not turn that option"),
        ({"9.0": COMPATIBLE}, host(H100, installed="10.15.0", told=True), "fail", "later ones of that major version"),
        ({"9.0": COMPATIBLE}, host(H100, installed="11.0.0", told=True), "fail", "later ones of that major version"),
        ({"9.0": {}}, host(), "untold", "cannot be checked without a GPU"),
        ({"9.0": {}}, host(H100, installed=None), "untold", "cannot be checked without TensorRT"),
        ({"9.0": {}}, host(installed=None), "untold", "cannot be checked without a GPU and TensorRT"),
    ],
)
def test_plans_are_held_against_every_gpu_and_the_installed_tensorrt(
    tmp_path: Path, plans: dict[str, dict[str, Any]], machine: dict[str, Any], state: str, says: str
) -> None:
    findings = plan_findings(tmp_path, plans, machine=machine)
    assert any(finding.state == state and says in finding.reason for finding in findings), findings
    assert len(findings) == 1


def plan_findings(folder: Path, plans: dict[str, dict[str, Any]], *, machine: dict[str, Any]) -> list[Finding]:
    bundle = Bundle.open(COLOURS / "bundle")
    first, *others = (stand_in_plan(folder / cc, bundle, capability=cc, plan=plan) for cc, plan in plans.items())
    lane = assemble([Classifier(bundle, first, tuple(others))], folder / "repository", lane="gpu")
    (engine,) = (folder / "repository").glob("engine_*")
    model = read_models(folder / "repository")[engine.name]
    lane = lane.model_copy(update={"tensorrt_version_compatible": machine["told"]})
    return list(check_plans(model, machine["gpus"], installed=machine["installed"], lane=lane))


@pytest.mark.parametrize(
    ("body", "found", "says"),
    [
        ("echo 'NVIDIA H100 80GB HBM3, 9.0, 580.95.05'; echo 'NVIDIA L4, 8.9, 580.95.05'", ["9.0", "8.9"], ""),
        ("echo 'NVIDIA-SMI has failed because it could not reach the driver.'; exit 9", [], "NVIDIA-SMI has failed"),
        ("echo 'No devices were found'", [], "No devices were found"),
        ("", [], "lists no GPU"),
        (None, [], "no nvidia-smi on PATH"),
    ],
)
def test_gpus_are_what_nvidia_smi_lists_or_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, found: list[str], says: str
) -> None:
    if body is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpus, reason = find_gpus()
    assert [gpu.compute_capability for gpu in gpus] == found
    assert says in reason
    assert bool(gpus) != bool(reason)
