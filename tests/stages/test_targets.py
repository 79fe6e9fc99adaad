"""Where stages may write: over what the same kind of stage wrote, and nothing else, least of all their own input."""

import argparse
import errno
import importlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from slipway.contract import Bundle, Manifest, SpecError, StorageError
from slipway.contract.search import SearchSpace
from slipway.engines import build_engine, choose, quantize
from slipway.pages import check_page, write
from slipway.repository import open_engines, plan_repository
from slipway.system.files import complete_folder
from slipway.system.targets import (
    MARKERS,
    FolderKind,
    Sealed,
    check_file,
    check_folder,
    storage_error,
    write_file,
)
from slipway.training import export, import_onnx, import_timm, train
from slipway.training.data.demo_data import write_digits, write_pages, write_parity
from slipway.training.data.inspection import inspect
from slipway.training.learn.callbacks import WholeCheckpoints
from slipway.training.search.hyperparameters import search
from slipway.training.search.label_errors import find_label_errors, write_clean
from tests.support.colour_training import small_spec, write_colours
from tests.support.colours import COLOURS

ROOT = Path(__file__).parents[2]
SEALED: tuple[FolderKind, ...] = get_args(Sealed)
KINDS: tuple[FolderKind, ...] = (*SEALED, *(kind for kind in MARKERS if kind not in SEALED))
SPACE = SearchSpace.parse(
    {"metric": "val_loss", "parameters": {"recipe.learning_rate": {"low": 0.001, "high": 0.01}}}, source="test"
)
ABSENT = Path("absent")
"""Read by no stage, since every refusal comes first."""


def compile_to(out: Path) -> None:
    """Where engine folders are written into a folder that the user names, that one is the engine's."""
    out.rename(folder := out.with_name("openvino-fp32"))
    build_engine(bundle(), ABSENT, folder.parent, target="openvino", precision="fp32", reference=None)


def assemble_to(out: Path) -> None:
    plan_repository([open_engines(bundle(), [COLOURS / "engine"], lane="cpu")], out)


def bundle() -> Bundle:
    return Bundle.open(COLOURS / "bundle")


def spec(root: Path = ABSENT) -> Any:
    return small_spec(root)


STAGES: dict[str, tuple[FolderKind, Callable[[Path], Any]]] = {
    "train": ("checkpoint", lambda out: train(spec(), out)),
    "export": ("bundle", lambda out: export(ABSENT, out)),
    "import an ONNX file": ("bundle", lambda out: import_onnx(spec(), ABSENT, out, labels=None)),
    "import timm weights": ("bundle", lambda out: import_timm(spec(), ABSENT, out, labels=None)),
    "quantize": ("graph", lambda out: quantize(bundle(), out)),
    "compile": ("engine", compile_to),
    "assemble": ("repository", assemble_to),
    "inspect": ("inspection", lambda out: inspect(spec(make_data(out.parent)), out)),
    "find_label_errors": ("label errors", lambda out: find_label_errors(spec(), out, folds=2, seed=0)),
    "search": ("search", lambda out: search(spec(), SPACE, out, trials=1, seed=0)),
    "make_digits": ("digits", lambda out: write_digits(out, seed=0)),
    "make_pages": ("pages", lambda out: write_pages(out, pages=1, seed=0)),
}


