"""What the real tritonserver does with a repository: load it or refuse it, and answer, fail, hang or die when asked.

The server is started as the launcher starts it, without automatic completion of configurations, but with all of its
models, and one that does not load does not end it. Each repository gets a server of its own.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tritonclient import grpc

from slipway.lint.rule_table import Reaction as Word
from slipway.serving import Ports
from slipway.serving.binary import find_tritonserver
from tests.support.image_files import encode

READY_S, ANSWER_S = 25.0, 4.0
AT_ONCE = 48
"""Requests of a burst: more than wait anywhere by design."""
GIVE_UP_S, GIVE_UP_ROUNDS = (0.003, 0.02, ANSWER_S), 8
"""Deadlines in turn, and bursts of them, of clients that do not all wait for an answer."""
Answers = dict[str, dict[str, Any]]
"""Ensemble to output to rows; `LABELS` is what Triton's classification extension says of PROBABILITY."""


@dataclass(frozen=True)
class Observation:
    """What happened."""

    server: Word
    said: str
    """Of a server that does not serve the repository: its first words about it."""
    on_request: tuple[str, ...] = ()
    """Where answers are not those of the good repository, the first three; empty: they all are."""


class Running:
    """A server that was started, and may be up."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process, self.log = process, log
        self.client = grpc.InferenceServerClient(url)

    def ask(
        self,
        ensemble: str,
        outputs: list[str],
        *,
        images: list[bytes] | None = None,
        classes: int = 0,
        wait_s: float = ANSWER_S,
    ) -> dict[str, Any]:
        sent = IMAGES if images is None else images
        image = grpc.InferInput("IMAGE", [len(sent), 1], "BYTES")
        image.set_data_from_numpy(np.array(sent, np.object_).reshape(-1, 1))
        wanted = [grpc.InferRequestedOutput(name, class_count=classes) for name in outputs]
        result = self.client.infer(ensemble, [image] if sent else [], outputs=wanted, client_timeout=wait_s)
        return {name: result.as_numpy(name).tolist() for name in outputs}

    def models(self) -> dict[str, tuple[str, str]]:
        """State and reason of what the server took for a model."""
        index = self.client.get_model_repository_index(client_timeout=ANSWER_S).models
        return {model.name: (model.state, model.reason) for model in index}

    def ensembles(self) -> dict[str, Any]:
        configs = {name: self.client.get_model_config(name, client_timeout=ANSWER_S).config for name in self.models()}
        return {name: config for name, config in sorted(configs.items()) if config.platform == "ensemble"}

    def is_up(self) -> bool:
        deadline = time.monotonic() + READY_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(grpc.InferenceServerException):
                if self.client.is_server_live(client_timeout=1.0):
                    return True
            time.sleep(0.05)
        return False

    def failure(self, error: Exception) -> str:
        """What became of a request, in few words."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.3)
            return DIED
        message = str(error.message() if isinstance(error, grpc.InferenceServerException) else error)
        return HANGS if "Deadline Exceeded" in message else _plain(message.partition("\n")[0])


DIED, HANGS = "the server died", "never answered"


@contextmanager
def running(repository: Path) -> Iterator[Running]:
    """A server on a copy of `repository`; nothing of it is left afterwards."""
    workspace = Path(tempfile.mkdtemp(prefix="lint-server-"))
    ports, shm_prefix = Ports.free(), f"lint_{os.getpid()}_{secrets.token_hex(4)}_"
    binary = find_tritonserver(workspace)
    options = {
        "model-repository": shutil.copytree(repository, workspace / "repository", symlinks=True),
        "backend-directory": binary.backend_directory,
        **{f"{name}-address": "127.0.0.1" for name in ("http", "grpc", "metrics")},
        **{f"{name}-port": getattr(ports, name) for name in ("http", "grpc", "metrics")},
        "exit-on-error": "false",
        "backend-config": f"python,shm-region-prefix-name={shm_prefix}",
    }
    flags = [f"--{name}={value}" for name, value in options.items() if value is not None]
    log = workspace / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(binary.path), "--disable-auto-complete-config", *flags],
            env={**binary.environment(), "SLIPWAY_CACHE": ""},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Running(process, f"127.0.0.1:{ports.grpc}", log)
    try:
        yield server
    finally:
        server.client.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for region in Path("/dev/shm").glob(f"{shm_prefix}*"):
            region.unlink(missing_ok=True)
        shutil.rmtree(workspace, ignore_errors=True)


def answers(repository: Path) -> Answers:
    """What a good repository answers."""
    with running(repository) as server:
        assert server.is_up(), server.log.read_text(errors="replace")
        given = {}
        for name, config in server.ensembles().items():
            given[name] = server.ask(name, [output.name for output in config.output])
            if "PROBABILITY" in given[name]:
                given[name]["LABELS"] = _labels(server, name, given[name])
        return given


def version(repository: Path) -> str:
    with running(repository) as server:
        assert server.is_up()
        return str(server.client.get_server_metadata().version)


def observe(repository: Path, good: Answers, *, give_up: bool = False) -> Observation:
    """What the server does with `repository`, held against the answers of the good one.

    `give_up` adds clients that do not wait for an answer: now and then even a good repository's server dies of them.
    """
    with running(repository) as server:
        if not server.is_up():
            died = server.process.poll() is not None
            return Observation("dies" if died else "hangs", _last_words(server.log) if died else "")
        try:
            states = server.models()
        except grpc.InferenceServerException as error:
            return Observation("refuses", _plain(str(error.message())))
        unready = [reason for state, reason in states.values() if state != "READY"]
        if unready or (good.keys() - states.keys() and _errors(server.log)):
            return Observation("refuses", _first_error(server.log, unready))
        seen: list[str] = []
        for difference in _differences(server, good, give_up=give_up):
            seen.append(difference)
            if len(seen) == 3 or difference.endswith((DIED, HANGS)):
                break
        return Observation("takes", "", tuple(seen))


