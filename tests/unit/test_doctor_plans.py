"""The doctor on plans and GPUs: which plan Triton would take on which GPU, and whether it would load there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Bundle, Lane
from slipway.contract.card import Card
from slipway.lint.models import read_models
from slipway.repository import Classifier, assemble
from slipway.serving.doctor import gpu as doctor_gpu
from slipway.serving.doctor.checks import Check
from slipway.serving.doctor.gpu import check_plans, driver_problem, find_gpus
from tests.support.cards import H100, L4
from tests.support.colours import COLOURS
from tests.support.lint_defects import CORPUS
from tests.support.plans import stand_in_plan


def card(name: str, capability: str, multiprocessors: int = 58, **other: Any) -> Card:
    facts = {"memory_mib": 22_000, "driver": "580.95.05", "cuda": "13.0"} | other
    return Card(name=name, compute_capability=capability, multiprocessors=multiprocessors, **facts)


T4 = card("NVIDIA T4", "7.5", 40)
L40S = card("NVIDIA L40S", "8.9", 142, memory_mib=45_000)


def host(*gpus: Card, installed: str | None = "10.16.1", told: bool = False) -> dict[str, Any]:
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
        ({"8.0": ANY_AMPERE}, host(T4), "fail", "would be taken for NVIDIA T4"),
        ({"8.0": SAME}, host(L4), "fail", "no plan for"),
        ({"9.0": {}}, host(H100, installed="10.15.0"), "fail", "by TensorRT 10.16.1.11 for that version only"),
        ({"9.0": COMPATIBLE}, host(H100, installed="10.17.0", told=True), "ok", "fit"),
        ({"9.0": COMPATIBLE}, host(H100, installed="10.17.0"), "fail", "lane.json does not turn that option"),
        ({"9.0": COMPATIBLE}, host(H100, installed="10.15.0", told=True), "fail", "later ones of that major version"),
        ({"9.0": COMPATIBLE}, host(H100, installed="11.0.0", told=True), "fail", "later ones of that major version"),
        ({"8.9": {"card": L4}}, host(L4), "ok", "fit"),
        ({"8.9": {"card": L40S}}, host(L4), "fail", "was built and measured on NVIDIA L40S (compute"),
        ({"8.9": {"card": L4}}, host(L40S), "fail", "and this machine has NVIDIA L40S (compute"),
        ({"8.9": {"card": L40S, **SAME}}, host(L4), "ok", "fit"),
        ({"8.9": {"card": L4}}, host(card("NVIDIA L4", "8.9", 29)), "fail", "this machine has NVIDIA L4"),
        ({"9.0": {}}, host(), "untold", "cannot be checked without a GPU"),
        ({"9.0": {}}, host(H100, installed=None), "untold", "cannot be checked without TensorRT"),
        ({"9.0": {}}, host(installed=None), "untold", "cannot be checked without a GPU and TensorRT"),
    ],
)
def test_plans_are_held_against_every_gpu_and_the_installed_tensorrt(
    tmp_path: Path, plans: dict[str, dict[str, Any]], machine: dict[str, Any], state: str, says: str
) -> None:
    checks = plan_checks(tmp_path, plans, machine=machine)
    assert any(check.state == state and says in check.reason for check in checks), checks
    assert len(checks) == 1


def plan_checks(
    folder: Path, plans: dict[str, dict[str, Any]], *, machine: dict[str, Any], named: Sequence[int] = ()
) -> list[Check]:
    bundle = Bundle.open(COLOURS / "bundle")
    first, *others = (stand_in_plan(folder / cc, bundle, capability=cc, plan=plan) for cc, plan in plans.items())
    lane = assemble([Classifier(bundle, first, tuple(others))], folder / "repository", lane="gpu")
    (engine,) = (folder / "repository").glob("engine_*")
    model = read_models(folder / "repository")[engine.name]
    model.config.instance_group[0].gpus.extend(named)
    lane = lane.model_copy(update={"tensorrt_version_compatible": machine["told"]})
    return list(check_plans(model, machine["gpus"], installed=machine["installed"], lane=lane))


def test_a_plan_that_does_not_say_on_which_gpu_it_was_built_fits_none(tmp_path: Path) -> None:
    """The launcher asks here, and runs no lint."""
    (defect,) = [defect for defect in CORPUS if defect.name == "plan-that-names-no-card"]
    repository = defect.make(tmp_path / "repository")
    (engine,) = repository.glob("engine_*")
    (check,) = check_plans(read_models(repository)[engine.name], [H100], installed="10.16.1", lane=None)
    assert check.state == "fail"
    assert "does not say on which GPU it was built, and this machine has NVIDIA H100" in check.reason


@pytest.mark.parametrize(
    ("named", "state", "says"),
    [
        ([0], "ok", "fit"),
        ([1], "fail", "no plan for NVIDIA L4"),
        ([0, 2], "fail", "an instance is to run on GPU 2, and this machine shows 2"),
    ],
)
def test_only_the_gpus_that_an_instance_is_for_need_a_plan(
    tmp_path: Path, named: list[int], state: str, says: str
) -> None:
    (check,) = plan_checks(tmp_path, {"9.0": {}}, machine=host(H100, L4), named=named)
    assert check.state == state
    assert says in check.reason


def lane_of(release: str | None) -> Lane:
    return Lane(lane="gpu", classifiers={}, shm_default_bytes=1 << 20, release=release)


@pytest.mark.parametrize(
    ("gpu", "release", "says"),
    [
        (L4, "26.08", ""),
        (card("NVIDIA L4", "8.9", driver="550.54.15", cuda="12.4"), None, ""),
        (
            card("NVIDIA L4", "8.9", driver="550.54.15", cuda="12.4"),
            "26.08",
            "driver 550.54.15 runs CUDA 12.4, and release 26.08 has CUDA 13.4.1, which needs driver 580 or later",
        ),
        # A compatibility package in the image raises what an old driver can run.
        (card("NVIDIA L4", "8.9", driver="550.54.15", cuda="13.4"), "26.08", ""),
        (L4, "26.06", "release '26.06': its DALI is 2.1.1"),
    ],
)
def test_a_driver_that_is_too_old_for_the_release_is_named(gpu: Card, release: str | None, says: str) -> None:
    assert (says in driver_problem((gpu,), lane_of(release))) if says else not driver_problem((gpu,), lane_of(release))


def test_a_lane_without_plans_needs_the_driver_of_the_image_that_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "26.08")
    old, cpu = card("NVIDIA L4", "8.9", cuda="12.9"), Lane(lane="cpu", classifiers={}, shm_default_bytes=1 << 20)
    fallback = cpu.model_copy(update={"lane": "gpu"})
    assert "runs CUDA 12.9, and release 26.08 has CUDA 13.4.1" in driver_problem((old,), fallback)
    assert driver_problem((L4,), fallback) == driver_problem((old,), cpu) == ""
    monkeypatch.setenv("NVIDIA_TRITON_SERVER_VERSION", "26.99")
    assert driver_problem((old,), fallback) == ""


def test_the_gpus_are_those_that_cuda_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_gpu, "cards", lambda: (H100, L4))
    assert find_gpus() == ((H100, L4), "")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo 'NVIDIA-SMI has failed because it could not reach the driver.'; exit 9", "NVIDIA-SMI has failed"),
        ("echo 'No devices were found'", "No devices were found"),
        ("", "lists no GPU"),
        ("printf '\\377 bad'; exit 9", "\N{REPLACEMENT CHARACTER} bad"),
        ("echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)'", "NVIDIA L4 (UUID: GPU-1), but CUDA shows this process none"),
        (None, "no nvidia-smi on PATH"),
    ],
)
def test_where_there_are_none_nvidia_smi_says_why_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, says: str
) -> None:
    if body is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor_gpu, "cards", lambda: ())
    gpus, reason = find_gpus()
    assert gpus == ()
    assert says in reason
