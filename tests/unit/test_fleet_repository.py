"""What a fleet becomes: shared steps, kept bundles, ensembles of several classifiers, queues; all in files."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from slipway.contract import Lane, Manifest, Preprocess, RepositoryError
from slipway.lint import lint
from slipway.repository import Classifier, assemble
from tests.support.colours import COLOURS, configs, contents, copy_colours, open_colours, replaced
from tests.support.plans import stand_in_plan

PUBLIC = ("LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE")
KINDS = ("preprocess_", "engine_", "post_")
RENAMED = replaced("labels.txt", b"blue", b"azure")


def one_more_class(bundle: Path) -> None:
    (bundle / "labels.txt").write_bytes(b"blue\ngreen\nred\nwhite\n")


def another_decision(folder: Path) -> None:
    replaced("decision.json", b'"temperature": 1.0', b'"temperature": 2.0')(folder)


def colours(folder: Path, name: str = "colours", **options: Any) -> Classifier:
    return copy_colours(folder, spec={"name": name, **options.pop("spec", {})}, **options)


def kinds(repository: Path) -> list[str]:
    return sorted(name.split("_")[0] for name in configs(repository) if name.startswith(KINDS))


def with_kept(active: Classifier, *kept: Classifier) -> Classifier:
    return Classifier(active.bundle, active.engine, kept=kept)


def test_a_classifier_is_served_under_the_fleet_s_name_with_the_fleet_s_settings(tmp_path: Path) -> None:
    opened = open_colours(COLOURS)
    settings = opened.bundle.spec.serving.model_copy(update={"threads": 3, "max_batch_size": 4})
    lane = assemble([Classifier(opened.bundle, opened.engine, served_as="shades", settings=settings)], tmp_path / "out")
    found = configs(tmp_path / "out")
    assert lane.classifiers == {"shades": opened.bundle.id}
    assert {name for name in found if not name.startswith(KINDS)} == {"shades", "shades_full"}
    assert {config.max_batch_size for config in found.values()} == {4}
    assert lane.shm_default_bytes < assemble([opened], tmp_path / "other").shm_default_bytes


def test_the_steps_of_a_kept_bundle_are_there_and_no_ensemble_runs_them(tmp_path: Path) -> None:
    active, kept = open_colours(COLOURS), colours(tmp_path / "kept", bundle=another_decision, engine=another_decision)
    lane = assemble([with_kept(active, kept)], tmp_path / "out")
    found = configs(tmp_path / "out")
    assert lane.classifiers == {"colours": active.bundle.id}
    assert lane.kept == {"colours": (kept.bundle.id,)}
    assert kinds(tmp_path / "out") == ["engine", "post", "post", "preprocess"]
    run = {step.model_name for config in found.values() for step in config.ensemble_scheduling.step}
    (idle,) = {name for name in found if name.startswith(KINDS)} - run
    assert (tmp_path / "out" / idle / "1/bundle.txt").read_text().strip() == kept.bundle.id
    manifest = Manifest.open(tmp_path / "out", kind="repository")
    assert manifest.inputs.keys() == {
        f"colours/{part}" for part in ("bundle", "engine", "kept1/bundle", "kept1/engine")
    }


def test_making_the_kept_bundle_the_active_one_brings_no_new_step(tmp_path: Path) -> None:
    one, other = open_colours(COLOURS), colours(tmp_path / "other", bundle=another_decision, engine=another_decision)
    assemble([with_kept(one, other)], tmp_path / "before")
    lane = assemble([with_kept(other, one)], tmp_path / "after")
    before, after = contents(tmp_path / "before"), contents(tmp_path / "after")
    steps = {path for path in before if path.startswith(KINDS)}
    assert steps == {path for path in after if path.startswith(KINDS)}
    assert {path: before[path] for path in steps} == {path: after[path] for path in steps}
    assert lane.classifiers["colours"] == other.bundle.id


def test_a_bundle_that_is_no_longer_kept_is_not_in_the_repository(tmp_path: Path) -> None:
    active, kept = open_colours(COLOURS), colours(tmp_path / "kept", bundle=another_decision, engine=another_decision)
    assemble([with_kept(active, kept)], tmp_path / "out")
    assemble([active], tmp_path / "out")
    assert kinds(tmp_path / "out") == ["engine", "post", "preprocess"]
    assert kept.bundle.id.encode() not in b"".join(contents(tmp_path / "out").values())


@pytest.mark.parametrize("longer_is_active", [True, False])
def test_new_classes_come_after_the_old_ones(longer_is_active: bool, tmp_path: Path) -> None:
    change = replaced("engine.json", b'"classes": 3', b'"classes": 4')
    longer, shorter = colours(tmp_path / "longer", bundle=one_more_class, engine=change), open_colours(COLOURS)
    active, kept = (longer, shorter) if longer_is_active else (shorter, longer)
    assert assemble([with_kept(active, kept)], tmp_path / "out").kept == {"colours": (kept.bundle.id,)}


def test_a_class_that_changed_its_id_is_named_with_both_labels_and_bundles(tmp_path: Path) -> None:
    swapped = colours(tmp_path / "swapped", bundle=replaced("labels.txt", b"green\nred", b"red\ngreen"))
    active = open_colours(COLOURS)
    with pytest.raises(RepositoryError, match=r"colours: class 1 is '\w+' in .*, with new classes last") as refused:
        assemble([with_kept(active, swapped)], tmp_path / "out")
    for part in ("'green'", "'red'", str(active.bundle.path), str(swapped.bundle.path)):
        assert part in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_two_kept_bundles_are_held_to_each_other_too(tmp_path: Path) -> None:
    """Both begin with the active one's labels, and go on differently."""
    four = replaced("engine.json", b'"classes": 3', b'"classes": 4')
    kept = []
    for last in (b"white", b"black"):
        change = replaced("labels.txt", b"red\n", b"red\n" + last + b"\n")
        kept.append(colours(tmp_path / last.decode(), bundle=change, engine=four))
    with pytest.raises(RepositoryError, match=r"class 3 is '(white|black)' in .* and '(white|black)' in"):
        assemble([with_kept(open_colours(COLOURS), *kept)], tmp_path / "out")


