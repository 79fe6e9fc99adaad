"""Which engines of a folder each lane takes, and what is said of the one that is missing."""

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from slipway.cli import assemble as assemble_command
from slipway.contract import Bundle, Manifest, RepositoryError, SlipwayError
from slipway.contract.choice import choice_name
from slipway.repository import assemble, open_engines, pick_engines
from slipway.system.files import sha256_bytes, sha256_file
from tests.support.cards import card_of
from tests.support.choices import write_only_choice
from tests.support.colours import COLOURS, copy_colours
from tests.support.plans import stand_in_plan
from tests.support.scripts import run_here

FP32 = "openvino-fp32"
AGAIN = {"gate": {"verdict": "reference"}, "top1": 0.5}


def with_choice(folder: Path, **changes: Any) -> Bundle:
    """`colours` in `folder/colours`, its engine as `folder/engines/openvino-fp32`, and a choice of it."""
    bundle = copy_colours(folder / "colours").bundle
    shutil.copytree(folder / "colours/engine", folder / "engines" / FP32)
    write_only_choice(folder / "engines" / FP32, **({"bundle": bundle.id} | changes))
    return bundle


def test_the_cpu_lane_takes_the_chosen_engine_and_records_the_choice(tmp_path: Path) -> None:
    classifier = pick_engines(with_choice(tmp_path), tmp_path / "engines", lane="cpu")
    assert classifier.engine.path == tmp_path / "engines" / FP32
    assemble([classifier], tmp_path / "out")
    manifest = Manifest.open(tmp_path / "out", kind="repository")
    assert manifest.inputs["colours/choice"] == sha256_file(tmp_path / "engines/choice.json")
    assert manifest.measured == {"colours": {"choice": json.loads((tmp_path / "engines/choice.json").read_text())}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": sha256_bytes(b"another")}, "measured on bundle [0-9a-f]{12}, but the bundle is"),
        ({"chosen": "openvino-int8"}, "names 'openvino-int8', which is not a measured engine in this folder"),
        ({"chosen": "../engines/openvino-fp32"}, "which is not a measured engine in this folder"),
        ({"chosen": ".."}, "which is not a measured engine in this folder"),
    ],
)
def test_a_choice_of_something_else_is_refused_with_the_command_that_measures_again(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    bundle = with_choice(tmp_path, **changes)
    with pytest.raises(RepositoryError, match=f"choice.json .*{message}.*slipway choose .*--engines"):
        pick_engines(bundle, tmp_path / "engines", lane="cpu")


def test_an_engine_that_was_compiled_again_since_is_refused(tmp_path: Path) -> None:
    bundle = with_choice(tmp_path)
    engine = tmp_path / "engines" / FP32
    Manifest.seal(engine, kind="engine", name="colours", bundle=bundle.id, measured=AGAIN)
    with pytest.raises(
        RepositoryError, match=r"openvino-fp32 was compiled again since choice.json was measured.*run slipway choose"
    ):
        pick_engines(bundle, tmp_path / "engines", lane="cpu")


def test_a_folder_without_a_choice_names_the_command_that_measures(tmp_path: Path) -> None:
    bundle = with_choice(tmp_path)
    (tmp_path / "engines/choice.json").unlink()
    with pytest.raises(RepositoryError, match=r"no choice.json, .*run slipway choose .*colours/bundle --engines"):
        pick_engines(bundle, tmp_path / "engines", lane="cpu")


def test_a_folder_without_engines_names_the_command_that_compiles(tmp_path: Path) -> None:
    bundle = Bundle.open(COLOURS / "bundle")
    with pytest.raises(RepositoryError, match=r"no engine of the cpu lane; make it with slipway compile .*--graphs"):
        pick_engines(bundle, tmp_path, lane="cpu")


def plans(folder: Path, precisions: list[str], *built: tuple[str, str, str], chosen: Sequence[str] = ()) -> Bundle:
    """`colours` with a spec that lists `precisions`, a stand-in for each (precision, capability, verdict), and choices
    of those that are named."""
    bundle = copy_colours(folder / "colours", spec={"precisions": precisions}).bundle
    for precision, capability, verdict in built:
        name = f"tensorrt-{precision}-sm{capability.replace('.', '')}"
        stand_in_plan(folder / name, bundle, capability=capability, verdict=verdict, precision=precision)
    for name in chosen:
        capability = f"{name[-2]}.{name[-1]}"
        write_only_choice(folder / name, bundle=bundle.id, file=choice_name(capability), card=card_of(capability))
    return bundle


@pytest.mark.parametrize(
    ("precisions", "built", "chosen"),
    [
        (["int8"], [("int8", "9.0", "pass")], ["tensorrt-int8-sm90"]),
        (["fp16", "int8"], [("int8", "9.0", "pass"), ("fp16", "9.0", "pass")], ["tensorrt-fp16-sm90"]),
        (
            ["fp16", "int8"],
            [("int8", "8.9", "pass"), ("int8", "9.0", "pass"), ("fp16", "9.0", "pass")],
            ["tensorrt-int8-sm89", "tensorrt-int8-sm90"],
        ),
        (["fp16"], [("int8", "8.9", "pass"), ("fp16", "9.0", "pass")], ["tensorrt-fp16-sm90"]),
    ],
)
def test_the_gpu_lane_takes_the_chosen_plan_of_each_gpu_and_records_the_choice(
    precisions: list[str], built: list[tuple[str, str, str]], chosen: list[str], tmp_path: Path
) -> None:
    bundle = plans(tmp_path, precisions, *built, chosen=chosen)
    classifier = pick_engines(bundle, tmp_path, lane="gpu")
    assert [engine.path.name for engine in classifier.engines] == chosen
    assert assemble([classifier], tmp_path / "out", lane="gpu").lane == "gpu"
    manifest = Manifest.open(tmp_path / "out", kind="repository")
    for name in chosen:
        capability = name[-2:]
        file = tmp_path / f"choice-sm{capability}.json"
        assert manifest.inputs[f"colours/choice_sm{capability}"] == sha256_file(file)
        assert manifest.measured["colours"][f"choice_sm{capability}"] == json.loads(file.read_text())


CHOOSE = r"slipway choose .*colours/bundle --engines .* --target tensorrt"


@pytest.mark.parametrize(
    ("built", "chosen", "message"),
    [
        ([("int8", "9.0", "pass")], [], rf"no choice-sm90\.json, so it is not known .*on that GPU.*: {CHOOSE}"),
        (
            [("int8", "9.0", "pass"), ("int8", "8.9", "pass")],
            ["tensorrt-int8-sm90"],
            rf"no choice-sm89\.json.*{CHOOSE}",
        ),
        ([("int8", "9.0", "fail"), ("fp16", "9.0", "pass")], ["tensorrt-int8-sm90"], f"gate says 'fail'.*{CHOOSE}"),
    ],
)
def test_plans_without_a_choice_that_counts_are_refused_with_the_command_that_makes_one(
    built: list[tuple[str, str, str]], chosen: list[str], message: str, tmp_path: Path
) -> None:
    bundle = plans(tmp_path, ["int8", "fp16"], *built, chosen=chosen)
    with pytest.raises(RepositoryError, match=message):
        pick_engines(bundle, tmp_path, lane="gpu")


def test_a_gpu_for_which_no_plan_passed_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = [("int8", "8.0", "fail"), ("fp16", "8.0", "fail"), ("int8", "9.0", "pass")]
    plans(tmp_path, ["int8", "fp16"], *built, chosen=["tensorrt-int8-sm90"])
    words = ["colours/bundle", "--engines", ".", "--lane", "gpu", "--out", "out", "--dry-run"]
    with contextlib.chdir(tmp_path):
        assemble_command.main(assemble_command.parser().parse_args(words))
    said = capsys.readouterr().out
    assert "engine tensorrt-int8-sm90: tensorrt int8 (pass)" in said
    assert "left out: tensorrt-fp16-sm80, tensorrt-int8-sm80; no plan for that GPU passed its accuracy gate" in said


def test_where_the_fastest_precision_differs_between_gpus_one_repository_cannot_serve_both(tmp_path: Path) -> None:
    built = [("int8", "8.9", "pass"), ("fp16", "9.0", "pass")]
    bundle = plans(tmp_path, ["int8", "fp16"], *built, chosen=["tensorrt-int8-sm89", "tensorrt-fp16-sm90"])
    with pytest.raises(RepositoryError, match=r"precision int8 and fp16; .*assemble a repository for each"):
        assemble([pick_engines(bundle, tmp_path, lane="gpu")], tmp_path / "out", lane="gpu")


MAKE = r"slipway container compile .*--graphs .*graphs --out .* --run .*slipway compile .*--target tensorrt"


@pytest.mark.parametrize(
    ("precisions", "built", "message"),
    [
        (["int8"], [], f"no TensorRT plan of int8 to serve: none was found; make it .*{MAKE}"),
        (["int8", "fp32"], [("fp16", "9.0", "pass")], f"no TensorRT plan of int8, fp32 to serve.*{MAKE}"),
        (
            ["int8"],
            [("int8", "9.0", "fail")],
            rf"the accuracy gates say {{'tensorrt-int8-sm90': 'fail'}}; make it .*{MAKE}",
        ),
        (
            ["bf16"],
            [("int8", "9.0", "pass")],
            "the spec lists only bf16, but the gpu lane serves one of int8, fp8, fp16, fp32",
        ),
    ],
)
def test_a_missing_plan_is_named_with_the_command_that_makes_it(
    precisions: list[str], built: list[tuple[str, str, str]], message: str, tmp_path: Path
) -> None:
    bundle = plans(tmp_path, precisions, *built)
    with pytest.raises(RepositoryError, match=message):
        pick_engines(bundle, tmp_path, lane="gpu")


def test_a_proof_of_tensorrt_rtx_is_not_taken_for_a_plan(tmp_path: Path) -> None:
    bundle = plans(tmp_path, ["int8"])
    stand_in_plan(tmp_path / "tensorrt_rtx-int8", bundle, capability=None, target="tensorrt_rtx", verdict="proof only")
    with pytest.raises(RepositoryError, match="no TensorRT plan of int8 to serve: none was found"):
        pick_engines(bundle, tmp_path, lane="gpu")


@pytest.mark.parametrize(("lane", "command"), [("cpu", "slipway compile .*--graphs"), ("gpu", MAKE)])
def test_an_engine_that_was_named_and_is_not_there_is_named_with_the_command_that_makes_it(
    lane: Any, command: str, tmp_path: Path
) -> None:
    with pytest.raises(RepositoryError, match=f"sm90: no such engine; make it .*{command}"):
        open_engines(Bundle.open(COLOURS / "bundle"), [tmp_path / "tensorrt-int8-sm90"], lane=lane)


@pytest.mark.parametrize("named", ["mine", "openvino-int8", "elsewhere/mine", "elsewhere/openvino-int8"])
def test_the_command_that_makes_a_missing_engine_names_folders_that_fit_its_bundle(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle := tmp_path / "run/bundle").parent.mkdir()
    shutil.copytree(COLOURS / "bundle", bundle)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepositoryError) as raised:
        open_engines(Bundle.open(Path("run/bundle")), [Path(named)], lane="cpu")
    own = named.endswith("openvino-int8")  # compile writes this very folder
    out = Path(named).parent if own else "run/engines"
    remedy = f"make it with slipway compile run/bundle --graphs run/graphs --out {out}"
    assert str(raised.value) == f"{named}: no such engine; {remedy}" + (
        "" if own else ", and give one of the folders in run/engines"
    )


