"""The image of a repository: equal bytes anywhere, and a byte that differs is named."""

import gzip
import io
import os
import random
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.contract import ManifestError, OciImageError, SlipwayError
from slipway.errors import SpecError
from slipway.oci import layers
from slipway.oci.build import build
from slipway.oci.documents import LANE, SEALED
from slipway.oci.layers import REST, HashingSink, write_tar
from slipway.oci.reference import LayoutReference
from slipway.oci.verify import unpack, verify
from slipway.system.files import sha256_file
from tests.support.colours import contents, reseal
from tests.support.oci_images import EXAMPLE, Built, built, warmer, with_layers, with_manifest, with_member


@pytest.fixture
def example(tmp_path: Path) -> Built:
    return built(tmp_path / "images")


def test_an_archive_has_these_bytes_on_any_machine_and_python(tmp_path: Path) -> None:
    files = ["a/1/model.py", f"a/{'long' * 40}/{'name' * 30}.json", "ä.txt"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"the content of {name}")
    sink = HashingSink()
    write_tar(tmp_path, files, sink)
    assert (sink.size, sink.digest[:19]) == (10240, "sha256:4b685d393a0d")


def test_times_modes_and_owners_of_a_clone_make_no_difference(tmp_path: Path, example: Built) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(EXAMPLE, clone, copy_function=shutil.copyfile)
    for path in clone.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() else 0o600)
    layout, image = built(tmp_path / "others", clone, tag="other")
    assert image == example[1]
    assert {path.name for path in (layout.folder / "blobs/sha256").iterdir()} == {
        path.name for path in (example[0].folder / "blobs/sha256").iterdir()
    }


def test_a_second_version_writes_its_new_layers_alone(tmp_path: Path, example: Built) -> None:
    layout, image = example
    before = {path: path.stat().st_mtime_ns for path in (layout.folder / "blobs/sha256").iterdir()}
    done = build(warmer(tmp_path), LayoutReference(layout.folder, "v2"))
    assert [layer.step.partition("_")[0] for layer in done.written] == ["post", "rest"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [one.tag for one in layout.index.manifests] == ["v1", "v2"]
    assert verify(layout, image).image == image
    assert verify(layout, done.image).image == done.image


def test_building_again_changes_nothing(example: Built) -> None:
    before = contents(example[0].folder)
    assert build(EXAMPLE, LayoutReference(example[0].folder, "v1")).written == ()
    assert contents(example[0].folder) == before


@pytest.mark.nightly
def test_the_example_is_built_in_a_tenth_of_a_second(tmp_path: Path) -> None:
    """The bar is the processor time of the best of five builds, so other work on the machine does not count."""
    taken_s = []
    for number in range(5):
        started_s = time.process_time()
        built(tmp_path / f"images{number}")
        taken_s.append(time.process_time() - started_s)
    assert min(taken_s) < 0.1, taken_s


def test_what_is_unpacked_equals_the_repository_byte_for_byte(tmp_path: Path, example: Built) -> None:
    unpack(*example, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(EXAMPLE)


def test_every_file_is_in_the_folder_that_kserve_mounts(example: Built) -> None:
    layout, image = example
    names = []
    for layer in layout.manifest(image).layers:
        with tarfile.open(layout.path(layer)) as archive:
            assert archive.getnames()[0] == "models"
            names += [member.name for member in archive if member.isfile()]
    assert sorted(names) == sorted(f"models/{name}" for name in contents(EXAMPLE))


def test_a_changed_repository_has_no_image(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "changed")
    (tmp_path / "changed/colours/config.pbtxt").write_text("name: 'other'")
    with pytest.raises(ManifestError, match=r"colours/config\.pbtxt: changed since"):
        built(tmp_path / "images", tmp_path / "changed")
    assert not (tmp_path / "images").exists()


def test_a_flipped_byte_anywhere_is_named(tmp_path: Path, example: Built) -> None:
    layout, image = example
    blobs = sorted((layout.folder / "blobs/sha256").iterdir())
    assert len(blobs) == 6
    draw = random.Random(0)
    for blob in blobs:
        data = blob.read_bytes()
        for at in [0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(8))]:
            blob.write_bytes(data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :])
            for check in (lambda: verify(layout, image), lambda: unpack(layout, image, tmp_path / "never")):
                with pytest.raises(OciImageError, match=blob.name):
                    check()
        blob.write_bytes(data)
    assert not (tmp_path / "never").exists()
    assert verify(layout, image).files == 44


