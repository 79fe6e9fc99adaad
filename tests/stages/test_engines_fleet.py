"""`make engines` over several runs: what can be made is, and a second run makes only what is missing."""

import json
import shutil
from pathlib import Path

import pytest

from slipway.engines.tensorrt_library import compute_capability
from tests.support.coloured_runs import coloured_run
from tests.support.scripts import run_here


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to run scripts in: runs/colours with a real bundle and its images, and runs/empty without one."""
    folder = tmp_path_factory.mktemp("fleet")
    coloured_run(folder, images=20, precisions=["int8", "fp16", "fp32"])
    (folder / "runs/empty").mkdir()
    return folder


def test_a_fleet_is_made_where_it_can_be_and_a_second_run_makes_only_what_is_missing(fleet: Path) -> None:
    done = run_here("engines", "runs/colours", "runs/empty", "--json", cwd=fleet, check=False)
    assert done.returncode == 1
    said = json.loads(done.stdout.splitlines()[-1])
    outcomes = {Path(part["folder"]).name: part["outcome"] for part in said["parts"]}
    # A 1x1 convolution of three channels is nothing that INT8 is for: ModelOpt's refusal is recorded, the rest is made.
    assert outcomes == {
        "openvino-fp32": "made",
        "int8": "failed",
        "fp16": "made",
        "openvino-int8": "failed",
        "openvino-fp16": "made",
    }
    assert any("runs/empty/bundle: no manifest.json here" in failure for failure in said["failures"])
    assert any("graphs/int8: " in failure and "INT8" in failure for failure in said["failures"])
    assert json.loads((fleet / "runs/colours/engines/made.json").read_text()) == said["parts"]

    shutil.rmtree(fleet / "runs/colours/engines/openvino-fp16")
    before = (fleet / "runs/colours/graphs/fp16/manifest.json").read_bytes()
    done = run_here("engines", "runs/colours", cwd=fleet, check=False)
    assert "✓ engines/openvino-fp32: same graph, flags and gate" in done.stdout
    assert "✓ graphs/fp16: same bundle and settings" in done.stdout
    assert "→ engines/openvino-fp16: not there" in done.stdout
    assert "[3/3]" in done.stdout, "INT8 is tried again, twice"
    assert (fleet / "runs/colours/graphs/fp16/manifest.json").read_bytes() == before


def test_the_plan_alone_is_printed_without_making_anything(fleet: Path) -> None:
    (fleet / "runs/planned").mkdir()
    shutil.copytree(fleet / "runs/colours/bundle", fleet / "runs/planned/bundle")
    targets = ("openvino", "tensorrt")
    done = run_here("engines", "runs/planned", "--target", *targets, "--dry-run", cwd=fleet, check=False)
    assert "→ engines/openvino-fp32: not there" in done.stdout
    assert [path.name for path in (fleet / "runs/planned").iterdir()] == ["bundle"]
    if compute_capability() is None:  # a target that cannot be compiled here leaves the others
        assert "5 to make, 0 current" in done.stdout
        assert done.returncode == 1
        assert "failed: tensorrt: compiling for tensorrt needs an NVIDIA GPU" in done.stderr