def test_a_kept_bundle_is_checked_as_an_active_one_is(tmp_path: Path) -> None:
    failed = colours(tmp_path / "failed", bundle=another_decision, measured={"gate": {"verdict": "fail"}})
    with pytest.raises(RepositoryError, match="failed/engine: the accuracy gate says 'fail'"):
        assemble([with_kept(open_colours(COLOURS), failed)], tmp_path / "out")


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`colours`, `shades` with another decision and `tints` with other labels, and `page` that answers for all."""
    folder = tmp_path_factory.mktemp("trio")
    three = [
        open_colours(COLOURS),
        colours(folder / "shades", "shades", bundle=another_decision, engine=another_decision),
        colours(folder / "tints", "tints", bundle=RENAMED),
    ]
    assemble(three, folder / "out", multi={"page": ["colours", "shades", "tints"]})
    return folder / "out"


def test_a_multi_ensemble_gives_the_answers_of_its_classifiers_by_name(trio: Path) -> None:
    found, lane = configs(trio), Lane.read(trio / "lane.json")
    page = found["page"]
    assert lane.multi == {"page": ("colours", "shades", "tints")}
    assert lane.ensembles["page"] == ("colours", "shades", "tints")
    assert [(t.name, t.data_type, list(t.dims)) for t in page.input] == [("IMAGE", pb.TYPE_STRING, [1])]
    expected = {f"{name}.{tensor}" for name in lane.classifiers for tensor in PUBLIC}
    assert {t.name for t in page.output} == expected
    for tensor in page.output:
        name, _, inner = tensor.name.partition(".")
        (single,) = [t for t in found[name].output if t.name == inner]
        assert (tensor.data_type, list(tensor.dims)) == (single.data_type, list(single.dims))
    assert page.max_batch_size == found["colours"].max_batch_size
    bundles = dict(line.split() for line in (trio / "page/1/bundle.txt").read_text().splitlines())
    assert bundles == lane.classifiers


def test_a_multi_ensemble_runs_the_steps_that_the_single_ones_run_and_decodes_once(trio: Path) -> None:
    found = configs(trio)
    singles = {
        step.model_name for name in ("colours", "shades", "tints") for step in found[name].ensemble_scheduling.step
    }
    run = [step.model_name for step in found["page"].ensemble_scheduling.step]
    assert set(run) == singles == {name for name in found if name.startswith(KINDS)}
    assert [name.split("_")[0] for name in run] == ["preprocess", *["engine", "post"] * 3]


def test_no_two_steps_of_a_multi_ensemble_can_run_at_the_same_time(trio: Path) -> None:
    """Each step takes something that the one before it makes: parallel branches end tritonserver 2.51."""
    found = configs(trio)
    steps = found["page"].ensemble_scheduling.step
    for before, after in pairwise(steps):
        assert set(before.output_map.values()) & set(after.input_map.values())
    for step in steps:
        inputs = {t.name: t for t in found[step.model_name].input}
        assert {t.name for t in inputs.values() if not t.optional} <= set(step.input_map) <= set(inputs)
        assert set(step.output_map) <= {t.name for t in found[step.model_name].output}


def test_no_public_tensor_of_a_multi_ensemble_is_an_input_of_a_step(trio: Path) -> None:
    page = configs(trio)["page"]
    public = {t.name for t in page.output}
    made = [tensor for step in page.ensemble_scheduling.step for tensor in step.output_map.values()]
    assert len(made) == len(set(made)), "no two steps write one tensor"
    assert public <= set(made)
    assert public.isdisjoint(tensor for step in page.ensemble_scheduling.step for tensor in step.input_map.values())


def test_single_ensembles_give_the_engine_nothing_to_wait_for(trio: Path) -> None:
    for name in ("colours", "colours_full"):
        _, engine, _ = configs(trio)[name].ensemble_scheduling.step
        assert set(engine.input_map) == {"pixels_nhwc_u8"}


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (
            {"bundle": replaced("preprocess.json", b'"pad_value": 0', b'"pad_value": 1')},
            "preprocess.pad_value is 0 .* 1",
        ),
        ({"spec": {"serving": {"threads": 2}}}, "serving.threads is 1 for colours and 2 for other"),
        ({"spec": {"serving": {"max_queue_size": 2}}}, "serving.max_queue_size is 0 for colours and 2 for other"),
    ],
)
def test_classifiers_that_cannot_share_a_decode_are_refused_with_what_differs(
    other: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    pair = [open_colours(COLOURS), colours(tmp_path / "other", "other", **other)]
    with pytest.raises(RepositoryError, match=f"page: colours and other cannot share one decode: {difference}"):
        assemble(pair, tmp_path / "out", multi={"page": ["colours", "other"]})
    assert not (tmp_path / "out").exists()


def test_classifiers_that_differ_in_mean_and_std_alone_share_a_decoder(tmp_path: Path) -> None:
    def another_mean(bundle: Path) -> None:
        preprocess = Preprocess.read(bundle / "preprocess.json")
        preprocess.model_copy(update={"mean": (0.5, 0.5, 0.5)}).write(bundle / "preprocess.json")

    pair = [open_colours(COLOURS), colours(tmp_path / "other", "other", bundle=another_mean)]
    assemble(pair, tmp_path / "out", multi={"page": ["colours", "other"]})
    assert kinds(tmp_path / "out").count("preprocess") == 1


def test_on_the_gpu_lane_the_engines_of_a_multi_ensemble_run_side_by_side(tmp_path: Path) -> None:
    """TensorRT's engines have no tensor to wait for, and that lane's servers survive it: docs/adr/0051."""
    pair = []
    for name in ("colours", "other"):
        bundle = colours(tmp_path / name, name).bundle
        pair.append(Classifier(bundle, stand_in_plan(tmp_path / f"{name}_plan", bundle, data=name.encode())))
    assemble(pair, tmp_path / "out", lane="gpu", multi={"page": ["colours", "other"]})
    steps = configs(tmp_path / "out")["page"].ensemble_scheduling.step
    _, engine, post, other_engine, other_post = steps
    assert [step.model_name.split("_")[0] for step in steps] == ["preprocess", *["engine", "post"] * 2]
    for engines in (engine, other_engine):
        assert dict(engines.input_map) == {"pixels_nhwc_u8": "pixels_nhwc_u8"}
    for own, posts in (("colours", post), ("other", other_post)):
        assert set(posts.input_map.values()) == {f"{own}.logits_nc", "image_status"}
        assert "PROBABILITY" not in posts.output_map, "nobody waits for it"
    assert lint(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("gpu", "difference"),
    [
        ({"decode_threads": 9}, "serving.gpu.decode_threads is 4 for colours and 9 for other"),
        ({"max_batch_size": 16}, "serving.gpu.max_batch_size is 32 for colours and 16 for other"),
        ({"gpus": [1]}, r"serving.gpu.gpus is \[\] for colours and \[1\] for other"),
    ],
)
def test_a_decode_that_differs_on_the_gpu_is_refused_too(gpu: dict[str, Any], difference: str, tmp_path: Path) -> None:
    """What the engine alone depends on, and what is the cpu lane's, is not named as a reason."""
    of_no_account = {"engine_instances": 3, "cuda_graphs": False, "fallback": "onnxruntime"}
    pair = []
    for name, settings in (("colours", {}), ("other", {"threads": 2, "gpu": {**gpu, **of_no_account}})):
        bundle = colours(tmp_path / name, name, spec={"serving": settings}).bundle
        pair.append(Classifier(bundle, stand_in_plan(tmp_path / f"{name}_plan", bundle)))
    with pytest.raises(RepositoryError, match=f"cannot share one decode: {difference}; make it equal"):
        assemble(pair, tmp_path / "out", lane="gpu", multi={"page": ["colours", "other"]})


