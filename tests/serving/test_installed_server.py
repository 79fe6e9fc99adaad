"""A tritonserver that is installed, as in NVIDIA's images: the launcher owns it as it owns the wheel's.

The server is the wheel's own, laid out as the images have it.
"""

import importlib.util
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from slipway.contract import Lane, ServingError
from slipway.repository import Classifier, assemble
from slipway.serving import Ports, servable, serve
from slipway.serving.binary import find_tritonserver
from slipway.serving.contents import Contents
from slipway.serving.reload import reload
from tests.support.asking import asking, get, wait_until
from tests.support.cards import H100, L4
from tests.support.colours import copy_colours, reseal
from tests.support.gpu_on_cpu import play_on_the_cpu
from tests.support.lint_changes import edit_text
from tests.support.plans import stand_in_plan
from tests.support.reloading import reload as run_reload
from tests.support.v2_requests import RED

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return find_tritonserver(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def installed(wheel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`/opt/tritonserver` of an image, by links; its `bin` is on PATH."""
    root = tmp_path / "opt/tritonserver"
    (root / "bin").mkdir(parents=True)
    (root / "bin/tritonserver").symlink_to(wheel.path)
    (root / "lib").symlink_to(wheel.library_path)
    shutil.copytree(wheel.backend_directory, root / "backends", symlinks=True)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
    return root


def open_ports(process: psutil.Process) -> set[int]:
    """The ports that other machines reach."""
    connections = process.net_connections(kind="inet")
    listening = [one.laddr for one in connections if one.status == psutil.CONN_LISTEN]
    return {address.port for address in listening if address.ip in ("0.0.0.0", "::")}


def test_it_is_repaired_restarted_reloaded_and_ended_as_the_wheel_s_is(
    installed: Path, launch: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models/colours"
    shutil.copytree(EXAMPLE, repository)
    launched = launch(repository, "--host", "0.0.0.0", environment={"SLIPWAY_ADMIN_KEY": "key"})
    launched.wait_for("ready after")
    assert get(launched, "/ready/colours")[0] == 200
    server = launched.server()
    assert server.cmdline()[0] == str(installed / "bin/tritonserver")
    assert open_ports(server) | open_ports(psutil.Process(launched.process.pid)) == set(vars(launched.ports).values())

    assert any("Started GRPCInferenceService" in line for line in launched.said().splitlines())  # of its own log

    stub = next(child for child in server.children() if "python_backend_stub" in child.name())
    stub.kill()
    launched.wait_for("step_repaired")

    server.kill()
    deadline = time.monotonic() + 60
    while len(launched.events("ready")) < 2:
        assert time.monotonic() < deadline, launched.said()
        time.sleep(0.1)
    assert get(launched, "/ready/colours")[0] == 200

    def warmer(part: Path) -> None:
        edit_text(part / "decision.json", '"temperature": 1.0', '"temperature": 2.0')

    other = copy_colours(tmp_path / "other", bundle=warmer, engine=warmer)
    assemble([other], repository)
    monkeypatch.setenv("SLIPWAY_ADMIN_KEY", "key")
    code, said = run_reload(launched)
    assert code == 0, said
    assert "switched colours, colours_full" in said
    with asking(f"127.0.0.1:{launched.ports.grpc}", "colours", RED, clients=1) as asked:
        wait_until(lambda: asked)
    assert (asked[0].error, asked[0].label, asked[0].bundle) == ("", "red", other.bundle.id)

    launched.process.send_signal(signal.SIGTERM)
    assert launched.process.wait(timeout=30) == 0
    assert launched.leftovers() == []


def gpu_lane(folder: Path) -> Path:
    bundle = copy_colours(folder / "colours").bundle
    assemble([Classifier(bundle, stand_in_plan(folder / "plan", bundle))], folder / "gpu", lane="gpu")
    return folder / "gpu"


def test_it_serves_a_gpu_lane_where_there_is_a_gpu_and_reloads_no_plan_of_another(
    installed: Path, tmp_path: Path, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = gpu_lane(tmp_path)
    play_on_the_cpu(repository, tmp_path / "colours/engine")
    next(repository.glob("engine_*/1/engine.json")).unlink()  # it says that this engine is of the cpu lane
    lane = Lane.read(repository / "lane.json")
    lane.model_copy(update={"lane": "gpu", "tensorrt": None, "release": "26.08"}).write(repository / "lane.json")
    reseal(repository)
    with pytest.raises(ServingError, match=r"a gpu lane, and this machine shows no GPU \(.*docker run --gpus all"):
        serve(repository, ports=Ports.free()).__enter__()
    old = H100.model_copy(update={"driver": "550.54.15", "cuda": "12.4"})
    monkeypatch.setattr(servable, "find_gpus", lambda: ((old,), ""))
    with pytest.raises(ServingError, match=r"550.54.15 runs CUDA 12.4, and .* 26.08 .*; bring the driver up to date"):
        serve(repository, ports=Ports.free()).__enter__()
    monkeypatch.setattr(servable, "find_gpus", lambda: ((H100,), ""))
    with serve(repository, ports=Ports.free()) as server:
        assert connect(server, "grpc").ask("colours", [RED])["LABEL"][0, 0] == b"red"
        other_card = Contents.open(gpu_lane(tmp_path / "other"))
        monkeypatch.setattr(servable, "find_gpus", lambda: ((L4,), ""))
        (installed / "backends/tensorrt").mkdir()
        with pytest.raises(ServingError, match=r"no plan for NVIDIA L4 \(compute capability 8.9\), only for 9.0"):
            reload(server, other_card, deadline=time.monotonic() + 60)
        assert connect(server, "grpc").ask("colours", [RED])["LABEL"][0, 0] == b"red"


@pytest.mark.usefixtures("installed")
def test_a_lane_of_the_other_kind_is_refused_with_the_image_that_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = gpu_lane(tmp_path)
    with pytest.raises(ServingError, match=r"has no backend tensorrt; serve it in its own image: slipway contai"):
        serve(repository, ports=Ports.free()).__enter__()
    (repository.parent / "opt/tritonserver/backends/tensorrt").mkdir()
    monkeypatch.setattr(servable, "find_gpus", lambda: ((L4,), ""))
    with pytest.raises(
        ServingError, match=r"engine_\w+: no plan for NVIDIA L4 \(compute capability 8.9\), only for 9.0"
    ):
        serve(repository, ports=Ports.free()).__enter__()
    monkeypatch.setattr(servable, "find_gpus", lambda: ((H100,), ""))
    with pytest.raises(ServingError, match=r"TensorRT 10.16\S* is needed, and none is installed here; serve it in the"):
        serve(repository, ports=Ports.free()).__enter__()
    found = importlib.util.find_spec
    monkeypatch.setattr(servable.importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name))
    with pytest.raises(ServingError, match=r"a cpu lane, and OpenVINO is not installed here"):
        serve(EXAMPLE, ports=Ports.free()).__enter__()
