"""TensorRT's timing cache between compile jobs, on TensorRT-RTX with the cache played: it times nothing itself."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.contract import Bundle, CompileError
from slipway.engines import build_engine, tensorrt_library
from tests.support.cards import H100
from tests.support.colours import COLOURS
from tests.support.played_tensorrt.tensorrt import HEADER, ONE_BUILD

pytestmark = pytest.mark.skipif(tensorrt_library.compute_capability() is not None, reason="there is a GPU")


@pytest.fixture(autouse=True)
def played_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiler's own process finds it on the path too."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "support/played_tensorrt")
    monkeypatch.setattr(tensorrt_library, "cards", lambda: (H100,))
    yield
    sys.modules.pop("tensorrt", None)


def compile_job(out: Path, *, timing_cache: Path | None = None) -> None:
    """The card is played, so the plan is compiled, and then cannot be run."""
    with pytest.raises(CompileError, match="no CUDA driver"):
        build_engine(
            Bundle.open(COLOURS / "bundle"),
            out,
            out,
            target="tensorrt",
            precision="fp32",
            reference=None,
            timing_cache=timing_cache,
        )


def test_a_job_replaces_the_timings_of_another_tensorrt_and_the_next_one_adds_to_them(tmp_path: Path) -> None:
    cache = tmp_path / "engines/timing-sm90.cache"
    cache.parent.mkdir()
    cache.write_bytes(b"timings of TensorRT 10.16.1\n")
    for jobs in (1, 2):
        compile_job(tmp_path / "engines")
        assert cache.read_bytes() == HEADER + jobs * ONE_BUILD
    assert not (tmp_path / "engines/tensorrt-fp32-sm90").exists()


def test_another_job_that_reads_meanwhile_never_sees_half_a_cache(tmp_path: Path) -> None:
    cache, opened = tmp_path / "timings", tmp_path / "opened before"
    cache.write_bytes(HEADER)
    opened.hardlink_to(cache)
    compile_job(tmp_path / "engines", timing_cache=cache)
    assert cache.read_bytes() == HEADER + ONE_BUILD
    assert opened.read_bytes() == HEADER, "the new cache took the old one's place, and did not overwrite it"


def test_a_job_of_another_run_reads_and_adds_to_the_file_that_it_is_given(tmp_path: Path) -> None:
    cache = tmp_path / "timings"
    cache.write_bytes(HEADER + ONE_BUILD)
    compile_job(tmp_path / "pets", timing_cache=cache)
    assert cache.read_bytes() == HEADER + 2 * ONE_BUILD
    assert not list((tmp_path / "pets").glob("*.cache"))
