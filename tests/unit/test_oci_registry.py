"""Images to and from a registry: only what is missing moves, and what fails leaves nothing half done."""

import contextlib
from pathlib import Path

import pytest

from slipway.contract import OciImageError
from slipway.oci.artefacts import SBOM
from slipway.oci.build import build
from slipway.oci.documents import MOST_BYTES, Descriptor
from slipway.oci.layout import ImageLayout
from slipway.oci.reference import LayoutReference
from slipway.oci.verify import verify
from tests.support import pushes as fixtures
from tests.support import registries
from tests.support.colours import contents
from tests.support.oci_images import Built, warmer
from tests.support.pushes import log_in, pulled, pushed
from tests.support.registries import Stored, docker_registry

example, registry, no_logins = fixtures.example, fixtures.registry, fixtures.no_logins

PASSWORD = "user:$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu"
"""A line of htpasswd: the user `user` with the password `password`, by bcrypt."""


def _round_trip(tmp_path: Path, layout: ImageLayout, image: Descriptor, host: str) -> None:
    """Push, pull, push a second version, pull it: the layouts are equal, and what was there is not moved."""
    first = pushed(layout, image, host)
    whole = sum(path.stat().st_size for path in (layout.folder / "blobs/sha256").iterdir())
    # The two artefacts share the empty configuration.
    assert (first.moved_bytes, first.skipped_bytes) == (whole, 2)
    assert pulled(host, tmp_path / "there") == first
    assert contents(tmp_path / "there") == contents(layout.folder)
    nothing = pushed(layout, image, host)
    assert (nothing.moved_bytes, nothing.skipped_bytes) == (0, whole + 2)
    assert pulled(host, tmp_path / "there").moved_bytes == 0
    done = build(warmer(tmp_path), LayoutReference(layout.folder, "v2"))
    second = pushed(layout, done.image, host, tag="v2")
    new = [*done.written, done.manifest.config, done.image]
    assert (second.moved, second.moved_bytes) == (4, sum(part.size for part in new))
    assert [layer.step.partition("_")[0] for layer in done.written] == ["post", "rest"]
    assert pulled(host, tmp_path / "there", name="team/colours:v2") == second
    there = ImageLayout.open(tmp_path / "there")
    assert verify(there, there.find(LayoutReference(there.folder, "v1"))).image.digest == done.image.digest


@pytest.mark.parametrize("lists_artefacts", [False, True], ids=["tag of artefacts", "API of artefacts"])
def test_only_what_is_missing_moves(tmp_path: Path, example: Built, registry: Stored, lists_artefacts: bool) -> None:
    registry.lists_artefacts = lists_artefacts
    _round_trip(tmp_path, *example, registry.host)
    tags = {name for name in registry.manifests if ":" not in name and name.startswith("sha256-")}
    assert bool(tags) is not lists_artefacts


def test_docker_registry_takes_and_gives_it(tmp_path: Path, example: Built) -> None:
    with docker_registry(tmp_path) as host:
        _round_trip(tmp_path, *example, host)


def test_a_manifest_that_was_changed_in_the_storage_of_docker_registry_is_named(tmp_path: Path, example: Built) -> None:
    layout, image = example
    with docker_registry(tmp_path) as host:
        pushed(layout, image, host)
        stored = tmp_path / f"registry/docker/registry/v2/blobs/sha256/{image.hex[:2]}/{image.hex}/data"
        stored.write_bytes(stored.read_bytes().replace(b'"slipway.lane":"cpu"', b'"slipway.lane":"gpu"'))
        with pytest.raises(
            OciImageError, match=f"the manifest v1 is sha256:.*, and {image.digest} there; the registry's"
        ):
            pulled(host, tmp_path / "there")


def test_docker_registry_asks_who(tmp_path: Path, example: Built, no_logins: Path) -> None:
    with docker_registry(tmp_path, htpasswd=PASSWORD) as host:
        with pytest.raises(OciImageError, match=r"refuses anonymous users for team/colours .*log in \(docker login"):
            pushed(*example, host)
        log_in(no_logins, host, "wrong")
        with pytest.raises(OciImageError, match=r"refuses user user \(.*config\.json\)"):
            pushed(*example, host)
        log_in(no_logins, host, "password")
        assert pushed(*example, host).moved == 11
        assert pulled(host, tmp_path / "there").moved == 11


def test_a_token_is_asked_for_and_used(tmp_path: Path, example: Built, registry: Stored, no_logins: Path) -> None:
    registry.token = "secret"
    with pytest.raises(OciImageError, match="refuses anonymous users"):
        pushed(*example, registry.host)
    log_in(no_logins, registry.host, "wrong")
    with pytest.raises(OciImageError, match="refuses user user"):
        pushed(*example, registry.host)
    log_in(no_logins, registry.host, "password")
    pushed(*example, registry.host)
    assert pulled(registry.host, tmp_path / "there").moved == 11
    assert sum("/token" in asked for asked in registry.asked) == 4, "one of each client"


