"""Step names that follow content, inputs that the assembler refuses, and what an interrupted one leaves."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest

import slipway
from slipway.contract import ManifestError, RepositoryError, SlipwayError
from slipway.repository import Classifier, assemble, step
from tests.support.colours import COLOURS, configs, contents, copy_colours, open_colours, replaced, step_names
from tests.support.scripts import run_here

PACKAGE = Path(slipway.__file__).parent
ALL = {"preprocess", "engine", "post"}


def another_graph(engine: Path) -> None:
    model = onnx.load(engine / "model.onnx")
    model.graph.name = "another"
    onnx.save(model, engine / "model.onnx")


CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, set()),
    "name of the classifier": ({"spec": {"name": "another"}}, set()),
    "preprocess.json": (
        {"bundle": replaced("preprocess.json", b'"pad_value": 0', b'"pad_value": 1')},
        {"preprocess", "post"},
    ),
    "labels.txt": ({"bundle": replaced("labels.txt", b"blue", b"azure")}, {"post"}),
    "decision.json": ({"bundle": replaced("decision.json", b'"temperature": 1.0', b'"temperature": 2.0')}, {"post"}),
    "decision of the engine": (
        {"engine": replaced("decision.json", b'"temperature": 1.0', b'"temperature": 2.0')},
        {"post"},
    ),
    "calibration.json": ({"bundle": replaced("calibration.json", b"[", b"[\n")}, {"engine", "post"}),
    "graph of the bundle": ({"bundle": another_graph}, {"post"}),
    "graph of the engine": ({"engine": another_graph}, {"engine"}),
    "arithmetic": ({"engine": replaced("engine.json", b'"f32"', b'"bf16"')}, {"engine"}),
    "threads": ({"spec": {"serving": {"threads": 2}}}, {"preprocess", "engine"}),
    "instances": ({"spec": {"serving": {"instances": 2}}}, {"preprocess", "engine"}),
    "queue delay": ({"spec": {"serving": {"max_queue_delay_us": 5}}}, {"preprocess"}),
    "queue size": ({"spec": {"serving": {"max_queue_size": 5}}}, {"preprocess"}),
    "queue time-out": ({"spec": {"serving": {"queue_timeout_ms": 5}}}, {"preprocess"}),
    "warm-up": ({"spec": {"serving": {"warmup_batches": 5}}}, {"preprocess", "engine"}),
    "batch": ({"spec": {"serving": {"max_batch_size": 4}}}, ALL),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_gets_another_name_exactly_when_something_in_it_is_another(change: str, tmp_path: Path) -> None:
    """The post step holds the bundle's id, so whatever changes the bundle changes its name; the engine step says which
    images its graph was calibrated with."""
    options, changed = CHANGES[change]
    assemble([open_colours(COLOURS)], tmp_path / "before")
    assemble([copy_colours(tmp_path / "changed", **options)], tmp_path / "after")
    before, after = step_names(tmp_path / "before"), step_names(tmp_path / "after")
    assert {kind for kind in ALL if before[kind] != after[kind]} == changed


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("steps/guard.py", "preprocess"),
        ("steps/guard_jpeg.py", "preprocess"),
        ("steps/dali_graph.py", "preprocess"),
        ("steps/preprocess.py", "preprocess"),
        ("steps/engine_openvino.py", "engine"),
        ("steps/postprocess.py", "post"),
        ("repository/backends/preprocess/model.py", "preprocess"),
        ("repository/backends/engine/model.py", "engine"),
        ("repository/backends/post/model.py", "post"),
    ],
)
def test_a_changed_line_of_code_gives_its_step_another_name(
    source: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = open_colours(COLOURS)
    assemble([colours], tmp_path / "before")
    for folder in ("steps", "repository"):
        shutil.copytree(PACKAGE / folder, tmp_path / "package" / folder)
    with (tmp_path / "package" / source).open("a") as file:
        file.write("# changed\n")
    monkeypatch.setattr(step.resources, "files", lambda _: tmp_path / "package")
    assemble([colours], tmp_path / "after")
    before, after = step_names(tmp_path / "before"), step_names(tmp_path / "after")
    assert {kind for kind in ALL if before[kind] != after[kind]} == {changed}


def test_classifiers_share_the_steps_that_are_equal_and_no_other(tmp_path: Path) -> None:
    first = open_colours(COLOURS)
    second = copy_colours(tmp_path / "second", spec={"name": "second"}, bundle=CHANGES["labels.txt"][0]["bundle"])
    lane = assemble([first, second], tmp_path / "out")
    assert lane.classifiers == {"colours": first.bundle.id, "second": second.bundle.id}
    found = configs(tmp_path / "out")
    kinds = sorted(name.split("_")[0] for name in found if name.startswith(("preprocess_", "engine_", "post_")))
    assert kinds == ["engine", "post", "post", "preprocess"]
    assert found.keys() >= {"colours", "colours_full", "second", "second_full"}
    posts = {step.model_name for name in ("colours", "second") for step in found[name].ensemble_scheduling.step[2:]}
    assert len(posts) == 2
    for name in posts | {"colours", "second"}:
        identity = (tmp_path / "out" / name / "1/bundle.txt").read_text().strip()
        assert identity in lane.classifiers.values()
    assert (tmp_path / "out/second_full/labels.txt").read_text() == "azure\ngreen\nred\n"


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ({"gate": {"verdict": "fail"}}, "fail"),
        ({"gate": {"verdict": "too few images to tell"}}, "too few images to tell"),
        ({"gate": {}}, "not gated"),
        ({}, "not gated"),
    ],
)
def test_an_engine_that_did_not_pass_its_gate_is_refused(
    measured: dict[str, Any], verdict: str, tmp_path: Path
) -> None:
    with pytest.raises(RepositoryError, match=f"engine: the accuracy gate says '{verdict}'"):
        assemble([copy_colours(tmp_path / "c", measured=measured)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("part", "file", "ours"), [("bundle", "preprocess.json", "libjpeg-turbo"), ("engine", "engine.json", "cpu")]
)
def test_what_was_evaluated_with_the_gpu_decoder_is_refused(part: str, file: str, ours: str, tmp_path: Path) -> None:
    change = replaced(file, b'"decoder": "cpu"', b'"decoder": "mixed"')
    with pytest.raises(RepositoryError, match=f"evaluated with decoder mixed, but the cpu lane decodes with {ours}"):
        assemble([copy_colours(tmp_path / "c", **{part: change})], tmp_path / "out")


def test_two_engines_of_one_classifier_are_refused_on_the_cpu_lane(tmp_path: Path) -> None:
    colours = open_colours(COLOURS)
    with pytest.raises(RepositoryError, match="the cpu lane serves one engine per classifier"):
        assemble([Classifier(colours.bundle, colours.engine, (colours.engine,))], tmp_path / "out")


def test_two_classifiers_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="classifiers colours: each name may appear once"):
        assemble([open_colours(COLOURS), copy_colours(tmp_path / "c")], tmp_path / "out")


def test_an_engine_of_another_bundle_is_refused_by_both_ids(tmp_path: Path) -> None:
    other = copy_colours(tmp_path / "c", bundle=CHANGES["labels.txt"][0]["bundle"])
    shutil.rmtree(tmp_path / "c/engine")
    shutil.copytree(COLOURS / "engine", tmp_path / "c/engine")
    with pytest.raises(ManifestError) as refused:
        open_colours(tmp_path / "c")
    message = str(refused.value)
    assert open_colours(COLOURS).bundle.id[:12] in message
    assert other.bundle.id[:12] in message


def test_a_file_in_the_place_of_the_repository_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SlipwayError, match="out: a file"):
        assemble([open_colours(COLOURS)], tmp_path / "out")
    assert contents(tmp_path) == {"out": b"mine"}


def test_a_link_in_the_place_of_the_repository_is_followed_or_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with suppress(SlipwayError):
        assemble([open_colours(COLOURS)], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "real"]


def test_a_repository_without_classifiers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="classifier"):
        assemble([], tmp_path / "out")


@pytest.mark.parametrize("labels", [b"blue\ngreen\n", b"blue\ngreen\nred\nwhite\n"])
def test_labels_that_are_not_one_a_logit_are_refused(labels: bytes, tmp_path: Path) -> None:
    def write(bundle: Path) -> None:
        (bundle / "labels.txt").write_bytes(labels)

    with pytest.raises(SlipwayError, match="labels"):
        assemble([copy_colours(tmp_path / "c", bundle=write)], tmp_path / "out")


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assemble([open_colours(COLOURS)], tmp_path / "out")
    assert (tmp_path / "out/lane.json").is_file()


@pytest.mark.parametrize(
    ("bundle", "engine", "out", "sentence"),
    [
        ("nowhere", COLOURS / "engine", "out", "nowhere: no manifest.json here; give the folder of a complete bundle"),
        ("file", COLOURS / "engine", "out", "file: no manifest.json here; give the folder of a complete bundle"),
        (
            COLOURS / "bundle",
            COLOURS / "bundle",
            "out",
            "bundle: this folder is of kind bundle, but kind engine is needed; give the folder of one",
        ),
        (
            COLOURS / "engine",
            COLOURS / "engine",
            "out",
            "engine: this folder is of kind engine, but kind bundle is needed; give the folder of one",
        ),
        (COLOURS / "bundle", COLOURS / "engine", "ours not", "ours not: not empty, and not written by this stage"),
    ],
)
def test_the_script_says_in_one_sentence_what_is_wrong_and_ends_with_1(
    bundle: Path | str, engine: Path, out: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "ours not").mkdir()
    (tmp_path / "ours not/file").write_text("")
    done = run_here("assemble", bundle, "--engine", engine, "--out", out, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("slipway assemble: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(contents(tmp_path)) == ["file", "ours not/file"]


@pytest.mark.parametrize("written", [0, 1, 3, 7, 10])
@pytest.mark.parametrize("before", [True, False])
def test_ctrl_c_while_writing_leaves_what_was_there_and_nothing_half_written(
    written: int, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours, out = copy_colours(tmp_path / "c", spec={"serving": {"threads": 2}}), tmp_path / "out"
    if before:
        assemble([open_colours(COLOURS)], out)
    expected = contents(tmp_path)
    write: Callable[[Path, bytes], int] = Path.write_bytes
    left = iter(range(written))

    def interrupted(path: Path, data: bytes) -> int:
        if next(left, None) is None:
            write(path, data[: len(data) // 2])
            raise KeyboardInterrupt
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        assemble([colours], out)
    assert contents(tmp_path) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == (["c", "out"] if before else ["c"])
