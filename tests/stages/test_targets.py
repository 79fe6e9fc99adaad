"""Where stages may write: over what the same kind of stage wrote, and nothing else, least of all their own input."""

import itertools
import os
import shutil
from pathlib import Path

import pytest

from slipway.contract import Bundle, SpecError
from slipway.engines import build_engine
from slipway.repository import open_engines, plan_repository
from slipway.system.files import complete_folder
from slipway.system.targets import FolderKind, check_folder
from slipway.training import train
from tests.support.colour_training import small_spec
from tests.support.colours import COLOURS
from tests.support.targets import ABSENT, KINDS, STAGES, contents, make, make_data, spec

OTHERS = [(stage, kind) for stage, kind in itertools.product(STAGES, KINDS) if STAGES[stage][0] != kind]


@pytest.mark.parametrize(("stage", "kind"), OTHERS)
def test_no_stage_replaces_a_folder_of_another_kind(stage: str, kind: FolderKind, tmp_path: Path) -> None:
    out = make(tmp_path / "out", kind)
    writes, run = STAGES[stage]
    before = contents(out)
    with pytest.raises(SpecError, match=f"of kind {kind}, and one of kind {writes} is to be written"):
        run(out)
    assert contents(out if out.exists() else tmp_path / "openvino-fp32") == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("manifest", [None, "", "{}", "[]", '{"kind": "Deployment"}', "[" * 100_000])
def test_no_stage_replaces_somebody_s_own_folder(stage: str, manifest: str | None, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("precious")
    if manifest is not None:
        (tmp_path / "out/manifest.json").write_text(manifest)
    with pytest.raises(SpecError, match="not empty, and not written by this stage"):
        STAGES[stage][1](tmp_path / "out")
    assert (next(tmp_path.glob("o*")) / "precious").read_text() == "precious"


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_the_same_kind_is_replaced(kind: FolderKind, tmp_path: Path) -> None:
    with complete_folder(make(tmp_path / "out", kind), kind=kind) as staging:
        (staging / "new").touch()
    assert os.listdir(tmp_path / "out") == ["new"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "search"])
def test_nothing_is_written_into_a_folder_of_ours(stage: str, kind: FolderKind, tmp_path: Path) -> None:
    around = make(tmp_path / "ours", kind)
    (around / "out").mkdir()
    with pytest.raises(SpecError, match=f"a folder of kind {kind}, which holds nothing else"):
        STAGES[stage][1](around / "out")


SAME = {
    "itself": lambda folder: folder,
    "a trailing slash": lambda folder: Path(f"{folder}/"),
    "a dot": lambda folder: Path(f"{folder}/./."),
    "two dots": lambda folder: folder / ".." / folder.name,
    "a relative path": lambda folder: Path(os.path.relpath(folder)),
    "a link above": lambda folder: link(folder.parent) / folder.name,
}


def link(folder: Path) -> Path:
    (found := folder.with_name(f"link to {folder.name}")).symlink_to(folder)
    return found


@pytest.mark.parametrize("name", SAME)
def test_an_input_is_not_replaced_by_whatever_name_it_is_given(name: str, tmp_path: Path) -> None:
    given = make(tmp_path / "runs/given", "checkpoint")
    other = SAME[name](given)
    for target, one in ((given, other), (other, given)):
        with pytest.raises(SpecError) as raised:
            check_folder(target, kind="checkpoint", inputs=[one])
        assert str(target) in str(raised.value)
        assert str(one) in str(raised.value)


def test_an_input_that_is_a_link_to_the_folder_is_found(tmp_path: Path) -> None:
    given = make(tmp_path / "given", "checkpoint")
    with pytest.raises(SpecError, match="which is read for it"):
        check_folder(given, kind="checkpoint", inputs=[link(given)])
    (tmp_path / "weights").symlink_to(given / "precious")
    with pytest.raises(SpecError, match="which is read for it"):
        check_folder(given, kind="checkpoint", inputs=[tmp_path / "weights"])


def test_a_folder_that_holds_an_input_or_lies_in_one_is_refused(tmp_path: Path) -> None:
    around = make(tmp_path / "around", "search")
    (around / "data").mkdir()
    with pytest.raises(SpecError, match=r"holds .*data, which is read for it; give another folder for the search"):
        check_folder(around, kind="search", inputs=[around / "data"])
    with pytest.raises(SpecError, match=r"lies in .*around, which is read for it; give another folder for the graph"):
        check_folder(around / "new/graph", kind="graph", inputs=[around])
    check_folder(tmp_path / "around too", kind="graph", inputs=[around, tmp_path / "absent"])


@pytest.mark.parametrize("name", [".", "..", "a/.."])
def test_a_folder_without_a_name_is_told_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here/a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SpecError, match="give the folder by its name: ") as raised:
        check_folder(Path(name), kind="bundle")
    remedy = Path(str(raised.value).rpartition("name: ")[2])
    assert remedy == Path(name).resolve()
    assert remedy.name


def test_stages_do_not_write_into_what_they_read_or_over_it(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    checkpoint = make(tmp_path / "checkpoint", "checkpoint")
    with pytest.raises(SpecError, match=r"lies in .*data, which is read for it"):
        train(spec(data), data / "checkpoint")  # which would be a class
    backbone = {"pretrained": True, "weights": str(checkpoint / "model.safetensors")}
    weights = small_spec(data, backbone=backbone)
    with pytest.raises(SpecError, match=r"holds .*model\.safetensors, which is read for it"):
        train(weights, checkpoint)
    shutil.copytree(COLOURS, runs := tmp_path / "colours")
    opened = open_engines(Bundle.open(runs / "bundle"), [runs / "engine"], lane="cpu")
    make(runs / "repository", "repository").joinpath("fleet.yaml").touch()
    with pytest.raises(SpecError, match=r"holds .*fleet\.yaml, which is read for it"):
        plan_repository([opened], runs / "repository", inputs=[runs / "repository/fleet.yaml"])
    with pytest.raises(SpecError, match=r"lies in .*bundle, which is read for it"):
        build_engine(opened.bundle, ABSENT, runs / "bundle", target="openvino", precision="fp32", reference=None)


def test_a_root_of_listed_images_may_hold_the_folder(tmp_path: Path) -> None:
    listed = small_spec(tmp_path, data={"root": str(tmp_path), "csv": str(tmp_path / "data.csv")})
    with pytest.raises(Exception, match=r"data\.csv: cannot be read"):  # and not the folder
        train(listed, tmp_path / "runs/checkpoint")
    with pytest.raises(SpecError, match="which is read for it"):
        train(listed, tmp_path)
