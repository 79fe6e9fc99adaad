"""What the doctor finds out of the machine: interpreter, packages, shared memory, ports, threads, server."""

import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from slipway.contract import Lane, Manifest
from slipway.contract.manifest import hashes
from slipway.lint.models import read_models
from slipway.repository import assemble
from slipway.serving.doctor import examine, machine
from slipway.serving.doctor.checks import Check, few, judge
from slipway.serving.doctor.machine import Interpreter, check_memory, imported_modules, look
from tests.support.gpu_lanes import gpu_classifier
from tests.support.heads import open_heads, write_base, write_heads

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLE, tmp_path / "repository")


def step(repository: Path, kind: str) -> Path:
    (folder,) = repository.glob(f"{kind}_*")
    return folder


def test_what_a_step_imports_is_read_without_running_it(repository: Path) -> None:
    (step(repository, "engine") / "1/more.py").write_text(
        "import absent.part, os\nfrom . import engine_openvino\n1/0\n"
    )
    models = {name.partition("_")[0]: model for name, model in read_models(repository).items()}
    assert imported_modules(models["engine"]) == {"numpy", "numpy.typing", "openvino", "absent.part"}
    decoders = {"nvidia", "simplejpeg"}
    resizers = {"cykooz_resizer", "cykooz_resizer.structs"}
    assert imported_modules(models["preprocess"]) == {"numpy", "numpy.typing"} | decoders | resizers
    assert imported_modules(models["colours"]) == set()


def test_a_step_on_a_gpu_alone_needs_dali(repository: Path) -> None:
    config = step(repository, "preprocess") / "config.pbtxt"
    config.write_text(config.read_text().replace("KIND_CPU", "KIND_GPU"))
    (on_gpu,) = (model for name, model in read_models(repository).items() if name.startswith("preprocess"))
    assert {"nvidia.dali", "nvidia.dali.backend"} <= imported_modules(on_gpu)


def seen(tmp_path: Path, repository: Path = EXAMPLE, *, shm_default_bytes: int = 1 << 20) -> dict[str, Check]:
    lane = Lane.read(repository / "lane.json").model_copy(update={"shm_default_bytes": shm_default_bytes})
    found = look(lane, read_models(repository).values(), tmp_path / "workspace").checks
    return {check.subject: check for check in found}