def _differences(server: Running, good: Answers, *, give_up: bool) -> Iterator[str]:
    """What is not as it should be: of everything at once, each output alone, labels, and many requests at once."""
    ensembles = server.ensembles()
    yield from (f"{name} is not there" for name in good.keys() - ensembles.keys())
    for name, config in ensembles.items():
        outputs = [output.name for output in config.output]
        yield from _compare(server, name, outputs, good.get(name, {}))
        for output in outputs:
            yield from _compare(server, name, [output], good.get(name, {}))
        for output in config.output:
            if output.label_filename:
                yield from _compare_labels(server, name, output.name, good.get(name, {}))
        if any(tensor.optional for tensor in config.input):
            yield from _compare(server, name, outputs[:1], good.get(name, {}), images=[])
    for name, config in ensembles.items():
        outputs = [output.name for output in config.output]
        yield from _burst(server, name, outputs, give_up=give_up)
        yield from _compare(server, name, outputs, good.get(name, {}), when="afterwards, ")


def _compare(
    server: Running,
    name: str,
    outputs: list[str],
    good: dict[str, Any],
    *,
    when: str = "",
    images: list[bytes] | None = None,
) -> Iterator[str]:
    what = when + (f"{name} for {outputs[0]} alone" if len(outputs) == 1 else name)
    what = f"{name} without IMAGE" if images == [] else what
    try:
        given = server.ask(name, outputs, images=images)
    except Exception as error:  # whatever client or server make of it
        yield f"{what}: {server.failure(error)}"
        return
    for output in outputs:
        if output not in good:
            yield f"{what}: answers {output}"
        elif not _same(given[output], good[output]):
            yield f"{what}: {output} is {_short(given[output])} instead of {_short(good[output])}"
            return
    for output in sorted(good.keys() - {*outputs, "LABELS"}) if len(outputs) > 1 else ():
        yield f"{what}: has no {output}"


def _compare_labels(server: Running, name: str, output: str, good: dict[str, Any]) -> Iterator[str]:
    try:
        labels = _labels(server, name, good, output)
    except Exception as error:
        yield f"{name} with class_count for {output}: {server.failure(error)}"
        return
    if labels != good["LABELS"]:
        yield f"{name} with class_count for {output}: {labels} instead of {good['LABELS']}"


def _labels(server: Running, name: str, good: dict[str, Any], output: str = "PROBABILITY") -> list[str]:
    """Of the first image, `index:label` for every class."""
    classes = len(good["PROBABILITY"][0])
    (row,) = server.ask(name, [output], images=IMAGES[:1], classes=classes)[output]
    return sorted(entry.decode(errors="replace").split(":", 1)[1] for entry in row)


def _burst(server: Running, name: str, outputs: list[str], *, give_up: bool) -> Iterator[str]:
    """Many at once: how many are answered, refused, or never heard of again."""

    def one(wait_s: float) -> str:
        try:
            server.ask(name, outputs, images=IMAGES[:1], wait_s=wait_s)
        except Exception as error:
            return server.failure(error)
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [outcome for outcome in pool.map(one, [ANSWER_S] * AT_ONCE) if outcome]
        if failures:
            worst = next((word for word in (DIED, HANGS) if word in failures), failures[0])
            yield f"{name}, {AT_ONCE} at once: {len(failures)} not answered, {worst}"
        for _ in range(GIVE_UP_ROUNDS if give_up else 0):
            outcomes = list(pool.map(one, (GIVE_UP_S * AT_ONCE)[:AT_ONCE]))
            if DIED in outcomes or server.process.poll() is not None:
                yield f"{name}, clients that give up: {DIED}"
                return


def _same(given: Any, good: Any) -> bool:
    try:
        return np.shape(given) == np.shape(good) and bool(
            np.allclose(np.array(given, float), np.array(good, float), atol=1e-4)
        )
    except ValueError:
        return bool(given == good)


def _short(rows: Any) -> str:
    text = repr(rows).replace("b'", "'")
    return text if len(text) < 90 else f"{text[:90]}…"


def _errors(log: Path) -> list[str]:
    """What the server logs as errors; without a GPU some are harmless."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line for line in lines if re.match(r"E\d{4} |error: ", line)]
    return [line for line in told if not re.search("CudaDriver|driver version|NVML", line)]


def _first_error(log: Path, unready: list[str]) -> str:
    told = [line for line in _errors(log) if "failed to load all models" not in line]
    best = [line for line in told if re.search("failed to load '|Poll failed|Invalid argument|version", line)]
    return _plain(next(iter([*best, *told, *unready]), "failed to load all models"))


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if re.search("terminate|what[(][)]|Signal|Error", line)]
    return _plain(" ".join(told[:2]) or lines[-1])


def _plain(line: str) -> str:
    """Without the time, the folder and what protobuf adds."""
    text = re.sub(r"^[EIW]\d{4} .*?\] ", "", line).strip().strip('"').partition(r"\n")[0]
    return re.sub(r"\S*/lint-server-[^/]+/", "", text)[:240].strip()


def _png(colour: tuple[int, int, int], width: int, height: int) -> bytes:
    return encode(Image.new("RGB", (width, height), colour), "PNG")


IMAGES = [_png((255, 0, 0), 40, 24), _png((0, 0, 255), 24, 64), b"no image"]
"""A red and a blue picture of different sizes, and something that is refused."""
