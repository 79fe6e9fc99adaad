"""Starts a peer and classifies for it, with the step files that Triton runs, or as a skilled team would write them.

    PYTHONPATH=src ENVIRONMENT/bin/python benchmarks/studies/peers/servers/<peer>.py --folder FOLDER --port 8100 \\
        --workers 2 --max-batch 2

This file needs only our step files and their libraries, and OpenCV with --skilled.
"""

import argparse
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

HOST = "127.0.0.1"
SETTINGS = "SLIPWAY_PEER"
"""The settings as JSON, for processes that a framework starts by itself."""


class Settings(argparse.Namespace):
    """The command line of a peer."""

    folder: Path
    port: int
    workers: int
    max_batch: int
    pinned: bool
    skilled: bool


class Work(Protocol):
    """Classifies encoded images in one thread."""

    def classify(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Answer each image: the best label, its score, and the status, 0 for an answer."""


def open_work(settings: Settings) -> Work:
    """Open our steps, or with `--skilled` the classifier of a skilled team."""
    if settings.skilled:
        from skilled import SkilledClassifier

        return SkilledClassifier(settings)
    return Classifier(settings)


class Classifier:
    """Classifies encoded images: guard, decoder and resize, OpenVINO, post-processing. One thread calls it at a time.

    If the settings say `pinned`, the thread that makes it, with every thread that it starts, keeps to a core of its
    own.

    Args:
        settings: their folder has model.onnx, preprocess.json, decision.json, labels.txt and arithmetic.txt; max_batch
            is the most images of one call.
    """

    def __init__(self, settings: Settings) -> None:
        from slipway.steps.engine_openvino import Engine
        from slipway.steps.guard import PLACEHOLDER
        from slipway.steps.postprocess import Postprocessor
        from slipway.steps.preprocess import Preprocessor

        self._core_held = keep_to_a_core(settings) if settings.pinned else None
        folder, max_batch = settings.folder, settings.max_batch
        self._preprocessor = Preprocessor(read_json(folder / "preprocess.json"), max_batch_size=max_batch, threads=1)
        self._engine = Engine(folder / "model.onnx", arithmetic=(folder / "arithmetic.txt").read_text(), threads=1)
        self._postprocessor = Postprocessor.read(folder)
        for size in (1, max_batch) * 2:
            self.classify([PLACEHOLDER] * size)

    def classify(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        pixels_nhwc_u8, status_n = self._preprocessor.run(images)
        logits_nc, _ = self._engine.run(pixels_nhwc_u8)
        answers = self._postprocessor.run(logits_nc, status_n)
        rows = zip(answers.label_nk, answers.score_nk, answers.status_n, strict=True)
        return [{"label": k[0].decode(), "score": float(s[0]), "status": int(status)} for k, s, status in rows]


def read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def read_labels(folder: Path) -> list[str]:
    return (folder / "labels.txt").read_text(encoding="utf-8").splitlines()


def keep_to_a_core(settings: Settings) -> socket.socket:
    """Keep this thread, and those that it starts, to a core of its own while the returned socket is open."""
    from slipway.steps.cores import keep_to_cores

    number, held = worker_number(settings)
    keep_to_cores(number, threads=1)
    return held


def worker_number(settings: Settings) -> tuple[int, socket.socket]:
    """Return the first number that no worker of this peer has, and the socket that holds it. Frameworks do not number
    their workers.

    Raises:
        RuntimeError: more workers run than were asked for.
    """
    for number in range(settings.workers):
        holder = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            holder.bind(f"\0slipway-peer-{settings.port}-{number}")  # an abstract name, which ends with the worker
            return number, holder
        holder.close()
    raise RuntimeError(f"{settings.workers} workers were asked for, and this is one more")


def settings_given() -> Settings:
    """Read the settings from the command line, and leave them in the environment for later processes."""
    parser = argparse.ArgumentParser(description="one peer of python -m benchmarks.studies.peers, until it is ended")
    parser.add_argument("--folder", type=Path, required=True, help="the classifier's files")
    parser.add_argument("--port", type=int, required=True, help=f"port to listen on, at {HOST}")
    parser.add_argument("--workers", type=int, required=True, help="that classify, with one thread each")
    parser.add_argument("--max-batch", type=int, required=True, help="the most images that a worker takes at once")
    parser.add_argument("--pinned", action="store_true", help="each worker keeps to a core of its own")
    parser.add_argument("--skilled", action="store_true", help="OpenCV and OpenVINO in place of our steps")
    settings = parser.parse_args(namespace=Settings())
    os.environ[SETTINGS] = json.dumps({**vars(settings), "folder": str(settings.folder.resolve())})
    return settings


def settings_left() -> Settings:
    """Read the settings that `settings_given` left, in a process that a framework started."""
    settings = Settings(**json.loads(os.environ[SETTINGS]))
    settings.folder = Path(settings.folder)
    return settings
