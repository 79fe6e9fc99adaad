"""Engines that the gpu lane refuses, each by name and with what to change."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Bundle, BundleEngine, ManifestError, RepositoryError, ServingError, SlipwayError, SpecError
from slipway.repository import Classifier, assemble
from slipway.serving import serve
from slipway.system.files import sha256_bytes
from tests.support.colours import COLOURS, contents, copy_colours, open_colours, replaced
from tests.support.damage import flip_byte
from tests.support.plans import seal, stand_in_plan

BUNDLE = Bundle.open(COLOURS / "bundle")
Make = Callable[[Path], Classifier]


def one(**options: Any) -> Make:
    return lambda folder: Classifier(BUNDLE, stand_in_plan(folder / "plan", BUNDLE, **options))


def two(first: dict[str, Any], second: dict[str, Any]) -> Make:
    return lambda folder: Classifier(
        BUNDLE, stand_in_plan(folder / "first", BUNDLE, **first), (stand_in_plan(folder / "second", BUNDLE, **second),)
    )


def without_the_plan(folder: Path) -> Classifier:
    """The manifest does not miss the plan either: a folder that was put together by hand."""
    engine = stand_in_plan(folder / "plan", BUNDLE)
    (engine.path / "model_sm90.plan").unlink()
    return Classifier(BUNDLE, seal(engine.path, BUNDLE))


def with_another_label(folder: Path) -> Classifier:
    bundle = copy_colours(folder / "c", bundle=replaced("labels.txt", b"red\n", b"red\nwhite\n")).bundle
    return Classifier(bundle, stand_in_plan(folder / "plan", bundle, classes=3))


SM89 = {"capability": "8.9"}
REFUSED: dict[str, tuple[Make, str]] = {
    "proof of TensorRT-RTX": (
        one(target="tensorrt_rtx", capability=None, verdict="proof only"),
        "plan: compiled by tensorrt_rtx, which only proves that a graph compiles.*--target tensorrt",
    ),
    "engine of the cpu lane": (
        lambda _: open_colours(COLOURS),
        "engine: compiled by openvino for the cpu lane, but this is the gpu lane",
    ),
    "failed gate": (one(verdict="fail"), "plan: the accuracy gate says 'fail', but only engines that passed"),
    "gate that cannot tell": (one(verdict="too few images to tell"), "says 'too few images to tell'"),
    "evaluated on the CPU's decoder": (
        one(decoder="cpu"),
        "plan: evaluated with decoder cpu, but the gpu lane decodes with mixed; compile it again",
    ),
    "labels": (with_another_label, "4 labels for 3 logits of .*plan; give an engine that was compiled from"),
    "smaller batch": (
        one(plan={"batch_sizes": [1, 4, 4]}),
        r"plan: the plan takes batches of 1 to 4 images, but the spec serves 1 to 32 \(serving.gpu.max_batch_size\)",
    ),
    "no single images": (one(plan={"batch_sizes": [2, 8, 8]}), "the plan takes batches of 2 to 8 images"),
    "no word of the GPU": (one(capability=None), "engine.json: does not name the GPU that the plan was built for"),
    "no plan settings": (one(plan=None), "engine.json: does not name the GPU"),
    "no plan": (without_the_plan, "model_sm90.plan: missing; compile it again"),
    "two of one GPU": (two({}, {}), "first and .*second: two plans for compute capability 9.0; give one"),
    "two graphs": (
        two({}, SM89 | {"graph_sha256": sha256_bytes(b"another")}),
        "first and .*second: graph_sha256 [0-9a-f]{12} and [0-9a-f]{12}; compile the plans of one classifier",
    ),
    "two precisions": (two({}, SM89 | {"precision": "fp16"}), "precision int8 and fp16"),
    "two embeddings": (two({}, SM89 | {"embedding_size": 5}), "embedding_size 3 and 5"),
    "two versions": (
        two({}, SM89 | {"plan": {"version": "11.1.0"}}),
        "plans of several TensorRT versions: .*first of 10.16.1.11, .*second of 11.1.0; a server has one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_on_the_gpu_lane_is_refused_by_name(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    with pytest.raises(RepositoryError, match=message):
        assemble([make(tmp_path)], tmp_path / "out", lane="gpu")
    assert not (tmp_path / "out").exists()


def test_a_plan_is_refused_on_the_cpu_lane_with_the_lane_it_belongs_to(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="compiled by tensorrt for the gpu lane, but this is the cpu lane"):
        assemble([one()(tmp_path)], tmp_path / "out")


def test_plans_of_two_versions_that_are_version_compatible_are_served_together(tmp_path: Path) -> None:
    version_compatible = {"version_compatible": True}
    plans = two({"plan": version_compatible}, SM89 | {"plan": version_compatible | {"version": "11.1.0"}})
    assert assemble([plans(tmp_path)], tmp_path / "out", lane="gpu").tensorrt_version_compatible


def test_versions_must_agree_between_classifiers_too(tmp_path: Path) -> None:
    other = copy_colours(tmp_path / "other", spec={"name": "other"}).bundle
    plan = stand_in_plan(tmp_path / "second", other, plan={"version": "11.1.0"})
    with pytest.raises(RepositoryError, match="several TensorRT versions"):
        assemble([one()(tmp_path), Classifier(other, plan)], tmp_path / "out", lane="gpu")


@pytest.mark.parametrize("file", ["model_sm90.plan", "engine.json", "decision.json"])
def test_one_changed_byte_of_an_engine_is_refused_by_name(file: str, tmp_path: Path) -> None:
    flip_byte(stand_in_plan(tmp_path / "plan", BUNDLE).path / file)
    with pytest.raises(ManifestError, match=f"{file}: changed since this engine was made"):
        BundleEngine.open(tmp_path / "plan", bundle=BUNDLE)


def test_a_plan_of_another_bundle_is_refused_by_both_ids(tmp_path: Path) -> None:
    other = copy_colours(tmp_path / "c", bundle=replaced("labels.txt", b"blue", b"azure")).bundle
    plan = stand_in_plan(tmp_path / "plan", other)
    with pytest.raises(ManifestError, match=f"{other.id:.12}.*{BUNDLE.id:.12}; compile it again"):
        BundleEngine.open(plan.path, bundle=BUNDLE)


def test_a_plan_that_is_a_link_is_refused(tmp_path: Path) -> None:
    engine = stand_in_plan(tmp_path / "plan", BUNDLE)
    shutil.move(engine.path / "model_sm90.plan", tmp_path / "elsewhere.plan")
    (engine.path / "model_sm90.plan").symlink_to(tmp_path / "elsewhere.plan")
    with pytest.raises(ManifestError, match=r"model_sm90.plan: a symbolic link"):
        BundleEngine.open(engine.path, bundle=BUNDLE)


def test_nothing_is_left_of_a_gpu_lane_that_was_refused_over_an_older_one(tmp_path: Path) -> None:
    assemble([one()(tmp_path)], tmp_path / "out", lane="gpu")
    before = contents(tmp_path / "out")
    with pytest.raises(SlipwayError):
        assemble([one(verdict="fail")(tmp_path / "second")], tmp_path / "out", lane="gpu")
    assert contents(tmp_path / "out") == before


def test_the_wheel_s_server_refuses_a_gpu_lane_and_names_the_command_that_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no tritonserver on it: the wheel's is taken
    assemble([one()(tmp_path)], tmp_path / "out", lane="gpu")
    with (
        pytest.raises(ServingError, match=r"out: a gpu lane, .*slipway container serve .*out --run"),
        serve(tmp_path / "out"),
    ):
        pass


@pytest.mark.parametrize("size", ["classes", "embedding_size"])
def test_an_engine_of_less_than_nothing_is_refused(size: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"{size}: Input should be greater than or equal to 0; given -1"):
        stand_in_plan(tmp_path / "plan", BUNDLE, **{size: -1})


def test_a_decision_with_other_keys_is_no_engine(tmp_path: Path) -> None:
    path = stand_in_plan(tmp_path / "plan", BUNDLE).path
    (path / "decision.json").write_text(json.dumps({"task": "multiclass", "top_k": 2, "mood": "good"}))
    with pytest.raises(SlipwayError, match="mood: unknown key"):
        seal(path, BUNDLE)