def make_data(folder: Path) -> Path:
    """As little as `inspect` wants before it writes."""
    for name in ("data/a/1.png", "data/b/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder / "data"


def make(folder: Path, kind: FolderKind) -> Path:
    """What a stage of this kind leaves, with a file that must not be lost."""
    folder.mkdir(parents=True)
    (folder / "precious").write_text("precious")
    if kind in SEALED:
        Manifest.seal(folder, kind=kind, name="colours")  # type: ignore[arg-type]
    else:
        (folder / MARKERS[kind]).touch()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


OTHERS = [(stage, kind) for stage, kind in itertools.product(STAGES, KINDS) if STAGES[stage][0] != kind]


@pytest.mark.parametrize(("stage", "kind"), OTHERS)
def test_no_stage_replaces_a_folder_of_another_kind(stage: str, kind: FolderKind, tmp_path: Path) -> None:
    out = make(tmp_path / "out", kind)
    writes, run = STAGES[stage]
    before = contents(out)
    with pytest.raises(SpecError, match=f"of kind {kind}, and one of kind {writes} is to be written"):
        run(out)
    assert contents(out if out.exists() else tmp_path / "openvino-fp32") == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("manifest", [None, "", "{}", "[]", '{"kind": "Deployment"}', "[" * 100_000])
def test_no_stage_replaces_somebody_s_own_folder(stage: str, manifest: str | None, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("precious")
    if manifest is not None:
        (tmp_path / "out/manifest.json").write_text(manifest)
    with pytest.raises(SpecError, match="not empty, and not written by this stage"):
        STAGES[stage][1](tmp_path / "out")
    assert (next(tmp_path.glob("o*")) / "precious").read_text() == "precious"


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_the_same_kind_is_replaced(kind: FolderKind, tmp_path: Path) -> None:
    with complete_folder(make(tmp_path / "out", kind), kind=kind) as staging:
        (staging / "new").touch()
    assert os.listdir(tmp_path / "out") == ["new"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "search"])
def test_nothing_is_written_into_a_folder_of_ours(stage: str, kind: FolderKind, tmp_path: Path) -> None:
    around = make(tmp_path / "ours", kind)
    (around / "out").mkdir()
    with pytest.raises(SpecError, match=f"a folder of kind {kind}, which holds nothing else"):
        STAGES[stage][1](around / "out")


SAME = {
    "itself": lambda folder: folder,
    "a trailing slash": lambda folder: Path(f"{folder}/"),
    "a dot": lambda folder: Path(f"{folder}/./."),
    "two dots": lambda folder: folder / ".." / folder.name,
    "a relative path": lambda folder: Path(os.path.relpath(folder)),
    "a link above": lambda folder: link(folder.parent) / folder.name,
}


def link(folder: Path) -> Path:
    (found := folder.with_name(f"link to {folder.name}")).symlink_to(folder)
    return found


@pytest.mark.parametrize("name", SAME)
def test_an_input_is_not_replaced_by_whatever_name_it_is_given(name: str, tmp_path: Path) -> None:
    given = make(tmp_path / "runs/given", "checkpoint")
    other = SAME[name](given)
    for target, one in ((given, other), (other, given)):
        with pytest.raises(SpecError) as raised:
            check_folder(target, kind="checkpoint", inputs=[one])
        assert str(target) in str(raised.value)
        assert str(one) in str(raised.value)


def test_an_input_that_is_a_link_to_the_folder_is_found(tmp_path: Path) -> None:
    given = make(tmp_path / "given", "checkpoint")
    with pytest.raises(SpecError, match="which is read for it"):
        check_folder(given, kind="checkpoint", inputs=[link(given)])
    (tmp_path / "weights").symlink_to(given / "precious")
    with pytest.raises(SpecError, match="which is read for it"):
        check_folder(given, kind="checkpoint", inputs=[tmp_path / "weights"])


def test_a_folder_that_holds_an_input_or_lies_in_one_is_refused(tmp_path: Path) -> None:
    around = make(tmp_path / "around", "search")
    (around / "data").mkdir()
    with pytest.raises(SpecError, match=r"holds .*data, which is read for it; give another folder for the search"):
        check_folder(around, kind="search", inputs=[around / "data"])
    with pytest.raises(SpecError, match=r"lies in .*around, which is read for it; give another folder for the graph"):
        check_folder(around / "new/graph", kind="graph", inputs=[around])
    check_folder(tmp_path / "around too", kind="graph", inputs=[around, tmp_path / "absent"])


@pytest.mark.parametrize("name", [".", "..", "a/.."])
def test_a_folder_without_a_name_is_told_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here/a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SpecError, match="give the folder by its name: ") as raised:
        check_folder(Path(name), kind="bundle")
    remedy = Path(str(raised.value).rpartition("name: ")[2])
    assert remedy == Path(name).resolve()
    assert remedy.name


