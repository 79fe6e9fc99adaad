"""What the doctor finds out of the machine: interpreter, packages, shared memory, ports, threads, server."""

import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from slipway.contract import Lane
from slipway.lint.models import read_models
from slipway.serving.doctor import machine
from slipway.serving.doctor.findings import Finding
from slipway.serving.doctor.machine import Interpreter, imported_modules, look

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
    said = str(tried.outputs) + tried.problem
    assert ("No module named 'only_there'" not in said) is found


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
    assert "have more threads" in finding.reason