def test_the_file_that_was_changed_in_a_layer_is_named(example: Built) -> None:
    layout, image = example
    names = {path.relative_to(EXAMPLE).as_posix(): path.read_bytes() for path in EXAMPLE.rglob("*") if path.is_file()}
    for layer in layout.manifest(image).layers:
        blob = layout.path(layer)
        data = blob.read_bytes()
        with tarfile.open(blob) as archive:
            members = [member for member in archive if member.isfile()]
        for member in members:
            at = member.offset_data + member.size // 2
            blob.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(OciImageError) as caught:
                verify(layout, image)
            name = member.name.removeprefix("models/")
            assert f"it is in {name};" in str(caught.value), names[name][:20]
        blob.write_bytes(data)


@pytest.mark.parametrize("size", [-1, 1, -100_000])
def test_a_layer_that_is_cut_or_continued_is_named(example: Built, size: int) -> None:
    layout, image = example
    blob = layout.path(layout.manifest(image).layers[2])
    data = blob.read_bytes()
    blob.write_bytes(data + b"x" if size > 0 else data[:size])
    with pytest.raises(OciImageError, match=rf"{blob.name}: layer preprocess_115aeed151e8 was changed: [\d,]+ bytes"):
        verify(layout, image)
    blob.unlink()
    with pytest.raises(OciImageError, match="layer preprocess_115aeed151e8 is missing"):
        verify(layout, image)


def test_a_changed_index_leads_to_the_same_image_or_to_an_error(example: Built) -> None:
    layout, image = example
    index = layout.folder / "index.json"
    data, refused = index.read_bytes(), 0
    for at in range(0, len(data), 3):
        index.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            found = layout.find(LayoutReference(layout.folder, "v1"))
            assert verify(layout, found).image.digest == image.digest
        except SlipwayError:
            refused += 1
    assert refused > len(data) / 6


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", *, folder: str = "models/") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"{folder}{name}")
    entry.type, entry.linkname = kind, link
    return entry


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (_entry("colours/link", tarfile.SYMTYPE, "/etc/passwd"), "colours/link is a link"),
        (_entry("colours/hard", tarfile.LNKTYPE, "lane.json"), "colours/hard is a link"),
        (_entry("colours/null", tarfile.CHRTYPE), "neither a file nor a folder"),
        (_entry("colours/disk", tarfile.BLKTYPE), "neither a file nor a folder"),
        (_entry("colours/pipe", tarfile.FIFOTYPE), "neither a file nor a folder"),
        (_entry("colours/sparse", tarfile.CONTTYPE), "neither a file nor a folder"),
        (_entry("../outside"), "could leave the folder"),
        (_entry("colours/../../outside"), "could leave the folder"),
        (_entry("/outside"), "could leave the folder"),
        (_entry("../outside", folder=""), "is not in models"),
        (_entry("lane.json", folder=""), "lane.json is not in models"),
        (_entry("models", folder=""), "models is not in models"),
        (_entry("models2/file", folder=""), "models2/file is not in models"),
        (_entry("colours//file"), "could leave the folder"),
        (_entry("colours\\file"), "could leave the folder"),
        (_entry("colours/new\nline"), "could leave the folder"),
        (_entry("colours/.wh.config.pbtxt"), "removes a file"),
        (_entry("lane.json"), "lane.json is there twice"),
        (_entry("engine_b38b2485e5fe/config.pbtxt"), "engine_b38b2485e5fe/config.pbtxt"),
        (_entry("lane.json/below"), "lane.json"),
        (_entry("colours/more.txt"), r"colours/more\.txt"),
    ],
)
def test_an_archive_with_what_no_repository_has_is_refused(
    tmp_path: Path, example: Built, entry: tarfile.TarInfo, words: str
) -> None:
    layout, image = example
    changed = with_layers(
        layout, image, lambda name, data: with_member(data, entry, b"bad" * entry.isfile()) if name == REST else data
    )
    with pytest.raises(OciImageError, match=words):
        unpack(layout, changed, tmp_path / "a/b")
    with pytest.raises(OciImageError, match=words.replace("is there twice", "")):
        verify(layout, changed)
    assert not (tmp_path / "a/b").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "images"]


def _sparse(name: str) -> tarfile.TarInfo:
    """10 TiB of zeros in a few bytes."""
    entry = _entry(name)
    entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": str(10 << 40), "GNU.sparse.map": "0,3"}
    return entry