@pytest.mark.parametrize("lane", ["cpu", "gpu"])
def test_the_first_step_s_queue_is_bounded_and_no_other_is(lane: Any, tmp_path: Path) -> None:
    serving = {"max_queue_size": 8, "queue_timeout_ms": 150}
    classifier = colours(tmp_path / "c", spec={"serving": serving})
    if lane == "gpu":
        classifier = Classifier(classifier.bundle, stand_in_plan(tmp_path / "plan", classifier.bundle))
    assemble([classifier], tmp_path / "out", lane=lane)
    for name, config in configs(tmp_path / "out").items():
        policy = config.dynamic_batching.default_queue_policy
        expected = pb.ModelQueuePolicy()
        if name.startswith("preprocess_"):
            expected = pb.ModelQueuePolicy(
                timeout_action=pb.ModelQueuePolicy.REJECT,
                default_timeout_microseconds=150_000,
                allow_timeout_override=False,
                max_queue_size=8,
            )
        assert policy == expected, name


@pytest.mark.parametrize("only", ["max_queue_size", "queue_timeout_ms"])
def test_a_queue_may_be_bounded_in_one_way_alone(only: str, tmp_path: Path) -> None:
    assemble([colours(tmp_path / "c", spec={"serving": {only: 5}})], tmp_path / "out")
    (policy,) = [
        config.dynamic_batching.default_queue_policy
        for name, config in configs(tmp_path / "out").items()
        if name.startswith("preprocess_")
    ]
    given = (policy.max_queue_size, policy.default_timeout_microseconds)
    assert given == ((5, 0) if only == "max_queue_size" else (0, 5000))


def test_a_queue_without_bounds_is_not_spoken_of(tmp_path: Path) -> None:
    assemble([open_colours(COLOURS)], tmp_path / "out")
    assert not any(b"queue_policy" in data for data in contents(tmp_path / "out").values())
