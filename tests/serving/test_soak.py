"""The soak: many damaged images among good ones, on the real server; and that it fails a server that deserves it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import ROOT, run_study

EXAMPLE = ROOT / "model_repository" / "example"


@pytest.fixture
def soak(tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """`soak(repository, images)` is the exit code of the script, and its result."""

    def soak(repository: Path, images: int, *options: str) -> tuple[int, dict[str, Any]]:
        out = tmp_path / "soak.json"
        done = run_study("soak", repository, "--images", str(images), "--out", out, *options, cwd=tmp_path, check=False)
        assert out.is_file(), done.stderr
        return done.returncode, json.loads(out.read_text())

    return soak


@pytest.fixture
def worse_example(changed_example: Callable[[str, str], Path]) -> Callable[[str], Path]:
    """`worse_example(code)` is the example whose preprocess step runs that before each batch."""

    def worse_example(code: str) -> Path:
        (model,) = EXAMPLE.glob("preprocess_*/1/model.py")
        before = "        images = [image for batch in batches.values() for image in batch]\n"
        source = model.read_text()
        assert before in source
        return changed_example("preprocess", source.replace(before, f"        {code}\n{before}"))

    return worse_example


@pytest.mark.nightly
def test_10000_damaged_images_lose_no_answer_and_leave_memory_as_it_was(soak: Any) -> None:
    code, result = soak(EXAMPLE, 10_000)
    assert (result["reasons"], result["verdict"], code) == ([], "pass", 0)
    assert sum(result["damaged_by_status"].values()) == 10_000
    assert result["damaged_by_status"].keys() >= {"0", "2", "3"}, "some are decoded, some are refused"
    assert result["good_answers"] > 2000
    assert [sample["images"] for sample in result["series"]][-1] == 10_000
    processes = sorted(name.split("_")[0].split()[0] for name in result["series"][0]["rss_mib"])
    assert processes == ["engine", "post", "preprocess", "tritonserver"]
    assert all(sample["shared_mib"] > 0 for sample in result["series"])


@pytest.mark.nightly
def test_a_server_that_grows_fails_the_soak(soak: Any, worse_example: Any) -> None:
    code, result = soak(worse_example("self.kept = [*getattr(self, 'kept', []), b'x' * 2**17]"), 2000)
    assert code == 1
    (reason,) = result["reasons"]
    assert reason.startswith("preprocess_")
    assert "grew from" in reason


@pytest.mark.nightly
def test_a_server_that_mixes_images_up_fails_the_soak(soak: Any, worse_example: Any) -> None:
    code, result = soak(worse_example("batches = {index: batch[::-1] for index, batch in batches.items()}"), 500)
    assert code == 1
    assert "the first: good image" in result["reasons"][0]


@pytest.mark.nightly
def test_a_server_that_loses_a_step_fails_the_soak_and_ends_it(soak: Any, worse_example: Any) -> None:
    dies = "self.n = getattr(self, 'n', 0) + 1; self.n < 150 or __import__('os')._exit(1)"
    code, result = soak(worse_example(dies), 5000, "--timeout-s", "3")
    assert code == 1
    assert result["series"][-1]["images"] < 5000, "after so many failures the rest is not sent"
    assert any(reason.startswith("the processes changed") for reason in result["reasons"])
