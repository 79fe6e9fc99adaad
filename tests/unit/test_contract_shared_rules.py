"""The rules that several stages must agree on, and the one copy of them that a script to be copied has."""

import pytest

from clients.classify_common import SUFFIXES
from slipway.contract import Bundle
from slipway.contract.shared_rules import IMAGE_SUFFIXES, changed_class, is_busy, listed
from tests.support.colours import COLOURS


def test_the_scripts_that_are_copied_send_the_same_files() -> None:
    assert SUFFIXES == IMAGE_SUFFIXES


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("ab", "ab", None),
        ("ab", "abc", None),
        ("abc", "ab", None),
        ("ab", "ba", (0, "a", "b")),
        ("ab", "acb", (1, "b", "c")),
    ],
)
def test_new_classes_come_last_and_no_id_changes_its_meaning(
    before: str, after: str, changed: tuple[int, str, str] | None
) -> None:
    assert changed_class(before, after) == changed


@pytest.mark.parametrize(
    ("said", "busy"),
    [
        ("[request id: 7] Exceeds maximum queue size", True),
        ("in ensemble 'colours', Request timeout expired", True),
        ("This protocol is restricted, expecting header 'key'", False),
        ("failed to connect to all addresses", False),
    ],
)
def test_a_server_is_busy_when_it_says_so_and_not_when_it_is_gone(said: str, busy: bool) -> None:
    assert is_busy(said) == busy


def test_a_lane_takes_what_the_spec_lists_in_the_lanes_own_order() -> None:
    spec = Bundle.open(COLOURS / "bundle").spec.model_copy(
        update={"precisions": ("fp32", "fp16", "bf16", "fp8", "int8")}
    )
    assert listed(spec, lane="cpu") == ["int8", "bf16", "fp32"]
    assert listed(spec, lane="gpu") == ["int8", "fp8", "fp16", "fp32"]
