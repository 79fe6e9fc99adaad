"""Layouts of images: what they replace, who writes to them, how layers are shared, and references."""

import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from slipway.contract import OciImageError, SpecError
from slipway.oci.build import build
from slipway.oci.documents import Descriptor
from slipway.oci.layers import GROUPS, MOST_LAYERS, MOST_OWN, REST, plan
from slipway.oci.layout import ImageLayout
from slipway.oci.reference import LayoutReference, RegistryReference
from slipway.oci.verify import unpack, verify
from tests.support.colours import contents, reseal
from tests.support.oci_images import EXAMPLE, Built, built, copied, warmer
from tests.support.scripts import run_here


@pytest.fixture
def example(tmp_path: Path) -> Built:
    return built(tmp_path / "images")


def test_unpacking_replaces_a_repository_and_nothing_else(tmp_path: Path, example: Built) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(SpecError, match="not empty, and not written by this stage"):
        unpack(*example, tmp_path / "mine")
    old = warmer(tmp_path / "old")
    unpack(*example, old)
    assert contents(old) == contents(EXAMPLE)


def test_a_layout_holds_one_lane_under_a_tag(tmp_path: Path, example: Built) -> None:
    gpu = tmp_path / "gpu"
    shutil.copytree(EXAMPLE, gpu)
    (gpu / "lane.json").write_text((gpu / "lane.json").read_text().replace('"cpu"', '"gpu"'))
    reseal(gpu)
    with pytest.raises(OciImageError, match="names an image of the cpu lane, and the new one is of the gpu lane"):
        build(gpu, LayoutReference(example[0].folder, "v1"))
    build(gpu, LayoutReference(example[0].folder, "gpu"))
    done = run_here("image", "verify", f"{example[0].folder}:gpu", "--lane", "cpu", cwd=tmp_path, check=False)
    assert (done.returncode, "of the gpu lane, and the cpu lane is wanted" in done.stderr) == (1, True)


def test_a_layout_lies_neither_in_a_repository_nor_replaces_anything(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(EXAMPLE, repository)
    for target, words in ((repository / "images", "lies in"), (repository, "of kind repository|holds")):
        with pytest.raises(SpecError, match=words):
            build(repository, LayoutReference(target, "v1"))
    assert contents(repository) == contents(EXAMPLE)


def test_a_killed_build_leaves_a_blob_that_the_next_one_removes(example: Built) -> None:
    layout, image = example
    (layout.folder / "blobs/sha256/.unfinished-1").write_bytes(b"half")
    assert verify(layout, image).files == 44
    build(EXAMPLE, LayoutReference(layout.folder, "v1"))
    assert len(list((layout.folder / "blobs/sha256").iterdir())) == 6


def test_one_process_writes_to_a_layout(example: Built) -> None:
    with ImageLayout.writing(example[0].folder), pytest.raises(OciImageError, match="another process is writing to it"):
        build(EXAMPLE, LayoutReference(example[0].folder, "v2"))


def test_of_several_first_starts_one_makes_the_layout_and_all_write_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = ImageLayout._begin

    def slowly(layout: ImageLayout) -> None:
        begin(layout)
        time.sleep(0.05)

    monkeypatch.setattr(ImageLayout, "_begin", slowly)
    folder = tmp_path / "cache/layout"

    def start(number: int) -> Descriptor:
        with ImageLayout.writing(folder, wait=True) as layout:
            added = layout.add(b"%d" % number, "text/plain")
            if number % 2:
                raise OciImageError("cut short")
            layout.set_tag(f"v{number}", added)
            return added

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(start, number) for number in range(8)]
    assert [isinstance(one.exception(), OciImageError) for one in done] == [False, True] * 4
    layout = ImageLayout.open(folder)
    assert [one.tag for one in layout.index.manifests] == ["v0", "v2", "v4", "v6"]
    assert all(layout.has(one.result()) for one in done[::2])
    assert [path.name for path in folder.parent.iterdir()] == ["layout"]


def test_a_layout_that_its_maker_removes_is_made_again_by_the_one_who_waits(tmp_path: Path) -> None:
    folder = tmp_path / "layout"

    def second() -> bool:
        with ImageLayout.writing(folder, wait=True) as layout:
            layout.set_tag("v1", layout.add(b"content", "text/plain"))
        return True

    def first(pool: ThreadPoolExecutor, started: list[Future[bool]]) -> None:
        with ImageLayout.writing(folder):
            started.append(pool.submit(second))
            time.sleep(0.1)
            raise OciImageError("cut short")

    started: list[Future[bool]] = []
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(OciImageError, match="cut short"):
            first(pool, started)
        assert started[0].result()
    assert [one.tag for one in ImageLayout.open(folder).index.manifests] == ["v1"]


