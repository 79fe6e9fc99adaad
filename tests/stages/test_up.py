"""`slipway init` and `slipway up`: a folder of images to a repository, and only what is not current again."""

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.cli import init, up
from slipway.contract import Bundle, DataError, Manifest, Spec, SpecError
from slipway.contract.recipe import Recipe
from slipway.contract.spec import AccuracyGate
from slipway.evaluation.gate import too_few
from slipway.lint import lint
from slipway.training import export
from slipway.training.data.dataset import scan
from slipway.training.learn.resume import UnfinishedRun
from tests.support.colour_training import small_spec, write_colours
from tests.support.scripts import run_here, step_here

STAGES = ("check", "data", "training", "export", "page of the evaluation", "fastest precision that passed", "report")


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`started(...)` runs `slipway init` in an empty folder, and returns the spec that it wrote."""
    monkeypatch.chdir(tmp_path)

    def started(*words: str) -> Path:
        arguments = init.parser().parse_args([*words, "--out", "spec.yaml"])
        init.main(arguments)
        return tmp_path / "spec.yaml"

    return started


def test_init_writes_a_spec_from_what_the_images_say(started: Callable[..., Path], tmp_path: Path) -> None:
    write_colours(tmp_path / "My Photos (2)")
    text = started("My Photos (2)", "--from-scratch").read_text()
    spec = Spec.read(tmp_path / "spec.yaml")
    assert (spec.name, spec.task, spec.data.root) == ("my_photos_2", "multiclass", "My Photos (2)")
    assert (spec.preprocess.input_height, spec.preprocess.input_width) == (32, 32), (
        "the images are 24 px, the least is 32"
    )
    assert spec.backbone.pretrained is False
    assert spec.accuracy.prove_classes is False, "three test images prove nothing of a class"
    assert spec.calibration.images == 20
    assert "the median shorter side is 24 px" in text


@pytest.mark.parametrize(("images", "fraction"), [(14, 0.15), (13, 0.2), (11, 0.2), (9, 0.25), (7, 0.3)])
def test_init_gives_every_split_an_image_of_the_smallest_class(
    images: int, fraction: float, started: Callable[..., Path], tmp_path: Path
) -> None:
    write_colours(tmp_path / "images", each=images)
    started("images")
    data = Spec.read(tmp_path / "spec.yaml").data
    assert (data.validation_fraction, data.test_fraction) == (fraction, fraction)
    assert data.least_images <= images


def test_init_reads_a_table_with_several_labels_an_image(started: Callable[..., Path], tmp_path: Path) -> None:
    write_colours(tmp_path / "images")
    rows = [
        f"{path.relative_to(tmp_path / 'images')},{path.parent.name}|warm" for path in tmp_path.glob("images/*/*.png")
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,labels", *rows, ""]))
    spec = Spec.read(started("images", "--csv", "labels.csv"))
    assert (spec.task, spec.data.csv, spec.backbone.name) == ("multilabel", "labels.csv", "auto")


def test_init_says_which_precisions_too_few_test_images_cannot_prove_and_the_remedies_work(
    started: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_colours(tmp_path / "images", each=120)
    text = started("images").read_text()
    said = capsys.readouterr().out
    assert "240 images in 2 classes (120 images each)" in said
    line = (
        "36 test images prove no loss smaller than 9.8 points (accuracy.max_loss_points: 1); that takes 368 test images"
    )
    assert "too few test images: int8 and bf16 would not pass their gate even by answering as FP32 does" in said
    assert line in said
    assert f"#   {line}" in text
    assert "list fp32 alone (precisions: [fp32])" in said
    spec, labels = Spec.read(tmp_path / "spec.yaml"), ("blue", "red")

    def few(images: int, spec: Spec) -> str | None:
        return too_few([(number % 2,) for number in range(images)], labels, spec)

    assert few(36, spec) is not None
    assert few(367, spec) is not None
    assert few(368, spec) is None
    assert few(36, spec.model_copy(update={"accuracy": AccuracyGate(max_loss_points=9.8, prove_classes=False)})) is None
    assert few(36, spec.model_copy(update={"precisions": ("fp32",)})) is None


@pytest.mark.parametrize(
    ("folder", "table", "name"), [("images", "pets.csv", "pets"), ("My Pets", "labels.csv", "my_pets")]
)
def test_init_names_the_classifier_after_what_says_more(
    folder: str, table: str, name: str, started: Callable[..., Path], tmp_path: Path
) -> None:
    write_colours(tmp_path / folder)
    rows = [f"{path.relative_to(tmp_path / folder)},{path.parent.name}" for path in (tmp_path / folder).glob("*/*.png")]
    (tmp_path / table).write_text("\n".join(["path,label", *rows, ""]))
    assert Spec.read(started(folder, "--csv", table)).name == name


def test_init_refuses_what_it_cannot_use_and_replaces_nothing(started: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        started("nowhere")
    write_colours(tmp_path / "few", each=6)
    with pytest.raises(DataError, match=r"class '.*' has 6 images, and a class needs at least 7 to be in each split"):
        started("few")
    write_colours(tmp_path / "images")
    started("images")
    with pytest.raises(SpecError, match="exists already; give another name with --out"):
        started("images")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing that the lane serves": ({"precisions": ["fp16"]}, "the cpu lane, which slipway up assembles, serves int8"),
    "nothing that can be proven": (
        {"precisions": ["int8"], "accuracy": {"prove_classes": False}},
        r"too few test images: int8 .*takes 736 test images.*or list fp32 too",
    ),
    "too many calibration images": ({"calibration": {"images": 100}}, "100 given, but the train split has only 28"),
    "calibration images of one class": (
        {"calibration": {"images": 1}, "precisions": ["int8", "fp32"]},
        "1 given, and all of one class; 2 or more are of several classes",
    ),
    "a batch that nothing fills": ({"recipe": {"batch_size": 64}}, "64 given, but only 28 train images"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_a_later_stage_would_refuse_is_refused_before_the_first(fault: str, tmp_path: Path) -> None:
    changes, message = WRONG[fault]
    write_colours(tmp_path / "images")
    options: dict[str, Any] = {"calibration": {"images": 8}, **changes}
    spec = small_spec(Path("images"), **options)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)))
    done = run_in_process(tmp_path)
    assert done.returncode == 1
    assert re.search(message, done.stdout + done.stderr, re.DOTALL)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "spec.yaml"}


def test_another_unfinished_run_and_a_folder_that_is_not_its_own_are_refused_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_colours(tmp_path / "images")
    write_spec(tmp_path)
    spec = Spec.read(tmp_path / "spec.yaml")
    unfinished = UnfinishedRun(tmp_path / "run/checkpoint")
    other = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"epochs": 7})})
    unfinished.begin(other, scan(spec.data), start="random (seed 0)", resume=True)
    unfinished.last.touch()
    done = run_in_process(tmp_path)
    assert "recipe.epochs: 7 in the unfinished run, 2 now" in done.stdout
    assert not (tmp_path / "run/inspection").exists()
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/notes.txt").touch()
    assert "repository: not empty, and not written by this stage" in run_in_process(tmp_path).stderr


@pytest.mark.parametrize("targets", [("openvino",), ("openvino", "tensorrt_rtx")])
def test_compilers_that_are_installed_are_found(
    targets: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_spec(Path("images")).write(tmp_path / "spec.yaml")
    up.check(up.open_run(up.parser().parse_args(["spec.yaml", "--target", *targets])))


def test_up_names_what_an_import_lacks(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="an import needs --labels and one of --onnx and --weights"):
        up.main(up.parser().parse_args([str(tmp_path / "spec.yaml"), "--onnx", "a.onnx"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small spec, with its images, after `slipway up`."""
    folder = tmp_path_factory.mktemp("up")
    write_colours(folder / "images", each=40)
    write_spec(folder)
    done = run_in_process(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "serve it:   slipway serve repository" in done.stdout
    return folder


def write_spec(folder: Path, **changes: Any) -> None:
    accuracy = {"max_loss_points": 30, "max_class_loss_points": 60, "max_flip_points": 60, "prove_classes": False}
    options = {
        "precisions": ["fp32"],
        "calibration": {"images": 8},
        "accuracy": accuracy,
        "tracking": {"logger": "none"},
    }
    spec = small_spec(Path("images"), **options, **changes)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)))


