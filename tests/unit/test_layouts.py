"""`serving.layout`: two steps or one in the place of three, behind the same two ensembles."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from slipway.contract import RepositoryError
from slipway.lint import lint
from slipway.repository import assemble
from tests.support.colours import configs, copy_colours

FEWER = ("shared_decode", "fused")
PUBLIC = ["LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE"]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("layouts")
    for layout in ("steps", *FEWER):
        serving = {"layout": layout, "instances": 3, "queue_timeout_ms": 20}
        assemble([copy_colours(folder / f"{layout}_source", spec={"serving": serving})], folder / layout)
    return {layout: folder / layout for layout in ("steps", *FEWER)}


def public(config: Any) -> dict[str, Any]:
    """What a client sees of a model."""
    described = json_format.MessageToDict(config)
    return {key: described[key] for key in ("name", "input", "output", "maxBatchSize")}


layouts = pytest.mark.parametrize("layout", FEWER)


@layouts
def test_clients_see_the_same_two_ensembles_as_with_steps(repositories: dict[str, Path], layout: str) -> None:
    steps, fewer = configs(repositories["steps"]), configs(repositories[layout])
    for name in ("colours", "colours_full"):
        assert public(fewer[name]) == public(steps[name])
    labels = "colours_full/labels.txt"
    assert (repositories[layout] / labels).read_bytes() == (repositories["steps"] / labels).read_bytes()


@layouts
def test_the_last_step_makes_every_public_tensor_and_the_first_may_refuse(
    repositories: dict[str, Path], layout: str
) -> None:
    models = configs(repositories[layout])
    for name, outputs in (("colours", PUBLIC), ("colours_full", [*PUBLIC, "PROBABILITY", "EMBEDDING"])):
        steps = models[name].ensemble_scheduling.step
        first, last = steps[0], steps[-1]
        assert dict(first.input_map) == {"IMAGE": "IMAGE"}
        assert dict(last.output_map) == {output: output for output in outputs}
        assert [step.model_name.split("_")[0] for step in steps] == (
            ["fused"] if layout == "fused" else ["preprocess", "answer"]
        )
        for step in steps:
            config = models[step.model_name]
            assert config.instance_group[0].count == 3
            timeout_us = config.dynamic_batching.default_queue_policy.default_timeout_microseconds
            assert timeout_us == (20_000 if step.model_name == first.model_name else 0)


@layouts
def test_the_files_of_the_three_steps_are_those_of_the_fewer(repositories: dict[str, Path], layout: str) -> None:
    def files(repository: Path) -> dict[str, bytes]:
        paths = [path for path in repository.glob("*_*/1/*") if path.name != "model.py"]
        return {path.name: path.read_bytes() for path in paths}

    assert files(repositories[layout]) == files(repositories["steps"])


def test_a_decode_is_shared_where_the_layout_says_so(tmp_path: Path) -> None:
    for layout, count in (("shared_decode", 1), ("fused", 0)):
        pair = [
            copy_colours(tmp_path / f"{layout}{name}", spec={"name": name, "serving": {"layout": layout}})
            for name in ("one", "two")
        ]
        assemble(pair, tmp_path / layout)
        assert len(list((tmp_path / layout).glob("preprocess_*"))) == count


@layouts
def test_lint_finds_no_fault_with_it(repositories: dict[str, Path], layout: str) -> None:
    assert not lint(repositories[layout])


@layouts
@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("labels.txt", (b"blue\n", b""), "2 labels"),
        ("engine.json", (b'"classes": 3', b'"classes": 4'), "says that logits_nc is [4]"),
        ("decision.json", (b'"top_k": 2', b'"top_k": 3'), "answers the 3 best"),
    ],
)
def test_lint_sees_what_does_not_fit_together_inside_it(
    tmp_path: Path, layout: str, file: str, change: tuple[bytes, bytes], reason: str
) -> None:
    assemble([copy_colours(tmp_path / "source", spec={"serving": {"layout": layout}})], tmp_path / "repository")
    (path,) = (tmp_path / "repository").glob(f"*_*/1/{file}")
    data = path.read_bytes()
    assert change[0] in data
    path.write_bytes(data.replace(*change))
    assert any(reason in finding.reason for finding in lint(tmp_path / "repository"))


@layouts
def test_it_cannot_be_part_of_a_multi_ensemble(tmp_path: Path, layout: str) -> None:
    spec = {"serving": {"layout": layout}}
    pair = [copy_colours(tmp_path / name, spec={**spec, "name": name}) for name in ("one", "two")]
    with pytest.raises(RepositoryError, match=rf"page: one has serving[.]layout {layout}, but only"):
        assemble(pair, tmp_path / "repository", multi={"page": ["one", "two"]})