@pytest.mark.parametrize("point", range(0, 40, 4))
@pytest.mark.parametrize("status", [0, 503])
def test_a_push_that_ends_anywhere_leaves_no_tag_and_the_next_one_completes_it(
    tmp_path: Path, example: Built, registry: Stored, point: int, status: int
) -> None:
    registry.fault = lambda _: status if len(registry.asked) == point + 1 else None
    with contextlib.suppress(OciImageError):
        pushed(*example, registry.host)
        return  # it takes fewer requests
    registry.fault = lambda _: None
    with pytest.raises(
        OciImageError, match=r"no such image: .* check name and tag; if its push was cut short, push it again"
    ):
        pulled(registry.host, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    pushed(*example, registry.host)
    pulled(registry.host, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(example[0].folder)


@pytest.mark.parametrize("point", range(0, 24, 4))
def test_a_pull_that_ends_anywhere_leaves_no_tag_and_the_next_one_completes_it(
    tmp_path: Path, example: Built, registry: Stored, point: int
) -> None:
    pushed(*example, registry.host)
    before = len(registry.asked)
    registry.fault = lambda _: 0 if len(registry.asked) == before + point + 1 else None
    with contextlib.suppress(OciImageError):
        pulled(registry.host, tmp_path / "there")
        return
    if (tmp_path / "there").exists():
        assert all(one.tag is None for one in ImageLayout.open(tmp_path / "there").index.manifests)
    pulled(registry.host, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(example[0].folder)


def test_what_a_registry_changed_or_lost_is_refused(tmp_path: Path, example: Built, registry: Stored) -> None:
    layout, image = example
    pushed(layout, image, registry.host)
    layer = layout.manifest(image).layers[1]
    good, named = registry.blobs[layer.digest], rf"layer {layer.step} \({layer.digest}\)"
    for bad, words in (
        (good[:-1] + b"x", rf"{named}: its SHA-256 is [0-9a-f]+; the registry's copy is damaged: delete it there"),
        (good + b"x", f"{named}: it is longer than .*; the registry's copy is damaged"),
        (good[:-1], f"{named}: it ended 1 bytes early; pull again"),
        (None, f"{named} is not in the registry; push the image again"),
    ):
        registry.blobs.pop(layer.digest)
        registry.blobs |= {} if bad is None else {layer.digest: bad}
        with pytest.raises(OciImageError, match=words):
            pulled(registry.host, tmp_path / "there")
        assert ImageLayout.open(tmp_path / "there").index.manifests[0].tag is None
        registry.blobs[layer.digest] = good
    other, media_type = registry.manifests["v1"]
    registry.manifests[image.digest] = (other + b" ", media_type)
    with pytest.raises(OciImageError, match=r"the registry gave sha256:[0-9a-f]+, which is another image"):
        pulled(registry.host, tmp_path / "there", name=f"team/colours@{image.digest}")


def test_a_push_of_a_changed_layer_names_its_file(example: Built, registry: Stored) -> None:
    layout, image = example
    path = layout.path(layout.manifest(image).layers[1])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(OciImageError, match=f"{path.name}: layer post_[0-9a-f]+ was changed: .*; remove it, and build"):
        pushed(layout, image, registry.host)
    assert "v1" not in registry.manifests


def test_a_pull_replaces_what_was_changed_in_its_layout(tmp_path: Path, example: Built, registry: Stored) -> None:
    pushed(*example, registry.host)
    pulled(registry.host, tmp_path / "there")
    for number, path in enumerate(sorted((tmp_path / "there/blobs/sha256").iterdir())):
        data = path.read_bytes()
        if number % 3:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        else:
            path.unlink()
            path.symlink_to(tmp_path / "elsewhere") if number else None
    (tmp_path / "elsewhere").write_bytes(b"")
    pulled(registry.host, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(example[0].folder)


def test_artefacts_that_are_too_large_or_too_many_are_refused_before_they_are_pulled(
    tmp_path: Path, example: Built, registry: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, image = example
    huge = layout.attach(image, b" " * (MOST_BYTES + 1), SBOM)
    pushed(layout, image, registry.host)
    with pytest.raises(
        OciImageError, match=f"4,194,305 bytes for a part of the artefact {huge.digest}; at most 4,194,304"
    ):
        pulled(registry.host, tmp_path / "there")
    registry.lists_artefacts = True
    monkeypatch.setattr(registries._Handler, "_artefacts", lambda *_: b" " * (MOST_BYTES + 1))
    with pytest.raises(OciImageError, match="the list of artefacts is larger than 4,194,304 bytes"):
        pulled(registry.host, tmp_path / "there")


def test_an_image_that_is_not_trusted_is_not_downloaded(tmp_path: Path, example: Built, registry: Stored) -> None:
    pushed(*example, registry.host)

    def trust(_: Descriptor) -> None:
        raise OciImageError("not by us")

    before = len(registry.asked)
    with pytest.raises(OciImageError, match="not by us"):
        pulled(registry.host, tmp_path / "there", trust=trust)
    layers = {layer.digest for layer in example[0].manifest(example[1]).layers}
    assert not any(digest in asked for digest in layers for asked in registry.asked[before:])
    assert ImageLayout.open(tmp_path / "there").index.manifests == ()


def test_a_tag_of_something_else_or_of_another_lane_is_not_taken(
    tmp_path: Path, example: Built, registry: Stored
) -> None:
    pushed(*example, registry.host)
    data, media_type = registry.manifests["v1"]
    registry.manifests["v1"] = (data.replace(b'"slipway.lane":"cpu"', b'"slipway.lane":"gpu"'), media_type)
    with pytest.raises(OciImageError, match="names an image of the gpu lane there, and this one is of the cpu lane"):
        pushed(*example, registry.host)
    with pytest.raises(OciImageError, match="of the gpu lane, and the cpu lane is wanted"):
        pulled(registry.host, tmp_path / "there", lane="cpu")
    registry.manifests["v1"] = (data.replace(b"slipway.", b"another."), media_type)
    with pytest.raises(OciImageError, match="names something other than a model repository there"):
        pushed(*example, registry.host)
    with pytest.raises(OciImageError, match="not the image of a model repository"):
        pulled(registry.host, tmp_path / "there")
    assert not (tmp_path / "there").exists()
