"""What `pip install slipway[EXTRA]` brings is enough for the verbs and the steps that it is for."""

import subprocess
import sys

import pytest

from tests.support.scripts import ROOT

STEPS = """
import json
from pathlib import Path
import numpy as np
from slipway.steps.preprocess import Preprocessor
(step,) = Path("model_repository/example").glob("preprocess_*/1")
run = Preprocessor(json.loads((step / "preprocess.json").read_text()), max_batch_size=1, threads=1).run
pixels_nhwc_u8, status_n = run([Path("docs/pictures/red.png").read_bytes()])
assert status_n.tolist() == [0] and pixels_nhwc_u8.any()
"""
SERVING = """
import slipway.serving.server, slipway.serving.supervisor, slipway.serving.probe
import slipway.lint.models, slipway.steps.engine_openvino, slipway.steps.postprocess
"""
NEEDS = {
    "client": "import slipway.client.shrink, slipway.client.grpc_transport, slipway.client.http_transport",
    "serve": STEPS + SERVING,
    "build": STEPS + "import slipway.engines.quantize, slipway.engines.compile, slipway.engines.choose",
    "train": STEPS + "import slipway.training.learn.train, slipway.training.bundle.export, slipway.report",
    "bench": "import slipway.benchmark.gate, slipway.benchmark.server, slipway.cli.tune",
    "operate": "import slipway.operations.watch.run, slipway.operations.gateway.process",
    "ship": "import slipway.oci.signing",
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("extra", NEEDS)
def test_an_extra_brings_what_its_verbs_import(extra: str) -> None:
    code = f"from tests.support.only_extra import only\nonly({extra!r})\n{NEEDS[extra]}"
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_serving_on_a_cpu_takes_no_dali_and_no_torch() -> None:
    for module in ("nvidia.dali", "torch"):
        code = f"from tests.support.only_extra import only\nonly('serve')\nimport {module}"
        assert f"No module named {module!r}" in run(code).stderr