def _long_named(depth: int) -> bytes:
    """An archive of GNU's headers of long names, each before the next."""
    entry = _entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, folder="")
    entry.size = 2
    return (entry.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")) * depth


def test_an_archive_that_is_more_than_its_bytes_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, example: Built
) -> None:
    layout, image = example

    def refused(change: Callable[[bytes], bytes], words: str) -> None:
        changed = with_layers(layout, image, lambda name, data: change(data) if name == REST else data)
        for check in (lambda: verify(layout, changed), lambda: unpack(layout, changed, tmp_path / "never")):
            with pytest.raises(OciImageError, match=words):
                check()

    refused(lambda data: with_member(data, _sparse("colours/big"), b"bad"), "colours/big is sparse")
    dated = _entry("colours/dated")
    dated.pax_headers = {"comment": "x"}
    refused(lambda data: with_member(data, dated, b"bad"), "colours/dated is sparse or has headers of its own")
    refused(lambda data: _long_named(2000) + data, "not a tar archive that can be read")
    monkeypatch.setattr(layers, "MOST_KEPT_BYTES", 1000)
    with pytest.raises(OciImageError, match=r"manifest\.json has [\d,]+ bytes; at most 1,000 are read"):
        verify(layout, image)


def test_a_file_that_differs_from_the_repository_s_manifest_is_named_though_every_digest_fits(
    tmp_path: Path, example: Built
) -> None:
    layout, image = example
    changed = with_layers(layout, image, lambda _, data: data.replace(b"instance_group", b"instance_grope"))
    for check in (lambda: verify(layout, changed), lambda: unpack(layout, changed, tmp_path / "never")):
        with pytest.raises(OciImageError, match=r"in the image, colours|engine_b38b2485e5fe/config\.pbtxt"):
            check()


def test_an_image_that_lies_about_its_lane_or_its_manifest_is_refused(example: Built) -> None:
    layout, image = example
    manifest = layout.manifest(image)
    for name, value, words in ((LANE, "gpu", "the image says lane gpu"), (SEALED, "sha256:00", "is not the one")):
        lie = manifest.model_copy(update={"annotations": {**(manifest.annotations or {}), name: value}})
        with pytest.raises(OciImageError, match=words):
            verify(layout, with_manifest(layout, lie))


@pytest.mark.parametrize("content", [None, b"", b"[]"])
def test_an_image_without_a_lane_file_that_can_be_read_is_refused(
    tmp_path: Path, example: Built, content: bytes | None
) -> None:
    layout, image = example
    repository = tmp_path / "repository"
    shutil.copytree(EXAMPLE, repository)
    (repository / "lane.json").unlink() if content is None else (repository / "lane.json").write_bytes(content)
    reseal(repository)
    sealed = f"sha256:{sha256_file(repository / 'manifest.json')}"

    def change(name: str, data: bytes) -> bytes:
        return _archive(repository, name) if name == REST else data

    changed = layout.manifest(with_layers(layout, image, change))
    annotations = {**(changed.annotations or {}), SEALED: sealed}
    image = with_manifest(layout, changed.model_copy(update={"annotations": annotations}))
    for check in (lambda: verify(layout, image), lambda: unpack(layout, image, tmp_path / "here")):
        with pytest.raises(OciImageError, match=r"lane\.json in the image cannot be read"):
            check()
    assert not (tmp_path / "here").exists()


def _archive(repository: Path, layer: str) -> bytes:
    """The archive of one layer of a repository."""
    out = io.BytesIO()
    sizes = {path.relative_to(repository).as_posix(): 0 for path in repository.rglob("*") if path.is_file()}
    (files,) = (one.files for one in layers.plan(sizes, ensembles={"colours", "colours_full"}) if one.name == layer)
    write_tar(repository, files, HashingSink(out))
    return out.getvalue()


def test_the_image_of_something_else_is_refused(example: Built) -> None:
    layout, image = example
    manifest = layout.manifest(image)
    with pytest.raises(OciImageError, match="not the image of a model repository"):
        verify(layout, with_manifest(layout, manifest.model_copy(update={"annotations": None})))
    squeezed = layout.add(gzip.compress(layout.path(manifest.layers[0]).read_bytes()), "application/tar+gzip")
    with pytest.raises(
        OciImageError, match=r"a layer of type application/tar\+gzip, which .* skopeo copy --preserve-digests"
    ):
        verify(layout, with_manifest(layout, manifest.model_copy(update={"layers": (squeezed,)})))


@pytest.mark.parametrize("text", ["here:..:v1", "new\nline:v1"])
def test_a_folder_s_name_has_no_colon_and_no_control_character(text: str) -> None:
    with pytest.raises(SpecError, match="neither a colon nor a control character"):
        LayoutReference.parse(text)
