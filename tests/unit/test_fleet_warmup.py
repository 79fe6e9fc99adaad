"""A step of the cpu lane runs batches before it says that it is ready: one image, and as many as are merged."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from slipway.repository import assemble
from tests.support.colours import COLOURS, configs, copy_colours, import_step, open_colours, step_names


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("warm") / "out"
    assemble([open_colours(COLOURS)], out)
    return out


def batches_of_initialize(
    repository: Path, kind: str, parameters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """The sizes of the batches that the real step runs when Triton initialises it with `parameters`."""
    (name,) = (name for name in configs(repository) if name.startswith(f"{kind}_"))
    model = import_step(repository / name, monkeypatch)
    part, worker = ("loading", "Engine") if kind == "engine" else ("model", "Preprocessor")
    maker = importlib.import_module(f"{name}.{part}")
    sizes = []

    class Recorded(getattr(maker, worker)):  # type: ignore[misc]
        def run(self, batch: Any) -> Any:
            sizes.append(len(batch))
            return super().run(batch)

    monkeypatch.setattr(maker, worker, Recorded)
    config = json_format.MessageToDict(configs(repository)[name], preserving_proto_field_name=True)
    given = {key: value for key, value in config["parameters"].items() if key != "warmup_batches"}
    config["parameters"] = given | {key: {"string_value": value} for key, value in parameters.items()}
    model.TritonPythonModel().initialize({"model_config": json.dumps(config), "model_instance_kind": "CPU"})
    return sizes


@pytest.mark.parametrize("kind", ["preprocess", "engine"])
@pytest.mark.parametrize(
    ("parameters", "sizes"), [({"warmup_batches": "3"}, [1, 8, 1, 8, 1, 8]), ({"warmup_batches": "0"}, []), ({}, [])]
)
def test_a_step_warms_up_with_one_image_and_with_the_largest_batch(
    kind: str, parameters: dict[str, str], sizes: list[int], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batches_of_initialize(repository, kind, parameters, monkeypatch) == sizes


@pytest.mark.parametrize(("layout", "kind"), [("fused", "fused"), ("shared_decode", "preprocess")])
def test_a_step_that_merges_few_requests_warms_up_with_that_many(
    layout: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"serving": {"layout": layout, "preferred_batch_size": 3}}
    assemble([copy_colours(tmp_path / "c", spec=spec)], tmp_path / "out")
    given = {"threads": "1", "arithmetic": "f32", "warmup_batches": "2"}
    assert batches_of_initialize(tmp_path / "out", kind, given, monkeypatch) == [1, 3, 1, 3]


def test_a_served_engine_goes_without_openvino_s_converter_and_any_other_has_it(repository: Path) -> None:
    step = repository / step_names(repository)["engine"] / "1"
    served = f"import sys, types; sys.modules['s'] = s = types.ModuleType('s'); s.__path__ = [{str(step)!r}]"
    for imports, found in ((f"{served}; import s.loading", "False"), ("import slipway.steps.engine_openvino", "True")):
        code = f"{imports}; import openvino; print(hasattr(openvino, 'convert_model'))"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout == f"{found}\n"