def test_stages_do_not_write_into_what_they_read_or_over_it(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    checkpoint = make(tmp_path / "checkpoint", "checkpoint")
    with pytest.raises(SpecError, match=r"lies in .*data, which is read for it"):
        train(spec(data), data / "checkpoint")  # which would be a class
    backbone = {"pretrained": True, "weights": str(checkpoint / "model.safetensors")}
    weights = small_spec(data, backbone=backbone)
    with pytest.raises(SpecError, match=r"holds .*model\.safetensors, which is read for it"):
        train(weights, checkpoint)
    shutil.copytree(COLOURS, runs := tmp_path / "colours")
    opened = open_engines(Bundle.open(runs / "bundle"), [runs / "engine"], lane="cpu")
    make(runs / "repository", "repository").joinpath("fleet.yaml").touch()
    with pytest.raises(SpecError, match=r"holds .*fleet\.yaml, which is read for it"):
        plan_repository([opened], runs / "repository", inputs=[runs / "repository/fleet.yaml"])
    with pytest.raises(SpecError, match=r"lies in .*bundle, which is read for it"):
        build_engine(opened.bundle, ABSENT, runs / "bundle", target="openvino", precision="fp32", reference=None)


def test_a_root_of_listed_images_may_hold_the_folder(tmp_path: Path) -> None:
    listed = small_spec(tmp_path, data={"root": str(tmp_path), "csv": str(tmp_path / "data.csv")})
    with pytest.raises(Exception, match=r"data\.csv: cannot be read"):  # and not the folder
        train(listed, tmp_path / "runs/checkpoint")
    with pytest.raises(SpecError, match="which is read for it"):
        train(listed, tmp_path)


def parity_to(out: Path) -> None:
    write_parity(ABSENT, out, images_per_digit=1, seed=0)


def quantize_beside(out: Path) -> None:
    out.rename(out.with_name("int8-search.json"))
    quantize(bundle(), out.with_name("int8"))


def choose_beside(out: Path) -> None:
    out.rename(out.with_name("choice.json"))
    choose(bundle(), out.parent, rounds=1, images_per_round=1)


FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "evaluate": ("<title>a: evaluation</title>", lambda out: check_page(out, kind="evaluation")),
    "report": ("<title>a: build report</title>", lambda out: check_page(out, kind="build report")),
    "augmentation": ("<title>a: what training sees</title>", lambda out: check_page(out, kind="augmentation")),
    "benchmark report": ("<title>Benchmark report: a</title>", lambda out: check_page(out, kind="benchmark report")),
    "make_parity": ("path,label,split\n", parity_to),
    "clean": ("path,label,split\n", lambda out: write_clean(spec(), ABSENT, out)),
    "failed search": ('{"steps": []}', quantize_beside),
    "choose": ('{"chosen": "a"}', choose_beside),
}


@pytest.mark.parametrize("stage", FILES)
@pytest.mark.parametrize("other", ["a spec", "a model", "the file of another stage"])
def test_no_stage_replaces_a_file_of_another_kind(stage: str, other: str, tmp_path: Path) -> None:
    mine = FILES[stage][0]
    strangers = [text for text, _ in FILES.values() if text != mine]
    texts = {"a spec": ["name: a\n"], "a model": ["\0" * 5000], "the file of another stage": strangers}[other]
    for number, text in enumerate(texts):
        (out := tmp_path / str(number) / "out").parent.mkdir()
        out.write_text(text)
        with pytest.raises(SpecError, match="and nothing else is replaced; give another file, or remove it"):
            FILES[stage][1](out)
        assert next(out.parent.iterdir()).read_text() == text


