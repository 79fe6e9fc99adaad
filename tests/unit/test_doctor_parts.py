"""What the doctor is made of: layouts, chains of tensors, links between files, plans and GPUs, this machine."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from colours import COLOURS, open_colours

from slipway.contract import Lane, Manifest
from slipway.contract.manifest import hashes
from slipway.lint.chain import broken_links
from slipway.lint.ensembles import check_ensemble
from slipway.lint.models import check_layout, read_models
from slipway.repository import assemble
from slipway.serving.doctor import machine
from slipway.serving.doctor.files import read_manifest
from slipway.serving.doctor.findings import Finding
from slipway.serving.doctor.machine import imported_modules, look

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLE, tmp_path / "repository")


def step(repository: Path, kind: str) -> Path:
    (folder,) = repository.glob(f"{kind}_*")
    return folder


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def nothing(_: Path) -> None:
    pass


def config(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / "config.pbtxt", old, new)


def version(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "1").rename(folder / name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (nothing, None),
        (version("7"), None),
        (config('backend: "python"', "bakcend: 1"), "does not parse"),
        (config('backend: "python"', 'backend: "python'), "does not parse"),
        (config('backend: "python"', ""), "names no backend"),
        (config('name: "post_', 'name: "pots_'), "a model's name is that of its folder"),
        (version("abc"), "no version folder"),
        (version("01"), "no version folder"),
        (lambda folder: (folder / "config.pbtxt").unlink(), "config.pbtxt cannot be read: No such file"),
        (lambda folder: (folder / "config.pbtxt").write_bytes(b"\xff"), "not UTF-8"),
        (lambda folder: (folder / "1/model.py").unlink(), "1/model.py is missing"),
        (config('backend: "python"', 'backend: "dali"'), "1/dali.py is missing"),
        (config('backend: "python"', 'backend: "python"\ndefault_model_filename: "m.py"'), "1/m.py is missing"),
        (config("dims: 3\n}\ninstance", 'dims: 3\nlabel_filename: "l.txt"\n}\ninstance'), "l.txt is missing"),
    ],
)
def test_a_folder_that_triton_cannot_load_is_told_by_its_layout(
    repository: Path, change: Callable[[Path], None], says: str | None
) -> None:
    folder = step(repository, "post")
    change(folder)
    found = check_layout(read_models(repository)[folder.name])
    assert found is None if says is None else says in (found or "")


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("colours", nothing, None),
        ("post", config('name: "logits_nc"', 'name: "logits"'), "has no input logits_nc"),
        ("post", config("input {", 'input {\n name: "x"\n data_type: TYPE_FP32\n}\ninput {'), "needs input x"),
        ("engine", config('name: "logits_nc"', 'name: "logits"'), "has no output logits_nc"),
        ("engine", config("dims: 32\n  dims: 32", "dims: 64\n  dims: 64"), "takes pixels_nchw as FP32 [3, 64, 64]"),
        ("engine", config("max_batch_size: 8", "max_batch_size: 4"), "of 4 at most"),
        (
            "post",
            config('"LABEL"\n  data_type: TYPE_STRING', '"LABEL"\n  data_type: TYPE_INT32'),
            "output LABEL is STRING",
        ),
        (
            "colours",
            config('value: "logits_nc"\n    }\n  }\n  step', 'value: "l"\n    }\n  }\n  step'),
            "needs logits_nc",
        ),
        (
            "colours",
            config("output {", 'output {\n name: "X"\n data_type: TYPE_FP32\n dims: 1\n}\noutput {'),
            "output X",
        ),
        ("colours", config('model_name: "post_', 'model_name: "pots_'), "its step pots_"),
    ],
)
def test_an_ensemble_that_does_not_hold_together_is_told_where(
    repository: Path, kind: str, change: Callable[[Path], None], says: str | None
) -> None:
    change(repository / "colours" if kind == "colours" else step(repository, kind))
    models = read_models(repository)
    problems = check_ensemble(models["colours"], models)
    assert problems == [] if says is None else any(says in problem for problem in problems), problems


def links(repository: Path) -> str:
    lane, models = Lane.read(repository / "lane.json"), read_models(repository)
    return "\n".join(f"{name}: {problem}" for name, problem in broken_links(lane, models, hashes(repository)))


def file(kind: str, name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda repository: rewrite(step(repository, kind) / "1" / name, old, new)


def other_graph(repository: Path) -> None:
    with (step(repository, "engine") / "1/model.onnx").open("ab") as graph:
        graph.write(b"\0")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (file("post", "labels.txt", "green\n", ""), "labels.txt has 2 labels"),
        (file("post", "labels.txt", "green", "blue"), "stands for classes 0 and 1"),
        (file("post", "labels.txt", "green", "grey"), "colours_full: labels.txt is not that of post_"),
        (
            file("post", "decision.json", '"top_k": 2', '"top_k": 3'),
            "answers the 3 best, and config.pbtxt says that LABEL",
        ),
        (file("post", "decision.json", '"top_k": 2', '"top_k": 0'), "decision.json: top_k"),
        (file("post", "bundle.txt", "5", "6"), "bundle.txt names bundle"),
        (
            file("preprocess", "preprocess.json", '"input_width": 32', '"input_width": 64'),
            "makes pixels_nchw [3, 32, 64]",
        ),
        (lambda repository: rewrite(repository / "colours/1/bundle.txt", "5", "6"), "colours: bundle.txt names bundle"),
        (lambda repository: shutil.rmtree(repository / "colours"), "colours: lane.json names this classifier"),
        (lambda repository: shutil.copytree(repository / "colours", repository / "two"), "two: an ensemble of no"),
        (other_graph, "and engine.json is of graph"),
        (
            file("engine", "engine.json", '"openvino"', '"tensorrt"'),
            "is of target tensorrt, and lane.json says the cpu",
        ),
        (file("engine", "engine.json", '"f32"', '"bf16"'), "config.pbtxt computes in f32, and engine.json says bf16"),
        (file("engine", "engine.json", '"classes": 3', '"classes": 4'), "says that logits_nc is [4]"),
    ],
)
def test_a_link_between_the_files_of_a_repository_that_does_not_hold_is_named(
    tmp_path: Path, change: Callable[[Path], None], says: str
) -> None:
    repository = tmp_path / "repository"
    assemble([open_colours(COLOURS)], repository)
    assert links(repository) == ""
    change(repository)
    assert says in links(repository)


def test_what_a_step_imports_is_read_without_running_it(repository: Path) -> None:
    (step(repository, "engine") / "1/more.py").write_text(
        "import absent.part, os\nfrom . import engine_openvino\n1/0\n"
    )
    models = {name.partition("_")[0]: model for name, model in read_models(repository).items()}
    assert imported_modules(models["engine"]) == {"numpy", "numpy.typing", "openvino", "absent.part"}
    assert imported_modules(models["preprocess"]) == {"numpy", "numpy.typing", "nvidia.dali"}
    assert imported_modules(models["colours"]) == set()


def seen(tmp_path: Path, repository: Path = EXAMPLE, *, shm_default_bytes: int = 1 << 20) -> dict[str, Finding]:
    lane = Lane.read(repository / "lane.json").model_copy(update={"shm_default_bytes": shm_default_bytes})
    found = look(lane, read_models(repository).values(), tmp_path / "workspace").findings
    return {finding.subject: finding for finding in found}


def test_a_package_that_the_serving_python_has_not_is_named(repository: Path, tmp_path: Path) -> None:
    (step(repository, "engine") / "1/more.py").write_text("import absent_package\n")
    finding = seen(tmp_path, repository)["python3"]
    assert finding.state == "fail"
    assert "cannot import absent_package: ModuleNotFoundError" in finding.reason


def test_shared_memory_that_is_too_small_is_said_with_both_numbers(tmp_path: Path) -> None:
    assert seen(tmp_path / "enough")["shared memory"].state == "ok"
    finding = seen(tmp_path, shm_default_bytes=1 << 50)["shared memory"]
    assert finding.state == "fail"
    assert "together 3377699721 MB" in finding.reason
    assert "--shm-size=" in finding.remedy


def test_a_port_in_use_is_a_note_that_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(machine, "Ports", lambda: SimpleNamespace(http=port))
        finding = seen(tmp_path)["ports"]
    assert finding.state == "untold"
    assert f"{port} (http)" in finding.reason
    assert "--http-port" in finding.remedy


def test_no_server_and_a_server_that_does_not_start_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tritonserver").write_text(
        "#!/bin/sh\necho 'libb64.so.0d: cannot open shared object file' >&2; exit 127\n"
    )
    (tmp_path / "tritonserver").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    finding = seen(tmp_path)["tritonserver"]
    assert finding.state == "fail"
    assert "does not start: libb64.so.0d: cannot open" in finding.reason


def test_more_threads_than_processors_are_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set())
    finding = seen(tmp_path)["processors"]
    assert finding.state == "untold"
    assert "with more threads" in finding.reason


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("{", "", "not valid JSON"), ('"name": "cpu"', '"name": "gpu"', "changed since this repository was made")],
)
def test_a_manifest_that_was_changed_itself_is_named(repository: Path, old: str, new: str, says: str) -> None:
    assert isinstance(read_manifest(repository), Manifest)
    rewrite(repository / "manifest.json", old, new)
    finding = read_manifest(repository)
    assert isinstance(finding, Finding)
    assert finding.subject == "manifest.json"
    assert says in finding.reason
