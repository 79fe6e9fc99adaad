"""Every YAML and JSON file that users write is read by one reader: nothing is dropped, nothing read in two ways."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.contract import Fleet, Spec, SpecError
from slipway.contract.prices import Prices
from slipway.contract.search_space import SearchSpace
from slipway.system.yaml_json import MAX_DEPTH, dump_yaml, parse_yaml, read_plain

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "training/configs/digits.yaml").read_text()
FLEET = "classifiers: {digits: {active: runs/digits}}\n"
PRICES = (ROOT / "src/slipway/cli/prices.yaml").read_text()
SPACE = (ROOT / "training/configs/digits_search.yaml").read_text()
FILES = {"spec": (Spec, SPEC), "fleet": (Fleet, FLEET), "prices": (Prices, PRICES), "space": (SearchSpace, SPACE)}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_refuses_a_key_that_is_there_twice(name: str, tmp_path: Path) -> None:
    contract, text = FILES[name]
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"seed: 1\n{text}\nseed: 2\n")
    last = len(text.split("\n")) + 2
    with pytest.raises(SpecError, match=f"'seed' is there twice, in line 1 and line {last}; remove one"):
        contract.read(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["\ufeff{}", "{}\n\n", "--- \n{}", "windows"])
def test_a_byte_order_mark_and_windows_line_ends_are_read(name: str, change: str, tmp_path: Path) -> None:
    contract, text = FILES[name]
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    expected = contract.read(path)
    changed = text.replace("\n", "\r\n") if change == "windows" else change.format(text)
    path.write_bytes(changed.encode())
    assert contract.read(path) == expected


REMEDIES = {
    "leave out the leading zero": ("010", "-007", "08"),
    "write the number in decimal": ("1:30", "20:30:10.5"),
    "write it in decimal": ("0o17", "0b11", "-0x1F"),
    "leave out the _": ("1_000", "1_0.5"),
    "write true or false": ("yes", "No", "ON", "off"),
}


@pytest.mark.parametrize(("value", "remedy"), [(one, remedy) for remedy, values in REMEDIES.items() for one in values])
def test_a_value_of_two_readings_is_refused_and_in_quotes_it_is_text(value: str, remedy: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_yaml(f"a: 1\nb: [2, {value}]\n", source="spec.yaml")
    assert str(raised.value).startswith(f"spec.yaml: line 2: {value} is ")
    assert f"{remedy}, or put it in quotes if it is text" in str(raised.value)
    assert parse_yaml(f"'{value}'", source="spec.yaml") == value
    with pytest.raises(SpecError, match="line 1"):
        parse_yaml(f"{value}: 1", source="spec.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("10", 10), ("-3", -3), ("0", 0), ("0x1F", 31), ("1e-3", 0.001), (".5", 0.5), ("1.50", 1.5)),
        *(("true", True), ("False", False), ("null", None), ("~", None), ("", None)),
        *((text, text) for text in ("y", "2024-01-31", "1.2.3", "resnet_10", "12ab_3", "=")),
    ],
)
def test_what_has_one_reading_is_read_as_yaml_1_2_reads_it(text: str, value: Any) -> None:
    found = parse_yaml(text, source="here")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ('!!int "010"', "!!int"),
        ("!!bool yes", "!!bool"),
        ("!!float '1_0'", "!!float"),
        ("!!str 10", "!!str"),
        ("! 010", "!"),
        ("!ours [1]", "!ours"),
        ("!!set {a, b}", "!!set"),
        ("[1, {b: !!binary aGk=}]", "!!binary"),
    ],
)
def test_a_tag_converts_nothing_and_is_refused_with_its_line(value: str, tag: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_yaml(f"a: 1\nb: {value}\n", source="spec.yaml")
    assert str(raised.value) == (
        f"spec.yaml: line 2: the tag {tag} is not read; remove it, and write the value as it is meant: 10, true, or in "
        "quotes if it is text"
    )


def test_a_file_may_be_as_deep_as_the_limit_and_no_deeper() -> None:
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, source="here")
    with pytest.raises(SpecError, match="here: line 2: more than 100 levels; write fewer"):
        parse_yaml("\n" + "[" * 5000 + "]" * 5000, source="here")


def test_a_date_is_still_one_where_a_date_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    assert all(isinstance(price.as_of, date) for price in Prices.read(tmp_path / "prices.yaml").machines.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:\n\troot: here\n", "indent with spaces, not with tabs"),
        ("a: 1\n---\nb: 2\n", "write one document; remove the second line of three dashes"),
        ("a: [1\n", "not valid YAML"),
        ("a: *b\n", "not valid YAML"),
        ("a: &a [*a]\n", "more than 100000 keys and values, aliases expanded; write fewer, and repeat fewer by"),
        ("# " + "x" * (1 << 20), "at most 1048576 are read: write a shorter file"),
    ],
)
def test_what_is_not_one_plain_document_is_refused_with_what_to_change(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"^spec.yaml: (.|\n)*{message}"):
        parse_yaml(text, source="spec.yaml")


def test_a_merge_gives_way_to_a_key_beside_it() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", source="here")["b"] == {"x": 1, "y": 3}


def test_another_encoding_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_bytes("name: digits\n".encode("utf-16"))
    with pytest.raises(SpecError, match=r"not UTF-8 text .*; save it in UTF-8"):
        read_plain(tmp_path / "spec.yaml")


def test_a_json_file_that_says_a_key_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"a": 1,\n "data": {"root": "x",\n  "root": "y"}}')
    with pytest.raises(SpecError, match=r"spec\.json: 'root' is there twice, in line 2 and line 3; remove one"):
        read_plain(tmp_path / "spec.json")
    (tmp_path / "spec.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_plain(tmp_path / "spec.json") == {"a": 1}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
WORDS = st.sampled_from(
    ["010", "1e3", "0o17", "1_0", "yes", "on", "1:30", "2024-01-31", "null", "=", "<<", "-0x1", "."]
)
TREES = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner) | st.dictionaries(WORDS | st.text("ab01_:"), inner), max_leaves=8
)


@given(TREES)
def test_what_is_written_is_read_as_the_same(tree: Any) -> None:
    assert parse_yaml(dump_yaml(tree), source="here") == tree
