"""Tap files: recorded ones, ones that Envoy has not written, and a replayer without a server."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as triton

from slipway.client import Result
from slipway.client.result import Candidate
from slipway.operations.journal.collector import Collector
from slipway.operations.journal.replay import NotYetError
from slipway.operations.journal.store import Store
from slipway.operations.journal.trace import _wrapper
from tests.support.journal_rows import journal_in

RECORDED = Path(__file__).parents[1] / "assets" / "taps"
"""Written by Envoy 1.40 in front of `model_repository/example`."""
BUNDLE = "54c53981fc0b1d9f649295fc909e85108b92cbf5bee544e274cb970e1b66e537"
"""The bundle that answered the recorded requests."""


def recorded(name: str) -> bytes:
    return (RECORDED / f"{name}.pb").read_bytes()


def changed(name: str) -> Any:
    """A recorded tap as a message that can be changed."""
    return _wrapper().FromString(recorded(name))


def set_header(message: Any, key: str, value: str | None) -> None:
    """Replace a header of a tapped request or answer; None removes it."""
    left = [(header.key, header.value) for header in message.headers if header.key != key.encode()]
    del message.headers[:]
    for one, text in [*left, *([] if value is None else [(key.encode(), value.encode())])]:
        message.headers.add(key=one, value=text)


def framed(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return b"\0" + len(content).to_bytes(4, "big") + content


def answer_of(outputs: Mapping[str, tuple[str, Sequence[int], bytes]]) -> bytes:
    """The body of a gRPC answer with these outputs: type, shape and content by name."""
    answer = triton.ModelInferResponse(model_name="both")
    for name, (datatype, shape, content) in outputs.items():
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
        answer.raw_output_contents.append(content)
    return framed(answer)


def red(status: int = 0, **changes: Any) -> Result:
    """What the server of the recorded taps answers to its red image."""
    if status:
        return Result(b"", "", status=status, bundle=BUNDLE, **changes)
    known: dict[str, Any] = {
        "label": "red",
        "score": 0.9995557069778442,
        "class_id": 2,
        "candidates": (Candidate("blue", 0.00022215580975171179, 0),),
        "bundle": BUNDLE,
        "probability": np.array([0, 0, 1], np.float32),
        "embedding": np.array([1, 2, 3, 4], np.float32),
    }
    return Result(b"", "", status=0, **(known | changes))


class Replayed:
    """Stands for `Replayer`: answers as `red`, and with 2 what is no image."""

    def __init__(self, **changes: Any) -> None:
        self.changes, self.asked, self.gone = changes, 0, False

    def order(self, _: str) -> tuple[int, int]:
        return (0, 0)

    def forget_others(self, _: Iterable[str]) -> None:
        pass

    def ask(
        self, _: str, __: str, images: Sequence[bytes], *, bundles: Sequence[str | None], **___: str
    ) -> list[Result]:
        assert len(images) == len(bundles)
        if self.gone:
            raise NotYetError("nobody answers")
        self.asked += 1
        return [red(**self.changes) if image[:4] == b"\x89PNG" else red(2) for image in images]


class Parts:
    """A spool, a journal and a collector in a folder."""

    def __init__(self, folder: Path, store: Store, **changes: object) -> None:
        self.folder, self.store = folder, store
        self.spool = folder / "spool"
        self.spool.mkdir(exist_ok=True)
        self.said: list[str] = []
        self.replayer = Replayed(**changes)
        self.collector = Collector(self.spool, store, self.replayer, say=self.said.append)  # type: ignore[arg-type]

    def tap(self, request: str | int, name: str = "grpc_three_images", content: bytes | None = None) -> Path:
        path = self.spool / f"t_{request}.pb"
        path.write_bytes(recorded(name) if content is None else content)
        return path

    def rows(self, columns: str = "request, image") -> list[tuple[object, ...]]:
        return self.store.query(f"SELECT {columns} FROM rows ORDER BY id")

    def images(self) -> list[str]:
        return sorted(path.name for path in (self.store.folder / "images").glob("*/*"))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with journal_in(tmp_path / "journal", make=True) as store:
        yield Parts(tmp_path, store)