def test_beside_other_engines_a_missing_one_is_answered_with_their_names() -> None:
    with pytest.raises(RepositoryError, match=r"int9: no such engine; the engines in .*colours are engine$"):
        open_engines(Bundle.open(COLOURS / "bundle"), [COLOURS / "openvino-int9"], lane="cpu")


def test_the_script_assembles_what_was_chosen_into_the_lane_s_folder(tmp_path: Path) -> None:
    with_choice(tmp_path)
    done = run_here("assemble", "colours/bundle", "--engines", "engines", "--json", cwd=tmp_path)
    assert "chosen: the only one" in done.stdout
    assert "next: slipway serve model_repository/cpu" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["lane"] == "cpu"
    Manifest.open(tmp_path / "model_repository/cpu", kind="repository")


def test_the_script_assembles_named_plans_into_the_gpu_lane(tmp_path: Path) -> None:
    plans(tmp_path, ["int8"], ("int8", "9.0", "pass"), ("int8", "8.9", "pass"))
    named = [part for cc in (90, 89) for part in ("--engine", f"tensorrt-int8-sm{cc}")]
    done = run_here("assemble", "colours/bundle", *named, "--lane", "gpu", cwd=tmp_path)
    assert "next: slipway container serve model_repository/gpu" in done.stdout
    manifest = Manifest.open(tmp_path / "model_repository/gpu", kind="repository")
    assert manifest.inputs.keys() == {"colours/bundle", "colours/engine_sm90", "colours/engine_sm89"}


@pytest.mark.parametrize("options", [[], ["--engine", "a", "--engines", "b"]])
def test_the_script_wants_engines_one_way_or_the_other(options: list[str], tmp_path: Path) -> None:
    done = run_here("assemble", "bundle", *options, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "--engine" in done.stderr


def test_a_broken_choice_is_named(tmp_path: Path) -> None:
    bundle = with_choice(tmp_path)
    (tmp_path / "engines/choice.json").write_text("{")
    with pytest.raises(SlipwayError, match=r"choice.json: not valid JSON"):
        pick_engines(bundle, tmp_path / "engines", lane="cpu")
