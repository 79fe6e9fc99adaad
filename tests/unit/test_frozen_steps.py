"""What a step keeps for ever is out of the garbage collector's sight before its first request."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

import slipway.repository
from slipway.repository import assemble
from tests.support.colours import configs, copy_colours

BACKENDS = sorted((Path(slipway.repository.__file__).parent / "backends").glob("*/model.py"))
PROGRAM = """
import gc, importlib, json, sys, types
folder, config = json.loads(sys.argv[1])
sys.modules["triton_python_backend_utils"] = types.ModuleType("stand-in")
sys.path.insert(0, folder)
model = importlib.import_module("1.model").TritonPythonModel()
model.initialize({"model_config": json.dumps(config), "model_name": config["name"], "model_instance_name": "x_0",
                  "model_instance_kind": "CPU", "model_instance_device_id": "0"})
looked_through = {id(kept) for kept in gc.get_objects()}
print(json.dumps([name for name, kept in vars(model).items() if id(kept) in looked_through]))
print(gc.get_freeze_count())
"""


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: path.parent.name)
def test_a_step_that_keeps_anything_says_last_that_it_is_ready(path: Path) -> None:
    """`ready` freezes: what is made after it would be looked through."""
    methods = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    for initialize in (method for method in methods if method.name == "initialize"):
        assert ast.unparse(initialize.body[-1]) == "ready()"


def test_the_collector_looks_through_nothing_that_a_fused_step_keeps(tmp_path: Path) -> None:
    assemble([copy_colours(tmp_path / "in", spec={"serving": {"layout": "fused"}})], tmp_path / "out")
    (name,) = (name for name in configs(tmp_path / "out") if name.startswith("fused_"))
    config = MessageToDict(configs(tmp_path / "out")[name], preserving_proto_field_name=True)
    job = json.dumps([str(tmp_path / "out" / name), config])
    done = subprocess.run([sys.executable, "-c", PROGRAM, job], capture_output=True, text=True, check=True)
    looked_through, frozen = done.stdout.splitlines()[-2:]
    assert json.loads(looked_through) == []
    assert int(frozen) > 10_000, "the libraries' objects too"
