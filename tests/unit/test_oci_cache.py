"""What a server is given for an image: a folder whose every file was checked, or a sentence."""

import shutil
from pathlib import Path

import pytest

from slipway.cli import serve_image
from slipway.cli.serve_image import unpacked
from slipway.contract import OciImageError, ServingError, SpecError
from slipway.oci import layout as layout_module
from slipway.oci import registry as registry_module
from slipway.oci.artefacts import SBOM
from slipway.oci.build import build
from slipway.oci.layout import ImageLayout
from slipway.oci.reference import LayoutReference, RegistryReference
from slipway.oci.registry import Registry
from slipway.oci.signing import sign
from slipway.oci.transfer import push
from slipway.operations.release.promotion import check_own_folder
from slipway.system.files import sha256_file
from tests.support.colours import contents, reseal
from tests.support.oci_images import EXAMPLE, Built, built, warmer
from tests.support.registries import small_registry
from tests.support.scripts import run_here
from tests.support.signing_keys import keys


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/slipway"


@pytest.fixture
def example(tmp_path: Path) -> Built:
    return built(tmp_path / "images")


def test_a_folder_of_the_cache_is_used_again_while_every_file_in_it_is_right(cache: Path, example: Built) -> None:
    layout, image = example
    said: list[str] = []
    folder = unpacked(LayoutReference(layout.folder), key=None, say=said.append)
    assert folder == cache / "images" / image.hex
    assert contents(folder) == contents(EXAMPLE)
    inode = folder.stat().st_ino
    assert unpacked(LayoutReference(layout.folder), key=None, say=said.append).stat().st_ino == inode
    assert ["no signature was verified, only hashes" in line for line in said] == [True, False, True, False]
    assert "unpacked before" in said[-1]


@pytest.mark.parametrize("name", ["post_1d13e485f590/1/decision.json", "manifest.json", "lane.json", "added.txt"])
def test_a_folder_of_the_cache_that_was_changed_is_unpacked_again(example: Built, name: str) -> None:
    said: list[str] = []
    folder = unpacked(LayoutReference(example[0].folder), key=None, say=said.append)
    (folder / name).write_text("changed")
    assert unpacked(LayoutReference(example[0].folder), key=None, say=said.append) == folder
    assert contents(folder) == contents(EXAMPLE)
    assert "unpacked again, since it was changed" in said[-2]


def test_the_repository_of_another_image_in_its_place_is_noticed(tmp_path: Path, example: Built) -> None:
    folder = unpacked(LayoutReference(example[0].folder), key=None, say=lambda _: None)
    shutil.rmtree(folder)
    shutil.copytree(warmer(tmp_path), folder)
    unpacked(LayoutReference(example[0].folder), key=None, say=lambda _: None)
    assert contents(folder) == contents(EXAMPLE)


def test_an_image_that_is_not_signed_by_the_key_is_not_unpacked(tmp_path: Path, cache: Path, example: Built) -> None:
    _, public = keys(tmp_path)
    with pytest.raises(OciImageError, match="is not trusted: it is not signed"):
        unpacked(LayoutReference(example[0].folder), key=public, say=lambda _: None)
    assert not cache.exists()


def test_an_image_of_a_registry_is_pulled_verified_and_unpacked(tmp_path: Path, cache: Path, example: Built) -> None:
    layout, image = example
    secret, public = keys(tmp_path)
    sign(layout, image, key=secret)
    said: list[str] = []
    with small_registry() as registry:
        reference = RegistryReference.parse(f"oci://{registry.host}/team/colours:live")
        push(layout, image, reference, Registry(reference), progress=lambda _: None)
        assert contents(unpacked(reference, key=public, say=said.append)) == contents(EXAMPLE)
        assert "0 were there" in said[0]
        unpacked(reference, key=public, say=said.append)
        assert "pulled 0 bytes" in said[3]
        second = build(warmer(tmp_path), LayoutReference(layout.folder, "v2")).image
        push(layout, second, reference, Registry(reference), progress=lambda _: None)
        with pytest.raises(OciImageError, match="it is not signed"):
            unpacked(reference, key=public, say=said.append)
    assert [path.name for path in (cache / "images").iterdir() if path.is_dir()] == [image.hex]


