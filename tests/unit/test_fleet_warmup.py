"""A step of the cpu lane runs batches before it says that it is ready: one image, and as many as it ever takes."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from slipway.repository import assemble
from tests.support.colours import COLOURS, configs, import_step, open_colours, step_names


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("warm") / "out"
    assemble([open_colours(COLOURS)], out)
    return out


def batches_of_initialize(
    repository: Path, kind: str, parameters: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """The sizes of the batches that the real step runs when Triton initialises it with `parameters`."""
    name = step_names(repository)[kind]
    model = import_step(repository / name, monkeypatch)
    part, worker = {"preprocess": ("model", "Preprocessor"), "engine": ("loading", "Engine")}[kind]
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
    ("parameters", "sizes"),
    [({"warmup_batches": "3"}, [1, 8, 1, 8, 1, 8]), ({"warmup_batches": "0"}, []), ({}, [])],
)
def test_a_step_warms_up_with_one_image_and_with_the_largest_batch(
    kind: str, parameters: dict[str, str], sizes: list[int], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batches_of_initialize(repository, kind, parameters, monkeypatch) == sizes
