"""`serving.layout: fused`: one step in the place of three, behind the same two ensembles."""

from pathlib import Path
from typing import Any

import pytest
from colours import configs, copy_colours
from google.protobuf import json_format

from slipway.contract import Lane, RepositoryError
from slipway.lint import lint
from slipway.repository import assemble

FUSED = {"serving": {"layout": "fused"}}
PUBLIC = ["LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE"]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    for layout in ("steps", "fused"):
        serving = {"layout": layout, "instances": 3, "queue_timeout_ms": 20}
        assemble([copy_colours(folder / f"{layout}_source", spec={"serving": serving})], folder / layout)
    return {layout: folder / layout for layout in ("steps", "fused")}


def public(config: Any) -> dict[str, Any]:
    """What a client sees of a model."""
    described = json_format.MessageToDict(config)
    return {key: described[key] for key in ("name", "input", "output", "maxBatchSize")}


def test_clients_see_the_same_two_ensembles_as_with_steps(repositories: dict[str, Path]) -> None:
    steps, fused = (configs(repositories[layout]) for layout in ("steps", "fused"))
    for name in ("colours", "colours_full"):
        assert public(fused[name]) == public(steps[name])
    labels = [(repositories[layout] / "colours_full/labels.txt").read_bytes() for layout in ("steps", "fused")]
    assert labels[0] == labels[1]
    lanes = [Lane.read(repositories[layout] / "lane.json") for layout in ("steps", "fused")]
    assert lanes[0].ensembles == lanes[1].ensembles


def test_one_step_takes_images_and_makes_every_public_tensor(repositories: dict[str, Path]) -> None:
    models = configs(repositories["fused"])
    (fused,) = (name for name in models if not name.startswith("colours"))
    assert fused.startswith("fused_")
    for name, outputs in (("colours", PUBLIC), ("colours_full", [*PUBLIC, "PROBABILITY", "EMBEDDING"])):
        (step,) = models[name].ensemble_scheduling.step
        assert step.model_name == fused
        assert dict(step.input_map) == {"IMAGE": "IMAGE"}
        assert dict(step.output_map) == {output: output for output in outputs}
    assert models[fused].instance_group[0].count == 3
    assert models[fused].dynamic_batching.default_queue_policy.default_timeout_microseconds == 20_000


def test_the_files_of_the_three_steps_are_those_of_the_one(repositories: dict[str, Path]) -> None:
    (fused,) = repositories["fused"].glob("fused_*/1")
    together = {path.name: path.read_bytes() for path in repositories["steps"].glob("*_*/1/*") if path.is_file()}
    del together["model.py"]
    found = {path.name: path.read_bytes() for path in fused.iterdir() if path.name != "model.py"}
    assert found == together


def test_lint_finds_no_fault_with_it(repositories: dict[str, Path]) -> None:
    assert not lint(repositories["fused"])


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("labels.txt", b"blue\n", b"", "2 labels"),
        ("engine.json", b'"classes": 3', b'"classes": 4', "says that logits_nc is [4]"),
        ("decision.json", b'"top_k": 2', b'"top_k": 3', "answers the 3 best"),
    ],
)
def test_lint_sees_what_does_not_fit_together_inside_it(
    tmp_path: Path, file: str, old: bytes, new: bytes, reason: str
) -> None:
    assemble([copy_colours(tmp_path / "source", spec=FUSED)], tmp_path / "repository")
    (path,) = (tmp_path / "repository").glob(f"fused_*/1/{file}")
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    assert any(reason in finding.reason for finding in lint(tmp_path / "repository"))


def test_it_cannot_be_part_of_a_multi_ensemble(tmp_path: Path) -> None:
    pair = [copy_colours(tmp_path / name, spec={**FUSED, "name": name}) for name in ("one", "two")]
    with pytest.raises(RepositoryError, match=r"page: one has serving[.]layout fused, whose decode nobody can share"):
        assemble(pair, tmp_path / "repository", multi={"page": ["one", "two"]})