def test_layers_are_hashed_and_pulled_again_only_where_the_unpacked_folder_is_missing(
    cache: Path, example: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, image = example
    hashed: list[str] = []
    monkeypatch.setattr(layout_module, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    with small_registry() as registry:
        reference = RegistryReference.parse(f"oci://{registry.host}/team/colours:live")
        push(layout, image, reference, Registry(reference), progress=lambda _: None)
        folder = unpacked(reference, key=None, say=lambda _: None)
        layer = layout.manifest(image).layers[0]
        blob = cache / "layout/blobs/sha256" / layer.hex
        blob.write_bytes(bytes(layer.size))
        hashed.clear()
        assert unpacked(reference, key=None, say=lambda _: None) == folder
        assert layer.hex not in hashed
        shutil.rmtree(folder)
        assert contents(unpacked(reference, key=None, say=lambda _: None)) == contents(EXAMPLE)
        assert sha256_file(blob) == layer.hex


def test_a_server_that_follows_a_tag_keeps_what_the_tag_names_alone(
    tmp_path: Path, cache: Path, example: Built
) -> None:
    layout, image = example
    sbom = layout.attach(image, b"a bill", SBOM)
    with small_registry() as registry:
        references = [RegistryReference.parse(f"oci://{registry.host}/team/colours:{tag}") for tag in ("live", "other")]
        for reference in references:
            push(layout, image, reference, Registry(reference), progress=lambda _: None)
        unpacked(references[0], key=None, say=lambda _: None)
        second = build(warmer(tmp_path), LayoutReference(layout.folder, "v2")).image
        push(layout, second, references[0], Registry(references[0]), progress=lambda _: None)
        unpacked(references[0], key=None, say=lambda _: None)
        kept = ImageLayout.open(cache / "layout")
        assert [one.digest for one in kept.index.manifests] == [second.digest]
        blobs = {path.name for path in (kept.folder / "blobs/sha256").iterdir()}
        assert blobs == {second.hex, *(blob.hex for blob in kept.manifest(second).blobs)}
        unpacked(references[1], key=None, say=lambda _: None)
        assert {one.digest for one in kept.index.manifests} == {second.digest, image.digest, sbom.digest}


def test_a_registry_without_tls_is_asked_if_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, example: Built
) -> None:
    monkeypatch.setattr(registry_module, "_is_local", lambda _: False)
    with small_registry() as registry:
        reference = RegistryReference.parse(f"oci://{registry.host}/team/colours:live")
        push(*example, reference, Registry(reference, plain_http=True), progress=lambda _: None)
        with pytest.raises(OciImageError, match="a registry without it needs --plain-http"):
            unpacked(reference, key=None, say=lambda _: None)
        assert contents(unpacked(reference, key=None, plain_http=True, say=lambda _: None)) == contents(EXAMPLE)


def test_the_gpu_lane_is_refused_before_it_is_unpacked(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_image, "installed_server", lambda: None)
    shutil.copytree(EXAMPLE, tmp_path / "gpu")
    lane = tmp_path / "gpu/lane.json"
    lane.write_text(lane.read_text().replace('"cpu"', '"gpu"'))
    reseal(tmp_path / "gpu")
    layout, _ = built(tmp_path / "images", tmp_path / "gpu")
    with pytest.raises(ServingError, match="an image of the gpu lane, and the server of the nvidia-pytriton wheel"):
        unpacked(LayoutReference(layout.folder), key=None, say=lambda _: None)
    assert not cache.exists()


def test_serve_says_what_it_cannot_serve(tmp_path: Path) -> None:
    built(tmp_path / "images")
    for words_of_verb, words in (
        (["oci-layout:images:v9"], "no tag v9; the tags here: v1"),
        (["oci-layout:nowhere"], "nowhere: no such folder"),
        (["oci-layout:images:a b"], "invalid tag"),
        (["oci://host/Name:v1"], "not a registry's reference"),
        (["images", "--key", "public.pem"], "--key: images is a folder, which has no signature"),
        (["images", "--plain-http"], "--plain-http: images is a folder, and no registry is asked"),
    ):
        done = run_here("serve", *words_of_verb, cwd=tmp_path, check=False)
        assert (done.returncode in (1, 2), words in done.stderr) == (True, True), done.stderr


def test_a_promotion_does_not_replace_what_is_unpacked_from_an_image(example: Built) -> None:
    folder = unpacked(LayoutReference(example[0].folder), key=None, say=lambda _: None)
    with pytest.raises(SpecError, match=r"unpacked from an image, .*slipway image unpack"):
        check_own_folder(folder)
    check_own_folder(EXAMPLE)
