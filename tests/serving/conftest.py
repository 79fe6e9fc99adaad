"""Real servers, one for each repository, for the whole session; and what the tests ask them with."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from numpy.typing import NDArray
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slipway.contract import Decision
from slipway.repository import assemble
from slipway.serving import Ports, Server, serve
from tests.support.colours import copy_colours, reseal
from tests.support.gateways import Asked, running_gateway, write_gateway
from tests.support.processes import wait_for_words
from tests.support.v2_requests import RED

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "model_repository" / "example"


@pytest.fixture(scope="session")
def example_server() -> Iterator[Server]:
    """Serves `colours`: an image filled with a colour gets its name (blue, green, red)."""
    with serve(EXAMPLE, ports=Ports.free()) as server:
        yield server


@pytest.fixture(scope="session")
def digits_server(digits: Path) -> Iterator[Server]:
    """Serves the demo's digits in INT8."""
    with serve(digits / "repository", ports=Ports.free()) as server:
        yield server


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[Path], Server]]:
    """`start(repository)` is a server that ends with the last test of the file."""
    with ExitStack() as stack:
        yield lambda repository: stack.enter_context(serve(repository, ports=Ports.free()))


@pytest.fixture(scope="module")
def own_server(start: Callable[[Path], Server]) -> Server:
    """Serves `colours` to the tests of one file alone: they may harm it."""
    return start(EXAMPLE)


