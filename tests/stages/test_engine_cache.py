"""The compiled blob of an engine: same answers, and never a wrong or a damaged one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.steps import engine_openvino
from slipway.steps.engine_openvino import Engine

GRAPH = Path(__file__).parents[1] / "assets/colours/engine/model.onnx"
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every graph that was compiled, and not taken from the cache."""
    seen: list[Path] = []
    compile_graph: Callable[..., Any] = engine_openvino._compile

    def recorded(graph: Path, settings: dict[str, Any]) -> Any:
        seen.append(graph)
        return compile_graph(graph, settings)

    monkeypatch.setattr(engine_openvino, "_compile", recorded)
    return seen


def logits(cache: Path | None, *, graph: Path = GRAPH, arithmetic: str = "f32", threads: int = 1) -> np.ndarray:
    return Engine(graph, arithmetic=arithmetic, threads=threads, cache=cache).run(PIXELS)[0]


def test_the_second_start_compiles_nothing_and_answers_the_same(tmp_path: Path, compilations: list[Path]) -> None:
    expected = logits(None)
    first, second = logits(tmp_path), logits(tmp_path)
    assert len(compilations) == 2  # without a cache, and the first with one
    assert (first == expected).all()
    assert (second == expected).all()


def test_a_copy_of_the_graph_elsewhere_finds_the_blob(tmp_path: Path, compilations: list[Path]) -> None:
    logits(tmp_path / "cache")
    (tmp_path / "copy.onnx").write_bytes(GRAPH.read_bytes())
    logits(tmp_path / "cache", graph=tmp_path / "copy.onnx")
    assert compilations == [GRAPH]


@pytest.mark.parametrize("changed", [{"threads": 2}, {"arithmetic": "bf16"}])
def test_other_settings_have_their_own_blob(tmp_path: Path, compilations: list[Path], changed: dict[str, Any]) -> None:
    logits(tmp_path)
    try:
        logits(tmp_path, **changed)
    except ValueError as error:
        pytest.skip(f"this processor computes no {changed}: {error}")
    assert len(compilations) == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_blob_is_compiled_again_and_replaced(tmp_path: Path, compilations: list[Path], damage: str) -> None:
    expected = logits(tmp_path)
    (blob,) = tmp_path.iterdir()
    whole = blob.read_bytes()
    flipped = whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]
    blob.write_bytes({"flipped": flipped, "cut": whole[:500], "empty": b"", "foreign": b"not a blob" * 99}[damage])
    assert (logits(tmp_path) == expected).all()
    assert len(compilations) == 2
    assert (logits(tmp_path) == expected).all()
    assert len(compilations) == 2
    assert [path.name for path in tmp_path.iterdir()] == [blob.name]  # no temporary file is left


def test_a_cache_that_cannot_be_written_is_said_and_does_not_stop_the_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file, where a folder is needed")
    expected = logits(None)
    assert (logits(tmp_path / "cache") == expected).all()
    assert "the compiled engine is not kept" in capsys.readouterr().err
