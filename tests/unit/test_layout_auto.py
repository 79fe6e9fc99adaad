"""`serving.layout: auto`: what follows from the number of classifiers and of cores, and what a user's word leaves."""

from pathlib import Path
from typing import Any

import pytest

from slipway.cli.assemble import say
from slipway.contract import RepositoryError
from slipway.contract.serving import CpuServing, Serving, settle
from slipway.repository import assemble, plan_repository
from tests.support.colours import configs, copy_colours


def settled(given: dict[str, Any], *, cores: int = 2, classifiers: int = 1, shares_decode: bool = False) -> CpuServing:
    serving = Serving.parse(given, source="test")
    return CpuServing.of(settle(serving, cores=cores, classifiers=classifiers, shares_decode=shares_decode))


@pytest.mark.parametrize(
    ("cores", "classifiers", "expected"),
    [
        (1, 1, "fused, 1 process of 1 thread, pinned, batches of up to 2"),
        (2, 1, "fused, 2 processes of 1 thread, pinned, batches of up to 2"),
        (64, 1, "fused, 64 processes of 1 thread, pinned, batches of up to 2"),
        (200, 1, "fused, 64 processes of 1 thread, pinned, batches of up to 2"),
        (2, 2, "shared_decode, 2 + 1 processes of 1 thread, batches of up to 2"),
        (16, 3, "shared_decode, 16 + 6 processes of 1 thread, batches of up to 2"),
        (2, 1000, "shared_decode, 2 + 1 processes of 1 thread, batches of up to 2"),
    ],
)
def test_the_machine_and_its_classifiers_choose_what_nobody_gave(cores: int, classifiers: int, expected: str) -> None:
    assert str(settled({}, cores=cores, classifiers=classifiers)) == expected


def test_what_is_given_stays() -> None:
    given = {"instances": 3, "preprocess_instances": 5, "threads": 2, "pinned": False, "preferred_batch_size": 0}
    assert settled(given).model_dump() == {**given, "layout": "fused"}
    assert settled({"max_batch_size": 1}).preferred_batch_size == 1
    assert settled({"threads": 4}, cores=16).instances == 4
    assert settled({"threads": 4}, cores=2).instances == 1


def test_a_layout_of_the_user_brings_fixed_defaults() -> None:
    assert str(settled({"layout": "steps"}, cores=64)) == "steps, 2 + 2 processes of 1 thread"
    assert str(settled({"layout": "steps", "instances": 3}, cores=64)) == "steps, 3 + 3 processes of 1 thread"
    assert str(settled({"layout": "fused"}, classifiers=9)) == "fused, 2 processes of 1 thread"


def auto(folder: Path, name: str, **serving: Any) -> Any:
    settings = {"layout": "auto", "instances": None, **serving}
    return copy_colours(folder / name, spec={"name": name, "serving": settings})


def kinds(folder: Path, name: str) -> list[tuple[str, int]]:
    models = configs(folder)
    steps = [step.model_name for step in models[name].ensemble_scheduling.step]
    return [(step.split("_")[0], models[step].instance_group[0].count) for step in steps]


def test_a_repository_has_what_was_chosen_and_for_what(tmp_path: Path) -> None:
    one, two = auto(tmp_path, "one"), auto(tmp_path, "two")
    for cores in (2, 8):
        plan = plan_repository([one], tmp_path / "alone", cores=cores)
        plan.write()
        assert kinds(tmp_path / "alone", "one") == [("fused", cores)]
        assert (plan.lane.cores, plan.lane.serving["one"].instances) == (cores, cores)
    plan = plan_repository([one, two], tmp_path / "both", cores=8)
    plan.write()
    assert kinds(tmp_path / "both", "two") == [("preprocess", 8), ("answer", 4)]
    assert len(list((tmp_path / "both").glob("preprocess_*"))) == 1
    plan = plan_repository([one, two], tmp_path / "multi", cores=2, multi={"page": ["one", "two"]})
    plan.write()
    assert kinds(tmp_path / "multi", "one") == [("preprocess", 2), ("engine", 1), ("post", 1)]


def test_assemble_prints_what_was_chosen_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, steps = auto(tmp_path, "one"), auto(tmp_path, "two"), auto(tmp_path, "fixed", layout="steps")

    def said(*classifiers: Any, **multi: list[str]) -> list[str]:
        say(plan_repository(classifiers, tmp_path / "out", cores=2, multi=multi), classifiers, [])
        return [line.strip() for line in capsys.readouterr().out.splitlines() if ", since " in line]

    assert said(one) == ["fused, since it is the only classifier"]
    assert said(one, steps) == ["shared_decode, since it shares the cores with 1 other"]
    steps_of_page = "steps, since an ensemble for several classifiers takes its steps"
    assert said(one, two, page=["one", "two"]) == [steps_of_page, steps_of_page]
    assert said(steps) == []


def test_where_nothing_is_left_to_choose_the_machine_makes_no_difference(tmp_path: Path) -> None:
    one = copy_colours(tmp_path / "one")
    few, many = (plan_repository([one], tmp_path / "out", cores=cores) for cores in (1, 64))
    assert few.lane == many.lane
    assert few.lane.cores is None
    assert {path: content.sha256 for path, content in few.files.items()} == {
        path: content.sha256 for path, content in many.files.items()
    }


def test_the_engine_of_a_pinned_chain_begins_where_its_decoder_ends(tmp_path: Path) -> None:
    serving = {"layout": "steps", "pinned": True, "preprocess_instances": 3, "instances": 2, "threads": 2}
    assemble([copy_colours(tmp_path / "one", spec={"serving": serving})], tmp_path / "out")
    models = configs(tmp_path / "out")
    first = {
        name.split("_")[0]: int(model.parameters["first_core"].string_value)
        for name, model in models.items()
        if "first_core" in model.parameters
    }
    assert first["engine"] == first["preprocess"] + 3 * 2


def test_a_layout_that_cannot_share_a_decode_is_refused_only_where_it_was_given(tmp_path: Path) -> None:
    pair = [auto(tmp_path, "one"), auto(tmp_path, "two", layout="fused")]
    with pytest.raises(RepositoryError, match=r"page: two has serving[.]layout fused"):
        assemble(pair, tmp_path / "out", multi={"page": ["one", "two"]})
