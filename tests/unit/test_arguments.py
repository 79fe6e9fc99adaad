"""Types of options that several verbs share."""

import argparse

import pytest

from slipway.system.arguments import MOST, count


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "x", str(MOST + 1), "9" * 5000])
def test_a_count_that_no_verb_can_use_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"use 1 to {MOST}"):
        count(text)


def test_a_count_may_be_the_largest_number_of_a_row() -> None:
    assert (count("1"), count(str(2**63 - 1))) == (1, 2**63 - 1)