UP = ("up", "spec.yaml", "--run", "run", "--repository", "repository")


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """`slipway up` as users run it: each stage is a process."""
    command = [sys.executable, "-m", "slipway", *UP]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)


def run_in_process(folder: Path) -> subprocess.CompletedProcess[str]:
    """As `run`, but every stage in this process, which need not import the libraries again for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(up, "step", partial(step_here, cwd=folder))
        return run_here(*UP, cwd=folder, check=False)


def test_up_takes_a_spec_to_a_repository_without_faults(folder: Path) -> None:
    assert Manifest.open(folder / "run/bundle", kind="bundle").name == "colours"
    assert lint(folder / "repository") == []
    assert (folder / "run/evaluation.html").is_file()
    assert (folder / "run/report.html").is_file()


def test_a_second_up_makes_nothing_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    done = run_in_process(folder)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("✓ ")] == [
        f"✓ {name}: current" for name in STAGES
    ]
    assert "nothing changed, and nothing was written" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_change_that_no_weight_depends_on_is_exported_and_not_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # the spec's data root is relative
    plain = (folder / "spec.yaml").read_text()
    write_spec(folder, latency={"p99_ms": 40}, serving={"instances": 1})
    run_of = up.open_run(up.parser().parse_args([str(folder / "spec.yaml"), "--run", str(folder / "run")]))
    assert up.why_train(run_of) is None
    assert up.why_export(run_of) == f"latency, serving changed in {folder / 'spec.yaml'} since it was exported"
    export(folder / "run/checkpoint", folder / "bundle", spec=run_of.spec)
    exported = Bundle.open(folder / "bundle")
    assert (exported.spec.latency.p99_ms, exported.spec.serving.instances) == (40, 1)
    assert exported.id == Bundle.open(folder / "run/bundle").id
    other = run_of.spec.model_copy(update={"recipe": Recipe(epochs=1)})
    with pytest.raises(SpecError, match="was not trained with this spec; train again, or change only tracking"):
        export(folder / "run/checkpoint", folder / "refused", spec=other)
    (folder / "spec.yaml").write_text(plain)


def test_a_changed_spec_and_changed_images_are_trained_again_and_an_error_stops_it(folder: Path) -> None:
    write_spec(folder, recipe={"epochs": 1})
    run_of = up.open_run(up.parser().parse_args([str(folder / "spec.yaml"), "--run", str(folder / "run")]))
    assert up.why_train(run_of) == f"{folder / 'spec.yaml'} changed since it was trained"
    (folder / "images/red/00.png").write_bytes(b"no image")
    done = run(folder)
    assert done.returncode == 1
    assert "00.png" in done.stderr
    assert "slipway inspect SPEC --out FOLDER shows every fault of the images" in done.stderr
    assert "stopped with exit code 1; fix what it reports, and run the same command again" in done.stdout