class Client:
    """Asks one server over one protocol. Answers are arrays by output name."""

    def __init__(self, server: Server, protocol: str, *, timeout_s: float = 20.0) -> None:
        self.protocol = protocol
        self.module = {"grpc": triton_grpc, "http": triton_http}[protocol]
        if protocol == "grpc":
            self.triton = triton_grpc.InferenceServerClient(server.grpc_url)
            self._options = {"client_timeout": timeout_s}
        else:
            self.triton = triton_http.InferenceServerClient(server.http_url, network_timeout=timeout_s)
            self._options = {}

    def ask(
        self, model: str, images: Sequence[bytes], outputs: Sequence[str] = (), *, class_count: int = 0
    ) -> dict[str, NDArray[Any]]:
        tensor = self.module.InferInput("IMAGE", [len(images), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[image] for image in images], np.object_))
        wanted = [self.module.InferRequestedOutput(name, class_count=class_count) for name in outputs]
        result = self.triton.infer(model, [tensor], outputs=wanted or None, **self._options)
        response = result.get_response()
        given = (
            [o["name"] for o in response["outputs"]] if self.protocol == "http" else [o.name for o in response.outputs]
        )
        return {name: result.as_numpy(name) for name in given}


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """`connect(server, "grpc" or "http")` gives a client, closed with the test: an open one holds a stopping server."""
    clients: list[Client] = []

    def connect(server: Server, protocol: str, **options: Any) -> Client:
        clients.append(Client(server, protocol, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.triton.close()


@pytest.fixture(scope="session")
def assemble_colours() -> Callable[..., Path]:
    """`assemble_colours(folder, serving={...}, decision={...})` is the repository of `colours` with that changed."""

    def assemble_colours(
        folder: Path, *, serving: dict[str, Any] | None = None, decision: dict[str, Any] | None = None
    ) -> Path:
        def change(part: Path) -> None:
            if decision is not None:
                Decision.parse(decision, source="test").write(part / "decision.json")

        spec = {"serving": serving or {}}
        assemble([copy_colours(folder / "colours", spec=spec, bundle=change, engine=change)], folder / "repository")
        return folder / "repository"

    return assemble_colours


@dataclass(frozen=True)
class Launched:
    """`slipway serve` as its own process, with a temporary folder of its own."""

    process: subprocess.Popen[bytes]
    ports: Ports
    temporary: Path
    messages: Path

    def said(self) -> str:
        return self.messages.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it has said by now under that name; it says nothing but JSON until it fails."""
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, text: str, timeout_s: float = 180.0) -> None:
        wait_for_words(self.process, self.messages, text, within_s=timeout_s)

    def below(self) -> list[psutil.Process]:
        """The server and its stubs: children, and orphans, which are known by the temporary folder they were given."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            mentions = any(str(self.temporary) in argument for argument in process.info["cmdline"] or ())
            if mentions and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != self.process.pid:
                found.append(process)
        return found

    def server(self) -> psutil.Process:
        return next(process for process in self.below() if "tritonserver" in Path(process.info["cmdline"][0]).name)

    def leftovers(self) -> list[str]:
        """What is there of this launch: processes, shared memory, temporary files."""
        processes = [f"process {p.pid} {p.info['cmdline'][0]}" for p in self.below()]
        shared = [str(path) for path in Path("/dev/shm").glob(f"slipway_{self.process.pid}_*")]
        return processes + shared + [str(path) for path in self.temporary.iterdir()]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    """`launch(repository, *options, environment={...})` starts the launcher; what it leaves is removed at the end."""
    launched: list[Launched] = []

    def launch(
        repository: Path, *options: str | Path, ports: Ports | None = None, environment: dict[str, str] | None = None
    ) -> Launched:
        ports = ports or Ports.free()
        folder = tmp_path / f"launch{len(launched)}"
        (folder / "tmp").mkdir(parents=True)
        flags = [f"--{name}-port={port}" for name, port in vars(ports).items()]
        # As in a terminal: a job in the background is started with Ctrl-C ignored, one under nohup with SIGHUP.
        python = ["env", "--default-signal=INT,HUP", sys.executable]
        with (folder / "messages").open("wb") as messages:
            process = subprocess.Popen(
                [*python, "-m", "slipway", "serve", str(repository), *flags, *map(str, options)],
                env={
                    **os.environ,
                    "TMPDIR": str(folder / "tmp"),
                    "XDG_STATE_HOME": str(folder / "state"),
                    **(environment or {}),
                },
                stdout=subprocess.DEVNULL,
                stderr=messages,
            )
        launched.append(Launched(process, ports, folder / "tmp", folder / "messages"))
        return launched[-1]

    yield launch
    for one in launched:
        for process in one.below():
            with suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
                process.kill()
        one.process.kill()
        one.process.wait()
        for region in Path("/dev/shm").glob(f"slipway_{one.process.pid}_*"):
            region.unlink(missing_ok=True)


@pytest.fixture
def changed_example(tmp_path: Path) -> Callable[[str, str], Path]:
    """`changed_example(step, source)` is the example with that step's model.py replaced, and hashes that fit."""

    def changed_example(step: str, source: str) -> Path:
        repository = tmp_path / "changed"
        shutil.copytree(EXAMPLE, repository)
        (model,) = repository.glob(f"{step}_*/1/model.py")
        model.write_text(source)
        reseal(repository)
        return repository

    return changed_example


@pytest.fixture
def unharmed(own_server: Any, connect: Callable[..., Any]) -> Iterator[Any]:
    """After every test the same processes are there, and the next good request is right on both protocols."""
    tree = psutil.Process(own_server.process.pid).children(recursive=True)
    yield own_server
    for protocol in ("grpc", "http"):
        answer = connect(own_server, protocol).ask("colours_full", [RED])
        assert answer["LABEL"][0, 0] == b"red"
    assert psutil.Process(own_server.process.pid).children(recursive=True) == tree


@pytest.fixture
def send(unharmed: Any) -> Iterator[Callable[..., Any]]:
    """Send a request as it is: no client library mends it."""
    client = triton_grpc.InferenceServerClient(unharmed.grpc_url)

    def send_unchanged(request: ModelInferRequest, timeout_s: float = 10.0) -> Any:
        return client._client_stub.ModelInfer(request, timeout=timeout_s)

    yield send_unchanged
    client.close()


@pytest.fixture(scope="module")
def gateway(own_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("gateway")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        teams = {
            "pets": {"key_file": "pets.key", "per_second": 10_000},
            "cars": {"key_file": "cars.key", "per_second": 2, "burst": 2},
        }
        path = write_gateway(
            folder,
            ports=own_server.ports,
            teams=teams,
            repository=str(EXAMPLE),
            budgets_ms={"colours": 35},
            access_log=str(folder / "access.jsonl"),
        )
        with running_gateway(path) as asked:
            yield asked


@pytest.fixture(scope="module")
def stub(gateway: Asked) -> GRPCInferenceServiceStub:
    return gateway.stub()
