"""The choice between TensorRT plans, for each GPU: the fastest measured one that passed. Stand-ins run the networks.

A call takes its time on a clock of the test's own: on the machine's, a busy neighbour would choose.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from slipway.contract import Bundle, BundleEngine, Choice, CompileError, GateError, ManifestError
from slipway.contract.card import Card
from slipway.contract.installed import Installed
from slipway.contract.shared_rules import NotChosenError, chosen_plans
from slipway.engines import choose_plan
from slipway.engines.tensorrt_library import require_release_of_server
from slipway.evaluation.predict import ServedNetwork
from slipway.system.files import sha256_file
from tests.support.cards import H100
from tests.support.colours import copy_colours
from tests.support.plans import stand_in_plan

PASSED = {"fp32": "pass", "fp16": "pass", "int8": "pass"}
BOTH_CALLS_MS = {"fp32": 3.0, "fp16": 1.0, "int8": 2.0, "fp8": 0.5}
Networks = Callable[[BundleEngine], ServedNetwork]
CLOCK = SimpleNamespace(now_s=0.0, perf_counter=lambda: CLOCK.now_s)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[choose_plan.__module__], "time", CLOCK)


def build(folder: Path, verdicts: dict[str, str], precisions: list[str], **plan: Any) -> tuple[Bundle, Path]:
    """`colours` with that spec, and a stand-in for a plan of each precision."""
    bundle = copy_colours(folder / "colours", spec={"precisions": precisions}).bundle
    for precision, verdict in verdicts.items():
        path = folder / f"engines/tensorrt-{precision}-sm90"
        stand_in_plan(path, bundle, precision=precision, verdict=verdict, plan={"card": H100} | plan)
    return bundle, folder / "engines"


def network_of(engine: BundleEngine, *, seen: list[tuple[str, int]] | None = None) -> ServedNetwork:
    """Takes as long as its precision should: half of the time for each of the two calls."""
    precision = engine.settings.precision
    pause_s = BOTH_CALLS_MS[precision] / 2000

    def network(pixels_nhwc_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if seen is not None:
            seen.append((precision, len(pixels_nhwc_u8)))
        CLOCK.now_s += pause_s
        return np.zeros((len(pixels_nhwc_u8), 3), np.float32), np.zeros((len(pixels_nhwc_u8), 0), np.float32)

    return network


def measure(bundle: Bundle, engines: Path, *, card: Card = H100, networks: Networks = network_of) -> Choice:
    return choose_plan(bundle, engines, rounds=3, calls_per_round=2, card=card, network_of=networks)


def test_the_fastest_measured_plan_is_chosen_although_int8_passed_too(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, PASSED, ["int8", "fp16", "fp32"])
    choice = measure(bundle, engines)
    assert choice.chosen == "tensorrt-fp16-sm90"
    assert choice.card == H100
    assert Choice.read(engines / "choice-sm90.json") == choice
    assert "ms a single image and a full batch" in choice.reason
    by_name = {candidate.engine: candidate for candidate in choice.candidates}
    best = by_name["tensorrt-fp16-sm90"]
    assert best.manifest_sha256 == sha256_file(engines / "tensorrt-fp16-sm90/manifest.json")
    assert best.speed_to_fp32 is not None
    assert best.speed_to_fp32 > by_name["tensorrt-int8-sm90"].speed_to_fp32 > 1  # type: ignore[operator]
    assert [(found.card, engine.path.name) for found, engine in chosen_plans(bundle, engines)] == [
        (H100, "tensorrt-fp16-sm90")
    ]


def test_fp8_is_one_more_candidate_where_the_spec_lists_it(tmp_path: Path) -> None:
    verdicts = PASSED | {"fp8": "pass"}
    bundle, engines = build(tmp_path / "listed", verdicts, ["int8", "fp8", "fp16"])
    assert measure(bundle, engines).chosen == "tensorrt-fp8-sm90"
    assert [engine.path.name for _, engine in chosen_plans(bundle, engines)] == ["tensorrt-fp8-sm90"]
    bundle, engines = build(tmp_path / "not_listed", verdicts, ["int8", "fp16"])
    assert measure(bundle, engines).chosen == "tensorrt-fp16-sm90"


def test_every_plan_is_asked_in_turn_for_a_single_image_and_for_the_largest_batch(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, PASSED, ["int8", "fp16"])
    seen: list[tuple[str, int]] = []
    measure(bundle, engines, networks=lambda engine: network_of(engine, seen=seen))
    assert {size for _, size in seen} == {1, 32}
    rounds = [seen[start : start + 12] for start in range(0, len(seen), 12)]
    assert len(rounds) == 2 + 3
    assert all({name for name, _ in calls} == {"fp32", "fp16", "int8"} for calls in rounds)
    assert len({calls[0][0] for calls in rounds}) == 3, "each is the first of a round"


def test_a_plan_that_failed_its_gate_is_neither_measured_nor_chosen(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, PASSED | {"fp16": "fail"}, ["int8", "fp16"])
    choice = measure(bundle, engines)
    assert choice.chosen == "tensorrt-int8-sm90"
    assert [found.median_ms for found in choice.candidates if found.precision == "fp16"] == [None]
    assert choice.reason.endswith("tensorrt-fp16-sm90 did not pass")


def test_a_plan_of_another_card_is_not_measured_here(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, PASSED, ["int8"])
    smaller = H100.model_copy(update={"name": "NVIDIA H100 NVL", "multiprocessors": 114})
    with pytest.raises(CompileError, match=r"built on NVIDIA H100 \(.*has NVIDIA H100 NVL .*compile it again here"):
        measure(bundle, engines, card=smaller)
    assert not (engines / "choice-sm90.json").exists()


def test_a_plan_that_was_built_for_more_cards_is_measured_on_any_of_them(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, PASSED, ["int8"], hardware_compatibility="same_compute_capability")
    smaller = H100.model_copy(update={"name": "NVIDIA H100 NVL", "multiprocessors": 114})
    assert measure(bundle, engines, card=smaller).card == smaller


def test_plans_of_different_largest_batches_are_not_compared_and_the_stale_one_is_named(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, {"fp32": "pass", "fp16": "pass"}, ["int8", "fp16"])
    path = engines / "tensorrt-int8-sm90"
    stand_in_plan(path, bundle, plan={"card": H100, "batch_sizes": [1, 8, 8]})
    with pytest.raises(CompileError, match=r"compared: \S*tensorrt-int8-sm90 for 8, while the spec says 32 .*again"):
        measure(bundle, engines)
    assert not (engines / "choice-sm90.json").exists()


def test_where_nothing_passed_or_fp32_is_missing_nothing_is_chosen(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path / "failed", {"fp32": "pass", "int8": "fail"}, ["int8"])
    with pytest.raises(GateError, match=r"none of the spec's precisions can be served on the gpu lane: .*'fail'"):
        measure(bundle, engines)
    bundle, engines = build(tmp_path / "alone", {"int8": "pass"}, ["int8"])
    with pytest.raises(ManifestError, match="tensorrt-fp32-sm90"):
        measure(bundle, engines)


def test_a_plan_that_was_compiled_again_needs_a_new_choice(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, PASSED, ["int8", "fp16"])
    measure(bundle, engines)
    (engines / "tensorrt-fp16-sm90").rename(tmp_path / "before")
    path = engines / "tensorrt-fp16-sm90"
    stand_in_plan(path, bundle, precision="fp16", data=b"compiled again", plan={"card": H100})
    with pytest.raises(NotChosenError, match=r"compiled again since choice-sm90\.json was measured"):
        chosen_plans(bundle, engines)


def test_plans_for_a_gpu_on_which_nothing_was_measured_are_not_served(tmp_path: Path) -> None:
    bundle, engines = build(tmp_path, PASSED, ["int8", "fp16"])
    measure(bundle, engines)
    stand_in_plan(engines / "tensorrt-int8-sm89", bundle, capability="8.9")
    with pytest.raises(NotChosenError, match=r"no choice-sm89\.json"):
        chosen_plans(bundle, engines)


def test_without_a_gpu_plans_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.engines.tensorrt_library.cards", lambda: ())
    bundle, engines = build(tmp_path, PASSED, ["int8"])
    with pytest.raises(CompileError, match="choosing between plans needs an NVIDIA GPU and its driver"):
        choose_plan(bundle, engines, rounds=1, calls_per_round=1)


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        (("26.08", "2.2.0", "0.8.0.22"), ""),
        ((None, "2.4.0", "0.9.0.20"), ""),
        (("26.08", "2.4.0", "0.9.0.20"), "DALI 2.2.0 is needed, and 2.4.0 is installed in release 26.08, but"),
        (("26.08", None, None), "DALI 2.2.0 is needed, and none is installed in release 26.08"),
    ],
)
def test_a_compile_job_whose_decoder_is_not_that_of_its_server_is_refused(
    installed: tuple[str | None, str | None, str | None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, dali, nvimgcodec = installed
    here = Installed(release=release, tensorrt="11.2.1", dali=dali, nvimgcodec=nvimgcodec)
    monkeypatch.setattr(Installed, "here", classmethod(lambda _: here))
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.2.1.2"))  # type: ignore[arg-type]
    if not says:
        require_release_of_server()
        return
    with pytest.raises(CompileError, match=says):
        require_release_of_server()
