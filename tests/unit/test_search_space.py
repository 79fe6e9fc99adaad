"""The search spaces that the project shows are taken for the spec beside them."""

import re
from pathlib import Path

import pytest

from slipway.contract import Spec, SpecError
from slipway.contract.search_space import SearchSpace
from slipway.system.yaml_json import parse_yaml

ROOT = Path(__file__).parents[2]
DIGITS = Spec.read(ROOT / "training/configs/digits.yaml")
(IN_THE_GUIDE,) = re.findall(r"```yaml\n(metric:.*?)```", (ROOT / "docs/tracking.md").read_text("utf-8"), re.DOTALL)
SPACES = {"configs": (ROOT / "training/configs/digits_search.yaml").read_text("utf-8"), "guide": IN_THE_GUIDE}


@pytest.mark.parametrize("where", SPACES)
def test_the_space_of_the_digits_fits_their_spec(where: str) -> None:
    space = SearchSpace.parse(parse_yaml(SPACES[where], source=where), source=where)
    space.check(DIGITS, source=where)


def test_a_field_that_the_spec_lacks_is_named() -> None:
    space = SearchSpace.parse({"parameters": {"recipe.rotate_degrees": {"low": 0, "high": 20}}}, source="space")
    with pytest.raises(SpecError, match="rotate_degrees"):
        space.check(DIGITS, source="space")
