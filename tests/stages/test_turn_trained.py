"""`slipway turn` for a trained network: the new run starts from the weights of the one before, and class ids stay."""

import shutil
from pathlib import Path

import pytest

from slipway.cli import up
from slipway.contract import Manifest, Spec
from slipway.contract.evidence.build import CheckpointMeasured
from slipway.contract.evidence.gate import FILE_NAME, OldTest
from slipway.operations.release.record import read_record
from slipway.system.files import sha256_file
from slipway.system.yaml_json import dump_yaml, parse_yaml, read_plain
from tests.support.scripts import step_here
from tests.support.small_training import one_thread
from tests.support.turn_fixtures import called, copied
from tests.support.turns import FOREIGN, TurnFolder

WEIGHTS = "runs/shades/checkpoint/model.safetensors"
PAGES = ("inspect", "evaluate", "report")
"""Stages that are left out: no other stage reads what they write."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with one_thread():
        return TurnFolder.make_trained(tmp_path_factory.mktemp("trained")).folder


@pytest.fixture
def turn(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TurnFolder:
    """A copy of the files with rows of a new class; stages run in this process. `called` has their verbs."""
    made = copied(served, tmp_path, monkeypatch)
    made.add_rows()

    def step(title: str, words: tuple[str, ...]) -> int:
        called.append(words[0])
        if words[0] in PAGES:
            return 0
        with one_thread():
            return step_here(title, words, cwd=made.folder)

    monkeypatch.setattr(up, "step", step)
    return made


def test_a_turn_trains_from_the_last_checkpoint_and_keeps_class_ids(turn: TurnFolder) -> None:
    done = turn.done("run", "--approved-by", "A. Lee")
    assert done.returncode == 2, done.stdout + done.stderr
    stages = ["train", "inspect", "train", "export", "evaluate", "engines", "choose", "report"]
    assert called == ["labels", *stages, "turn", "release"]
    assert "start the candidate's server, or give --serve: slipway serve" in done.stdout
    new, old = turn.folder / "runs/shades-2", turn.bundle
    spec = Spec.read(new / "spec.yaml")
    assert (spec.backbone.name, spec.backbone.weights) == (old.spec.backbone.name, WEIGHTS)
    assert (spec.recipe, spec.preprocess, spec.accuracy) == (old.spec.recipe, old.spec.preprocess, old.spec.accuracy)
    checkpoint = Manifest.open(new / "checkpoint", kind="checkpoint")
    assert checkpoint.inputs["weights"] == sha256_file(turn.folder / WEIGHTS)
    assert checkpoint.read_measured(CheckpointMeasured).weights.startswith(f"{WEIGHTS} (sha256 ")
    assert turn.new_bundle.labels == (*old.labels, FOREIGN[0])
    found = OldTest.read(new / FILE_NAME)
    assert (found.old_bundle, found.bundle) == (old.id, turn.new_bundle.id)
    assert found.classes.keys() == {*old.labels}
    release = read_record(turn.folder / "cpu", gateway=turn.folder / "gateway/gateway.yaml")
    assert release is not None
    assert release.candidate.bundles == {"shades": turn.new_bundle.id}
    called.clear()
    assert turn.done("run").returncode == 2
    assert called == ["evaluate", "engines", "report"], "what is current is not made again"


def test_without_a_checkpoint_a_person_writes_the_spec_and_the_turn_goes_on(
    turn: TurnFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(turn.folder / "runs/shades/checkpoint")
    done = turn.done("run", "--approved-by", "A. Lee")
    assert done.returncode == 2
    assert called == ["labels"]
    asked = f"{WEIGHTS} is not there to train from: runs/shades was imported, or its checkpoint is gone."
    assert f"shades: {asked} Put it back, or write runs/shades-2/spec.yaml: runs/shades/bundle/spec" in done.stdout
    assert "then: slipway turn run gateway/gateway.yaml fleet.yaml shades" in done.stdout
    waits = turn.run(action="status")[1]["waiting"]
    assert waits["step"] == "new run"
    assert waits["waits_for"].startswith(f"a person: {asked}")
    path, spec = turn.folder / "runs/shades-2/spec.yaml", read_plain(turn.folder / "runs/shades/bundle/spec.json")
    spec["data"] = parse_yaml(f"data:{waits['waits_for'].partition('data:')[2]}", source="test")["data"]
    path.write_text(dump_yaml(spec))
    tried: list[tuple[str, ...]] = []

    def failing(_: str, words: tuple[str, ...]) -> int:
        tried.append(words)
        return 1

    monkeypatch.setattr(up, "step", failing)
    done = turn.done("run")
    assert done.returncode == 1
    assert [words[:2] for words in tried] == [("train", "runs/shades-2/spec.yaml")]
    assert Spec.read(path).data.labels == "runs/shades-2/data/labels.txt"
    assert "or give the turn up: slipway turn end gateway/gateway.yaml fleet.yaml shades --reason TEXT" in done.stdout
