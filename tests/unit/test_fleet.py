"""The fleet file: what it may say, how its settings are merged, and what is said of one that is wrong."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.contract import Fleet, SlipwayError, SpecError
from slipway.contract.fleet import Version
from slipway.contract.serving import GpuServing, Serving
from slipway.repository import open_fleet
from tests.support.colours import COLOURS, copy_colours
from tests.support.scripts import ROOT, run_here, run_script

TWO = {"classifiers": {"digits": {"active": "runs/digits"}, "letters": {"active": "runs/letters"}}}


def fleet(**keys: Any) -> Fleet:
    return Fleet.parse({**TWO, **keys}, source="fleet.yaml")


def test_a_run_is_short_for_the_bundle_and_the_engines_in_it() -> None:
    short = Version.parse("runs/digits", source="test")
    assert short == Version(bundle="runs/digits/bundle", engines="runs/digits/engines")


@pytest.mark.parametrize("engines", [{"engines": "built"}, {"engine": ["built/openvino-int8"]}])
def test_a_version_names_its_engines_one_way_or_the_other(engines: dict[str, Any]) -> None:
    assert Version.parse({"bundle": "imports/letters", **engines}, source="test").bundle == "imports/letters"
    for wrong in ({}, {"engines": "built", "engine": ["built/openvino-int8"]}, {"engine": []}):
        with pytest.raises(SpecError, match=r"give either engines \(a folder of them to choose from\) or engine"):
            Version.parse({"bundle": "imports/letters", **wrong}, source="test")


def test_a_classifier_s_own_setting_goes_before_the_fleet_s_and_that_before_its_spec_s() -> None:
    merged = fleet(
        serving={"instances": 1, "max_queue_size": 8},
        classifiers={"digits": {"active": "d", "serving": {"instances": 3}}, "letters": {"active": "l"}},
    )
    spec = Serving(instances=2, threads=4, max_batch_size=16)
    assert merged.serving_of("digits", spec) == Serving(instances=3, threads=4, max_batch_size=16, max_queue_size=8)
    assert merged.serving_of("letters", spec) == Serving(instances=1, threads=4, max_batch_size=16, max_queue_size=8)


def test_settings_of_the_gpu_lane_are_merged_key_by_key_as_well() -> None:
    merged = fleet(
        serving={"gpu": {"max_batch_size": 16, "decode_threads": 8}},
        classifiers={"digits": {"active": "d", "serving": {"gpu": {"decode_threads": 2}}}},
    )
    spec = Serving(threads=4, gpu=GpuServing(gpus=(1,), max_batch_size=64))
    expected = GpuServing(gpus=(1,), max_batch_size=16, decode_threads=2)
    assert merged.serving_of("digits", spec) == Serving(threads=4, gpu=expected)


def test_a_setting_that_is_given_its_default_value_is_still_given() -> None:
    """`instances: 2` is the default of a spec, and here the word of the fleet."""
    assert fleet(serving={"instances": 2}).serving_of("digits", Serving(instances=7)).instances == 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"classifier": {}},
            "classifier: unknown key; the valid keys here are bases, classifiers, lane, multi, release, serving",
        ),
        ({"lane": "tpu"}, "lane: Input should be 'cpu' or 'gpu'; given 'tpu'"),
        ({"classifiers": {}}, "names neither classifiers nor bases; a repository serves at least one classifier"),
        ({"classifiers": ["digits"]}, "classifiers: keys with values are needed; given"),
        ({"classifiers": {"digits": {}}}, "classifiers.digits.active: required but not given"),
        ({"classifiers": {"digits": None}}, "classifiers.digits: "),
        ({"classifiers": {"digits": {"active": ""}}}, "classifiers.digits.active: "),
        ({"classifiers": {"digits": {"active": 5}}}, "classifiers.digits.active: "),
        ({"classifiers": {"digits": {"active": "a\0b"}}}, "classifiers.digits.active.bundle: "),
        ({"classifiers": {"digits": {"active": "d", "kept": []}}}, "the valid keys here are active, keep, serving"),
        (
            {"classifiers": {"digits": {"active": {"bundle": "b", "engines": "e", "name": "x"}}}},
            "classifiers.digits.active.name: unknown key; the valid keys here are",
        ),
        (
            {"serving": {"instance": 1}},
            "serving.instance: unknown key; the valid keys here are gpu, instances, layout, max_b",
        ),
        ({"serving": {"instances": 0}}, "serving.instances: Input should be greater than or equal to 1; given 0"),
        (
            {"classifiers": {"digits": {"active": "d", "serving": {"max_queue_size": -1}}}},
            "classifiers.digits.serving.max_queue_size: ",
        ),
        ({"multi": {"page": ["digits", "letter"]}}, "multi: .*page names letter; the classifiers are digits, letters"),
        ({"multi": {"page": ["digits"]}}, "multi: .*page names digits; give two or more, each once"),
        ({"multi": {"page": []}}, "multi: .*page names none; give two or more, each once"),
        ({"multi": {"page": ["digits", "digits"]}}, "multi: .*page names digits, digits; give two or more, each once"),
        ({"multi": {"digits": ["digits", "letters"]}}, "multi: .*digits is the name of a classifier"),
        ({"multi": {"digits_full": ["digits", "letters"]}}, "names ending in _full or beginning with"),
        ({"multi": {"page": "digits"}}, "multi.page: "),
    ],
)
def test_what_is_wrong_is_said_with_its_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=f"fleet.yaml: (.|\n)*{message}"):
        fleet(**keys)


BAD_NAMES = ("../x", "/abs", "a;b", "a b", " a", "a\n", "a\0", "é", "Digits", "1st", "", "digits_full", "engine_x", ".")


@pytest.mark.parametrize("name", [*BAD_NAMES, 5, True, None])
def test_a_bad_name_is_refused_whether_of_a_classifier_or_of_a_multi(name: Any) -> None:
    for keys in ({"classifiers": {name: {"active": "d"}}}, {"multi": {name: ["digits", "letters"]}}):
        with pytest.raises(SpecError, match=f"fleet.yaml: {next(iter(keys))}"):
            fleet(**keys)


def write(folder: Path, text: str) -> Path:
    path = folder / "fleet.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; write its keys: bases, classifiers, lane, "),
        ("- digits\n", "keys with values are needed"),
        ("digits", "keys with values are needed"),
        ("classifiers: {", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("!!python/object/apply:os.system [id]", "the tag !!python/object/apply:os.system is not read"),
        ("[" * 5000, "more than 100 levels; write fewer"),
        (
            "classifiers:\n  digits: {active: a}\n  digits: {active: b}\n",
            "'digits' is there twice, in line 2 and line 3",
        ),
        ("lane: cpu\nlane: gpu\nclassifiers: {digits: {active: a}}\n", "'lane' is there twice, in line 1 and line 2"),
        ("classifiers: &a [*a]\n", "more than 100000 keys and values"),
        ("# " + "x" * (1 << 20) + "\n", "at most 1048576"),
    ],
)
def test_a_file_that_is_no_fleet_is_refused_in_words(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"fleet.yaml: (.|\n)*{message}"):
        Fleet.read(write(tmp_path, text))


def test_aliases_that_repeat_themselves_into_billions_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 12)]
    started = time.monotonic()
    with pytest.raises(SpecError, match="more than 100000 keys and values"):
        Fleet.read(write(tmp_path, "\n".join([*lines, "classifiers: *x11\n"])))
    assert time.monotonic() - started < 20


def test_an_alias_and_a_merge_are_fine(tmp_path: Path) -> None:
    text = "serving: &s {instances: 1}\nclassifiers:\n  digits: {active: a, serving: {<<: *s, threads: 2}}\n"
    assert Fleet.read(write(tmp_path, text)).classifiers["digits"].serving.threads == 2


def test_the_fleet_of_the_documentation_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs/fleet.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    fleet = Fleet.read(write(tmp_path, text))
    assert fleet.multi == {"page": ("digits", "digits_fp32")}
    assert fleet.serving_of("letters", Serving(threads=3)) == Serving(instances=2, threads=3, max_queue_size=8)


@pytest.mark.parametrize("path", ["missing.yaml", "."])
def test_a_fleet_file_that_is_not_there_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        Fleet.read(tmp_path / path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(ANYTHING, st.sampled_from(["lane", "serving", "classifiers", "multi"]))
def test_whatever_stands_in_a_key_is_taken_or_is_an_error_of_ours(data: Any, key: str) -> None:
    with suppress(SpecError):
        fleet(**{key: data})


def test_paths_are_relative_to_the_fleet_file_and_links_to_runs_are_followed(tmp_path: Path) -> None:
    copy_colours(tmp_path / "fleets/runs/colours-2026-11")
    (tmp_path / "fleets/runs/current").symlink_to("colours-2026-11")
    text = "classifiers: {shades: {active: {bundle: runs/current/bundle, engine: [runs/current/engine]}}}\n"
    path = write(tmp_path / "fleets", text)
    (opened,) = open_fleet(Fleet.read(path), root=path.parent)
    assert (opened.name, opened.bundle.spec.name) == ("shades", "colours")


@pytest.mark.parametrize(
    ("active", "message"),
    [
        ("nowhere", "nowhere/bundle: no manifest.json here; give the folder of a complete bundle"),
        (
            "{bundle: colours/bundle, engines: nowhere}",
            "nowhere: no engine of the cpu lane; make it with slipway compile",
        ),
        ("{bundle: colours/bundle, engine: [nowhere]}", "nowhere: no such engine; make it with slipway compile"),
        ("colours", "colours/engines: no engine of the cpu lane; make it with slipway compile .*colours/bundle"),
        ("{bundle: colours/engine, engine: [colours/engine]}", "of kind engine, but kind bundle is needed"),
        ("{bundle: fleet.yaml, engine: [colours/engine]}", "fleet.yaml: no manifest.json here"),
        ("{bundle: linked, engine: [colours/engine]}", "labels.txt: a symbolic link; copy the file itself"),
    ],
)
def test_what_a_fleet_names_and_is_not_there_is_said_with_its_path(active: str, message: str, tmp_path: Path) -> None:
    copy_colours(tmp_path / "colours")
    copy_colours(tmp_path / "other")
    (tmp_path / "other/bundle").rename(tmp_path / "linked")
    (tmp_path / "linked/labels.txt").unlink()
    (tmp_path / "linked/labels.txt").symlink_to(COLOURS / "bundle/labels.txt")
    path = write(tmp_path, f"classifiers: {{digits: {{active: {active}}}}}\n")
    with pytest.raises(SlipwayError, match=message):
        open_fleet(Fleet.read(path), root=tmp_path)


def test_the_script_says_what_is_wrong_with_a_fleet_and_ends_with_1(tmp_path: Path) -> None:
    write(tmp_path, "classifiers: {../digits: {active: runs/digits}}\n")
    done = run_script("build/assemble.py", "fleet.yaml", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("assemble.py: fleet.yaml: classifiers.../digits")
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.yaml"]


@pytest.mark.parametrize("options", [["--lane", "cpu"], ["--engines", "e"], ["--engine", "e"]])
def test_the_script_takes_no_engines_beside_a_fleet(options: list[str], tmp_path: Path) -> None:
    done = run_here("assemble", "fleet.yaml", *options, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert f"leave {options[0]} out" in done.stderr