@pytest.fixture
def untried_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of another part of the machine waits for no interpreter."""
    monkeypatch.setattr(Interpreter, "run", lambda *_, **__: machine.Rehearsal({}, "not tried"))


def test_a_package_that_the_serving_python_has_not_is_named(repository: Path, tmp_path: Path) -> None:
    (step(repository, "engine") / "1/more.py").write_text("import absent_package\n")
    check = seen(tmp_path, repository)["python3"]
    assert check.state == "fail"
    assert "cannot import absent_package: ModuleNotFoundError" in check.reason


@pytest.mark.parametrize(
    ("isolated", "backend", "found"),
    [(True, "python", False), (False, "python", True), (True, "dali", True), (False, "dali", True)],
)
def test_packages_on_pythonpath_are_found_where_the_server_finds_them(
    isolated: bool, backend: str, found: bool, tmp_path: Path
) -> None:
    """NVIDIA's images have DALI there. The wheel's stub is isolated; a DALI backend calls python3, which is not."""
    (tmp_path / "only_there.py").write_text("__version__ = '2.2.0'\n")
    (tmp_path / "step/1").mkdir(parents=True)
    (tmp_path / "step/1/dali.py").write_text("import only_there\n")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
    interpreter = Interpreter(Path(sys.executable), environment, isolated=isolated)
    job = {"backend": "packages", "modules": ["only_there"]}
    if backend == "dali":
        job = {"backend": "dali", "folder": str(tmp_path / "step"), "version": "1", "build": False}
    tried = interpreter.run(job, timeout_s=60)
    said = str(tried.answer) + tried.problem
    assert ("No module named 'only_there'" not in said) is found


@pytest.mark.parametrize(("server", "state"), [("of the wheel", "fail"), ("installed", "ok")])
def test_a_package_on_pythonpath_alone_is_missing_from_the_wheel_s_server_and_not_from_an_installed_one(
    server: str, state: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (step(repository, "engine") / "1/more.py").write_text("import only_there\n")
    (tmp_path / "only_there.py").write_text("__version__ = '2.2.0'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if server == "installed":
        write_server(tmp_path, "echo 'Usage: tritonserver [options]'")
    check = seen(tmp_path, repository)["python3"]
    assert check.state == state
    assert ("cannot import only_there" in check.reason) is (state == "fail")
    assert ("only_there 2.2.0" in check.reason) is (state == "ok")


def write_server(folder: Path, body: str) -> None:
    (folder / "tritonserver").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "tritonserver").chmod(0o755)


@pytest.mark.usefixtures("untried_python")
def test_shared_memory_that_is_too_small_is_said_with_both_numbers(tmp_path: Path) -> None:
    assert seen(tmp_path / "enough")["shared memory"].state == "ok"
    check = seen(tmp_path, shm_default_bytes=1 << 50)["shared memory"]
    assert check.state == "fail"
    assert "together 3377699721 MB" in check.reason
    assert "--shm-size=" in check.remedy


@pytest.mark.usefixtures("untried_python")
def test_a_port_in_use_is_a_note_that_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(machine, "Ports", lambda: SimpleNamespace(http=port))
        check = seen(tmp_path)["ports"]
    assert check.state == "untold"
    assert f"{port} (http)" in check.reason
    assert "--http-port" in check.remedy


@pytest.mark.usefixtures("untried_python")
def test_no_server_and_a_server_that_does_not_start_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_server(tmp_path, "echo 'libb64.so.0d: cannot open shared object file' >&2; exit 127")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    check = seen(tmp_path)["tritonserver"]
    assert check.state == "fail"
    assert "does not start: libb64.so.0d: cannot open" in check.reason


@pytest.fixture(params=["cpu", "gpu"])
def lane_and_settings(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, str]:
    """A repository of each lane, and the settings of its instances and threads."""
    if request.param == "cpu":
        return EXAMPLE, "serving.instances", "serving.threads"
    assemble([gpu_classifier(tmp_path, "9.0")], tmp_path / "gpu", lane="gpu")
    instances = "serving.gpu.decode_instances or serving.gpu.engine_instances"
    return tmp_path / "gpu", instances, "serving.gpu.decode_threads"


@pytest.mark.usefixtures("untried_python")
def test_more_threads_than_processors_are_a_note_that_names_the_lane_s_own_settings(
    lane_and_settings: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, instances, threads = lane_and_settings
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set())
    check = seen(tmp_path, repository)["processors"]
    assert check.state == "untold"
    assert "have more threads" in check.reason
    assert check.remedy == f"lower {instances} or {threads}, or latency suffers"


def test_memory_that_may_not_do_is_a_note_that_names_the_lane_s_own_settings(
    lane_and_settings: tuple[Path, str, str],
) -> None:
    repository, instances, _ = lane_and_settings
    models = read_models(repository)
    check = check_memory(dict.fromkeys(models, 1e9), models)
    assert check.state == "untold"
    assert "it may not fit" in check.reason
    assert check.remedy == f"lower {instances} in the spec"
    assert check_memory(dict.fromkeys(models, 0.001), models).state == "ok"


def test_many_names_are_the_first_ones_and_the_number_of_the_others() -> None:
    assert few(["a", "b"]) == "a, b"
    names = [f"h{number:04}" for number in range(2000)]
    assert few(names).startswith("h0000, h0001, ")
    assert few(names).endswith("h0011, 1,988 more")


def test_a_head_with_a_fault_that_the_server_does_not_look_for_is_not_said_to_be_left_out(tmp_path: Path) -> None:
    base, repository = write_base(tmp_path / "base"), tmp_path / "repository"
    assemble([], repository, bases=open_heads(base, write_heads(tmp_path / "heads", base, 3)))
    (decision,) = repository.glob("heads_*/1/heads/h0000/decision.json")
    decision.write_text(decision.read_text().replace('"top_k": 2', '"top_k": 1'))
    (weights,) = repository.glob("heads_*/1/heads/h0001/head.npz")
    weights.write_bytes(b"no weights")
    sealed = Manifest.read(repository / "manifest.json")
    sealed.model_copy(update={"outputs": hashes(repository)}).write(repository / "manifest.json")
    files = examine.Files.read(repository)
    found = [examine._said("ensemble", fault, name) for name in files.needs for fault in files.of_heads(name)]
    verdict = judge(found, files.needs, faulty=files.faulty)
    assert verdict.may_serve == ("h0000", "h0000_full")
    assert verdict.would_serve == ("h0002", "h0002_full")
    assert not verdict.good
    _, *lines = str(verdict).splitlines()
    assert [line.partition(", because")[0] for line in lines] == [
        *(f"has a fault, and may be served all the same: {name}" for name in ("h0000", "h0000_full")),
        *(f"would not serve: {name}" for name in ("h0001", "h0001_full")),
    ]