def test_a_page_of_the_same_kind_and_an_empty_file_are_replaced(tmp_path: Path) -> None:
    (out := tmp_path / "page.html").touch()
    for _ in range(2):
        write("<title>a: evaluation</title>", out, kind="evaluation")
    assert out.read_text() == "<title>a: evaluation</title>"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_table_is_not_written_over_the_one_that_it_is_made_of(tmp_path: Path) -> None:
    (table := tmp_path / "data.csv").write_text("path,label,split\n")
    listed = small_spec(tmp_path, data={"root": str(tmp_path), "csv": str(table)})
    with pytest.raises(SpecError, match="read for a table"):
        write_clean(listed, ABSENT, table)
    os.link(table, tmp_path / "another name.csv")
    with pytest.raises(SpecError, match="read for a table"):
        write_clean(listed, ABSENT, tmp_path / "another name.csv")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full", "/tmp"])
def test_a_device_or_a_folder_is_no_file_to_replace(path: str) -> None:
    with pytest.raises(SpecError, match="a folder or device"):
        check_file(Path(path), mark="x", what="a page")


def test_a_page_in_a_bundle_would_spoil_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a folder of kind bundle, which holds nothing else"):
        check_page(make(tmp_path / "bundle", "bundle") / "evaluation.html", kind="evaluation")


def test_the_server_s_log_replaces_no_other_file(tmp_path: Path) -> None:
    from slipway.serving.__main__ import _log

    (tmp_path / "spec.yaml").write_text("name: a\n")
    (tmp_path / "triton.log").write_text("I1128 …\n")
    for path in (str(tmp_path / "spec.yaml"), "/dev/null"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"give another, for example {path}.log"):
            _log(path)
    assert _log(str(tmp_path / "triton.log")) == tmp_path / "triton.log"
    assert _log(str(tmp_path / "new")) == tmp_path / "new"


VERBS = ("gate", "perf_analyzer", "tune")
STUDIES = (
    "layouts",
    "efficiency",
    "robustness",
    "verdict",
    "soak",
    "guard",
    "lint_corpus",
    "training",
    "backbones",
    "peers",
)


@pytest.mark.parametrize("script", [*VERBS, *STUDIES, "peers"])
def test_every_benchmark_replaces_its_own_results_alone(script: str, tmp_path: Path) -> None:
    module = f"slipway.cli.{script}" if script in VERBS else f"benchmarks.studies.{script}.__main__"
    parser = importlib.import_module(module).parser()
    actions = [a for a in parser._actions if a.dest in ("out", "output")]
    (option,) = [action.type for action in actions]
    result = ROOT / "benchmarks/results" / f"{RESULTS.get(script, script)}.json"
    for other in (ROOT / "benchmarks/results").glob("*.json"):
        mine = other == result or {script, other.stem} <= SHARED.get(script, set())
        shutil.copy(other, tmp_path)
        if mine:
            assert option(str(tmp_path / other.name)) == tmp_path / other.name
        else:
            with pytest.raises(argparse.ArgumentTypeError, match="nothing else is replaced"):
                option(str(tmp_path / other.name))
    with pytest.raises(argparse.ArgumentTypeError, match="give a file in a folder that exists"):
        option(str(tmp_path / "nowhere/result.json"))


RESULTS = {"gate": "digits-int8-cpu", "tune": "tuning", "lint_corpus": "lint-corpus", "training": "experiments"}
SHARED = {"gate": {"gate", "digits-capacity-cpu"}, "robustness": {"robustness", "fifty"}}


@contextmanager
def mounted(disk: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # SQLite may still have its file open


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "full", "size=64k") as disk:
        yield disk


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "read only", "ro") as disk:
        yield disk


def test_a_full_disk_is_one_sentence_and_leaves_nothing(full: Path) -> None:
    with pytest.raises(StorageError) as raised:
        write_file(full / "page.html", "x" * 200_000)
    assert str(raised.value) == (
        f"{full / 'page.html'}: cannot be written: No space left on device; "
        "free some space, or give a path on another disk"
    )
    with pytest.raises(StorageError, match="out: cannot be written: No space left"):  # noqa: SIM117
        with complete_folder(full / "out", kind="bundle") as staging:
            (staging / "model.onnx").write_bytes(b"x" * 200_000)
    assert os.listdir(full) == []


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "compile"])
def test_every_stage_refuses_a_disk_that_cannot_be_written_before_it_works(stage: str, read_only: Path) -> None:
    run = STAGES[stage][1]
    if stage == "inspect":  # its data lie elsewhere
        data = make_data(read_only.parent)
        run = lambda out: inspect(spec(data), out)  # noqa: E731
    with pytest.raises(StorageError, match="out: cannot be written: Read-only file system; give a path on a disk"):
        run(read_only / "a/out")
    (read_only.parent / "file").touch()
    if stage != "inspect":
        with pytest.raises(StorageError, match="out: cannot be written: Not a directory; a part of the path is a file"):
            run(read_only.parent / "file/out")