def test_many_steps_share_layers_and_a_new_one_changes_few() -> None:
    sizes = {f"engine_{n:03}/1/model.onnx": 1000 + n for n in range(100)}
    sizes |= {f"post_{n:03}/1/model.py": 10 for n in range(150)} | {"lane.json": 1, "c/config.pbtxt": 1}
    made = plan(sizes, ensembles={"c"})
    assert len(made) <= MOST_OWN + GROUPS + 1 <= MOST_LAYERS
    assert sorted(name for layer in made for name in layer.files) == sorted(sizes)
    assert made[-1] == (REST, ("c/config.pbtxt", "lane.json"))
    again = plan({**sizes, "post_150/1/model.py": 10}, ensembles={"c"})
    assert len({*again} - {*made}) == 1
    few = plan({name: size for name, size in sizes.items() if "post" not in name}, ensembles={"c"})
    assert len(few) == MOST_LAYERS + 1, "a layer for each, and the rest"


@pytest.mark.parametrize(
    ("text", "folder", "tag", "digest"),
    [
        ("images", "images", None, None),
        ("a/images:v1", "a/images", "v1", None),
        ("/a:b/images", "/a:b/images", None, None),
        (f"images@sha256:{'a' * 64}", "images", None, f"sha256:{'a' * 64}"),
    ],
)
def test_references_of_layouts(text: str, folder: str, tag: str | None, digest: str | None) -> None:
    reference = LayoutReference.parse(text)
    assert (reference.folder, reference.tag, reference.digest) == (Path(folder), tag, digest)
    assert str(reference) == text


@pytest.mark.parametrize("text", ["", "images:", "images:a b", "images@sha256:12", ":v1", f"images:{'a' * 129}"])
def test_references_that_name_no_layout(text: str) -> None:
    with pytest.raises(SpecError):
        LayoutReference.parse(text)


def test_references_of_registries() -> None:
    reference = RegistryReference.parse("registry.example:5000/team/models:v1")
    assert (reference.host, reference.name, reference.tag) == ("registry.example:5000", "team/models", "v1")
    both = RegistryReference.parse(f"registry.example/team/models:v1@sha256:{'a' * 64}")
    assert str(both) == f"registry.example/team/models@sha256:{'a' * 64}"
    assert (reference.port, both.port) == (5000, 443)
    for text in (
        "models:v1",
        "host/Models:v1",
        "host/models",
        "https://host/models:v1",
        "host/../models:v1",
        "host/:v1",
        f"host/models:a b@sha256:{'a' * 64}",
        "host:0/models:v1",
        "host:65536/models:v1",
    ):
        with pytest.raises(SpecError):
            RegistryReference.parse(text)


def test_an_image_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    layout, _ = built(tmp_path / "images")
    build(warmer(tmp_path), LayoutReference(layout.folder, "v2"))
    for text, words in (
        ("images", "which image? Give images:TAG; the tags here: v1, v2"),
        ("images:v3", "no tag v3; the tags here: v1, v2"),
        (f"images@sha256:{'a' * 64}", "no image sha256:aaa"),
        ("nowhere", "nowhere: no such folder"),
        ("repository", "no oci-layout here"),
    ):
        done = run_here("image", "verify", text, cwd=tmp_path, check=False)
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr


def test_a_build_replaces_what_was_changed_in_its_layout(tmp_path: Path, example: Built) -> None:
    layout, image = example
    for change in ("byte", "link", "missing"):
        for part in (image, *layout.manifest(image).blobs):
            path = layout.path(part)
            data = path.read_bytes()
            path.unlink()
            if change == "byte":
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            elif change == "link":
                (tmp_path / path.name).write_bytes(data)
                path.symlink_to(tmp_path / path.name)
            said = (
                "is a link or a folder" if change == "link" else "is missing" if change == "missing" else "was changed"
            )
            with pytest.raises(OciImageError, match=f"{path.name}: .* {said}.*build or pull the image again"):
                verify(layout, image)
            assert build(EXAMPLE, LayoutReference(layout.folder, "v1")).image.digest == image.digest
            assert verify(layout, image).files == 44


def test_a_layout_without_a_readable_index_is_said_with_the_remedy(example: Built) -> None:
    index = example[0].folder / "index.json"
    index.write_text("{")
    with pytest.raises(
        OciImageError, match=r"index\.json: not valid JSON: .*build or pull the image into a new folder"
    ):
        example[0].find(LayoutReference(example[0].folder))
    index.unlink()
    with pytest.raises(OciImageError, match=r"index\.json: cannot be read: No such file.*into a new folder"):
        build(EXAMPLE, LayoutReference(example[0].folder, "v1"))


def test_a_marker_of_another_version_is_refused(tmp_path: Path, example: Built) -> None:
    layout = copied(example[0], tmp_path / "copy")
    (layout.folder / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(OciImageError, match=r"not that of image layouts 1\.0\.0"):
        ImageLayout.open(layout.folder)
