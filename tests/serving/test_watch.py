"""The watch behind a real Envoy, a real tritonserver and a real journal: reference, drift, and another bundle."""

import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slipway.cli import watch as cli
from slipway.contract import bundle_id
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.errors import SpecError
from slipway.operations.watch.run import run_watch
from slipway.operations.watch.test_split import read_reference
from slipway.serving import Ports
from slipway.system.files import sha256_bytes
from tests.serving.conftest import EXAMPLE
from tests.support.colours import copy_colours, reseal
from tests.support.gateways import needs_envoy, running_gateway, write_gateway
from tests.support.image_files import encode
from tests.support.journals import Journal

pytestmark = needs_envoy
COLOURS = {"blue": (0, 0, 200), "green": (0, 160, 0), "red": (220, 0, 0)}


def images(count: int, *, seed: int, light: float = 1.0) -> list[tuple[str, bytes]]:
    """Noisy images of the three colours, with their labels."""
    rng = np.random.default_rng(seed)
    found = []
    for label in rng.choice(list(COLOURS), count).tolist():
        pixels = (np.array(COLOURS[label]) * rng.uniform(0.6, 1.0) + rng.integers(-60, 60, (24, 24, 3))) * light
        found.append((label, encode(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), "PNG")))
    return found


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run of the bundle that the example serves, with a data set."""
    (tmp_path / "data").mkdir()
    listed = []
    for number, (label, content) in enumerate(images(240, seed=0)):
        (tmp_path / "data" / f"{number}.png").write_bytes(content)
        listed.append(
            LabelledImage(
                path=f"{number}.png",
                class_ids=(list(COLOURS).index(label),),
                sha256=sha256_bytes(content),
                split="validation" if number % 5 == 0 else "test",
            )
        )
    dataset = Dataset(root=str(tmp_path / "data"), labels=tuple(COLOURS), images=tuple(listed))
    copy_colours(tmp_path / "run", bundle=lambda folder: dataset.write(folder / "dataset.json"))
    return tmp_path / "run"


@pytest.fixture
def journal(own_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    observe = {"share": 1.0, "per_second": 10_000, "metrics_port": Ports.free().http}
    watch = {"reference_rows": 150, "metrics_port": Ports.free().http}
    path = write_gateway(
        tmp_path / "gateway", ports=own_server.ports, repository=str(EXAMPLE), observe=observe, watch=watch
    )
    with running_gateway(path) as asked:
        yield Journal(asked, path)


def call(verb: str, journal: Journal, *words: str) -> dict[str, Any]:
    """The JSON line of `slipway watch VERB`."""
    arguments = cli.parser().parse_args([verb, str(journal.settings_file), *words, "--json"])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        cli.main(arguments)
    found: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    return found


def watch(journal: Journal, asked: list[tuple[str, bytes]]) -> dict[str, Any]:
    """Ask through the gateway, take the taps in, look once, and return the status of `colours`."""
    with journal.client() as client:
        results = list(client.classify_many([content for _, content in asked]))
    assert [result.error for result in results] == [None] * len(asked)
    time.sleep(0.3)  # Envoy writes a tap after its answer
    journal.empty()
    run_watch(journal.settings, ended=threading.Event(), say=lambda _: None, once=True)
    found: dict[str, Any] = call("status", journal)["classifiers"][0]
    return found


def test_a_test_split_is_the_reference_and_darker_images_are_an_alarm(journal: Journal, run_folder: Path) -> None:
    made = call("reference", journal, str(run_folder))
    assert (made["images"], made["refused"], made["accuracy"], made["drift"]) == (192, 0, 1.0, True)
    found = watch(journal, images(300, seed=1))
    assert found["rows"] == 300
    assert found["latency"]["requests"] > 0
    assert (found["watched"]["live_rows"], found["watched"]["drift"]["source"]) == (150, "live")
    assert found["watched"]["drift"]["alarm"] is None
    assert {gap["measure"] for gap in found["watched"]["gap"]} >= {"confidence", "distance", "brightness", "class"}
    found = watch(journal, images(100, seed=2, light=0.6))
    assert found["alarms"]
    assert found["watched"]["drift"]["alarm"]["since_row"] >= 140
    call("restart", journal, "colours", "--reason", "the lamp is on again")
    assert not watch(journal, images(50, seed=3))["alarms"]


def test_a_run_that_is_not_served_makes_no_reference(journal: Journal, run_folder: Path) -> None:
    decision = run_folder / "bundle" / "decision.json"
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"temperature": 3.0}))
    reseal(run_folder / "bundle", bundle=bundle_id(run_folder / "bundle"))
    with pytest.raises(SpecError, match="give the run that is served"):
        call("reference", journal, str(run_folder))
    assert read_reference(journal.settings.journal, "colours") is None