def test_compile_refuses_a_disk_that_cannot_be_written(read_only: Path) -> None:
    with pytest.raises(StorageError, match="openvino-fp32: cannot be written: Read-only file system"):
        build_engine(bundle(), ABSENT, read_only, target="openvino", precision="fp32", reference=None)


def test_a_name_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="File name too long; give a shorter name"):
        check_folder(tmp_path / ("x" * 300), kind="bundle")
    with pytest.raises(StorageError, match="File name too long; give a shorter name"):
        check_file(tmp_path / ("x" * 300), mark="x", what="a page")


def test_a_copy_that_fails_names_where_it_was_copied_to() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/tmp/part", None, "/disk/last.ckpt")
    assert str(storage_error(error)).startswith("/disk/last.ckpt: No space left on device; free some space")


@pytest.mark.parametrize("error", [OSError(errno.ECONNRESET, "reset"), PermissionError(errno.EACCES, "of a socket")])
def test_an_error_that_is_not_of_files_keeps_its_traceback(error: OSError) -> None:
    assert storage_error(error) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_script_of_somebody_who_may_not_write_there_ends_in_one_sentence() -> None:
    code = (
        "import argparse, os; from pathlib import Path; from slipway.system.process import run; "
        "from slipway.system.files import complete_folder; parser = argparse.ArgumentParser(prog='stage'); "
        "os.setuid(65534); "
        "run(lambda _: complete_folder(Path('/usr/ours'), kind='bundle').__enter__(), parser)"
    )
    environment = {**os.environ, "HOME": "/tmp"}  # which somebody else may write, unlike root's
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sentence = "stage: /usr/ours: cannot be written: Permission denied; change its permissions, or give another path\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_a_contract_that_finds_the_disk_full_says_where(full: Path) -> None:
    with pytest.raises(StorageError, match=r"full/space\.json: cannot be written: No space left on device; free some"):
        SPACE.model_copy(update={"metric": "x" * 200_000}).write(full / "space.json")


def test_a_search_that_finds_the_disk_full_says_so(full: Path) -> None:
    with pytest.raises(StorageError, match=r"study\.db: cannot be written: database or disk is full; mend that"):
        search(spec(), SPACE, full / "search", trials=1, seed=0)


def test_a_full_disk_leaves_the_checkpoint_of_the_epoch_before(full: Path) -> None:
    files = WholeCheckpoints()
    files.save_checkpoint({"epoch": 1}, full / "last.ckpt")
    with pytest.raises(OSError, match="No space left on device"):
        files.save_checkpoint({"epoch": 2, "weights": torch.zeros(100_000)}, full / "last.ckpt")
    assert torch.load(full / "last.ckpt", weights_only=True) == {"epoch": 1}
    assert os.listdir(full) == ["last.ckpt"]


@pytest.mark.parametrize("name", ["checkpoint.resume", "errors.folds"])
def test_what_stands_where_a_stage_keeps_its_unfinished_work_is_not_touched(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").write_text("precious")
    data = write_colours(tmp_path / "data")
    stage = train if name.endswith("resume") else find_label_errors
    options: dict[str, Any] = {} if stage is train else {"folds": 2, "seed": 0}
    with pytest.raises(SpecError, match=f"{name}: (.*); rename it"):
        stage(small_spec(data), (tmp_path / name).with_suffix(""), **options)
    assert os.listdir(tmp_path / name) == ["precious"]
