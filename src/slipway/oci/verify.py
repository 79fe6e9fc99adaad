"""Checks every byte of an image against its digests and against the manifest of the repository inside, and unpacks it.

A layer is checked as a whole by its SHA-256 before anything in it is read, and each file by the `manifest.json` of the
repository, which names what was changed.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from slipway.contract import Lane, Manifest, ManifestError, OciImageError, SlipwayError
from slipway.contract.lane import FILE_NAME as LANE_FILE
from slipway.contract.manifest import FILE_NAME as MANIFEST_FILE
from slipway.oci.artefacts import SBOM
from slipway.oci.documents import LANE, LAYER, SEALED, Descriptor, ImageConfig, ImageManifest
from slipway.oci.layers import BLOCK_BYTES, ArchiveError, HashingSink, Member, members
from slipway.oci.layout import AGAIN, ImageLayout
from slipway.system.files import complete_folder, sha256_bytes
from slipway.system.targets import told
from slipway.system.text import shown
from slipway.system.yaml_json import parse_json


class Verified(NamedTuple):
    """An image whose every digest holds."""

    image: Descriptor
    manifest: ImageManifest
    lane: Lane
    files: int
    bytes: int
    """Size of its layers."""
    sboms: int
    """Number of SBOMs beside it."""


def verify(layout: ImageLayout, image: Descriptor) -> Verified:
    """Check every blob of an image and of its artefacts, and every file in it, without writing anything.

    Raises:
        OciImageError: a byte differs; names the layer, and the file in it if the repository's manifest tells it.
    """
    manifest, read, sboms = open_image(layout, image), _Read(), 0
    for layer in manifest.layers:
        with _naming(layout, layer, manifest):
            _read_layer(layout, layer, read.take)
    sealed = _sealed(read.kept.get(MANIFEST_FILE, b""), manifest, where=f"{layout.folder}")
    for path in sorted(sealed.keys() ^ (read.hashes.keys() - {MANIFEST_FILE})):
        said = "is missing in the image" if path in sealed else "is in the image, and not in its manifest"
        raise OciImageError(f"{layout.folder}: {shown(path)} {said}; {AGAIN}")
    for path in read.differing(sealed):
        raise OciImageError(f"{layout.folder}: {shown(path)} in the image is not as its manifest says; {AGAIN}")
    lane = _check_lane(read.kept.get(LANE_FILE, b""), manifest, layout)
    for descriptor, artefact in layout.referrers(image):
        for blob in artefact.blobs:
            layout.read_artefact(blob, what=f"a part of the artefact {artefact.artifact_type or descriptor.digest}")
        sboms += artefact.artifact_type == SBOM
    total = sum(layer.size for layer in manifest.layers)
    return Verified(image, manifest, lane, len(read.hashes), total, sboms)


class _Read:
    """Hashes of an image's files, and the content of those that the checks need."""

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}
        """SHA-256 of each file by its path."""
        self.kept: dict[str, bytes] = {}
        """Content of the files that the checks need."""

    def take(self, member: Member) -> None:
        digest, kept = hashlib.sha256(), bytearray()
        for block in member.blocks():
            digest.update(block)
            if member.name in (MANIFEST_FILE, LANE_FILE):
                kept += block
        self.hashes[member.name] = digest.hexdigest()
        if kept:
            self.kept[member.name] = bytes(kept)

    def differing(self, sealed: Mapping[str, str]) -> list[str]:
        return sorted(path for path, sha256 in self.hashes.items() if sealed.get(path, sha256) != sha256)


def open_image(layout: ImageLayout, image: Descriptor) -> ImageManifest:
    """The manifest of an image, with its configuration checked and all layers there in the right size.

    Raises:
        OciImageError: it is not the image of a repository, or a part is missing or changed.
    """
    manifest = layout.manifest(image)
    check_kind(manifest, where=f"{layout.path(image)}")
    for layer in manifest.layers:
        layout.check_size(layer, what=f"layer {shown(layer.step)}")
    config = layout.read(manifest.config, what="the image's configuration")
    diff_ids = ImageConfig.from_bytes(config, source=str(layout.path(manifest.config))).rootfs.diff_ids
    if diff_ids != tuple(layer.digest for layer in manifest.layers):
        raise OciImageError(f"{layout.path(manifest.config)}: lists other layers than the manifest; {AGAIN}")
    return manifest


def check_kind(manifest: ImageManifest, *, where: str) -> None:
    """Raises OciImageError unless it is the manifest of a repository's image."""
    if manifest.artifact_type is not None or not manifest.annotation(SEALED):
        raise OciImageError(f"{where}: not the image of a model repository; give one that slipway image build made")
    for layer in manifest.layers:
        if layer.media_type != LAYER:
            raise OciImageError(
                f"{where}: a layer of type {shown(layer.media_type)}, which slipway image build does not make; a tool "
                "changed it: copy images with slipway image push and pull, or with skopeo copy --preserve-digests"
            )


def unpack(layout: ImageLayout, image: Descriptor, target: Path) -> ImageManifest:
    """Write the repository of an image to `target`: whole and equal byte for byte, or not at all.

    Raises:
        OciImageError: as `verify`; or the image holds a link, a device or a path that leaves the folder.
        SpecError: something else is at `target`.
        StorageError: it cannot be written.
    """
    manifest = open_image(layout, image)
    with complete_folder(target, kind="repository", inputs=(layout.folder,)) as staging:

        def take(member: Member) -> None:
            path = staging / member.name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    for block in member.blocks():
                        file.write(block)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise ArchiveError(f"{shown(member.name)} is there twice, or as a file and a folder") from None

        for layer in manifest.layers:
            with _naming(layout, layer, manifest), told(target):
                _read_layer(layout, layer, take)
        _check_unpacked(staging, manifest, layout)
    return manifest


def _check_unpacked(folder: Path, manifest: ImageManifest, layout: ImageLayout) -> None:
    """Check the files as they are on the disk, by the repository's own manifest."""
    written = folder / MANIFEST_FILE
    _sealed(written.read_bytes() if written.is_file() else b"", manifest, where=f"{layout.folder}")
    try:
        Manifest.open(folder, kind="repository")
    except ManifestError as error:
        raise OciImageError(f"{layout.folder}: {str(error).replace(f'{folder}/', 'in the image, ')}") from None
    lane = folder / LANE_FILE
    _check_lane(lane.read_bytes() if lane.is_file() else b"", manifest, layout)


def _sealed(data: bytes, manifest: ImageManifest, *, where: str) -> Mapping[str, str]:
    """The files that the repository's manifest names, with their SHA-256; raises OciImageError if it is another one."""
    if f"sha256:{sha256_bytes(data)}" != manifest.annotation(SEALED):
        raise OciImageError(f"{where}: {MANIFEST_FILE} in the image is not the one that the image names; {AGAIN}")
    try:
        return Manifest.parse(parse_json(data.decode(), source=MANIFEST_FILE), source=MANIFEST_FILE).outputs
    except (SlipwayError, UnicodeDecodeError) as error:
        raise OciImageError(f"{where}: {MANIFEST_FILE} in the image cannot be read: {error}") from None


def _check_lane(data: bytes, manifest: ImageManifest, layout: ImageLayout) -> Lane:
    try:
        lane = Lane.parse(parse_json(data.decode(errors="replace"), source=LANE_FILE), source=LANE_FILE)
    except SlipwayError as error:
        raise OciImageError(
            f"{layout.folder}: {LANE_FILE} in the image cannot be read: {error}; build it again"
        ) from None
    if lane.lane != manifest.annotation(LANE):
        raise OciImageError(
            f"{layout.folder}: the image says lane {shown(manifest.annotation(LANE))}, and its {LANE_FILE} says "
            f"{lane.lane}; build it again"
        )
    return lane


def _read_layer(layout: ImageLayout, layer: Descriptor, take: Callable[[Member], None]) -> None:
    """Compare the digest of a layer, then give each file of it to `take`.

    Raises:
        OciImageError: the digest differs, or the archive holds what it must not.
    """
    path = layout.path(layer)
    with path.open("rb") as file:
        sink = HashingSink()
        while block := file.read(BLOCK_BYTES):
            sink.write(block)
        if sink.digest != layer.digest:
            raise _ChangedError
        file.seek(0)
        try:
            for member in members(file):
                take(member)
        except ArchiveError as error:
            raise OciImageError(f"{path}: layer {shown(layer.step)}: {error}") from None


class _ChangedError(Exception):
    """The digest of a layer differs."""


@contextmanager
def _naming(layout: ImageLayout, layer: Descriptor, manifest: ImageManifest) -> Iterator[None]:
    """Turn a wrong digest into an error that names the layer and the file."""
    try:
        yield
    except _ChangedError:
        where = _changed_file(layout, layer, manifest)
        raise OciImageError(
            f"{layout.path(layer)}: layer {shown(layer.step)} was changed: its SHA-256 is not the file's name; "
            f"{where}; {AGAIN}"
        ) from None


def _changed_file(layout: ImageLayout, layer: Descriptor, manifest: ImageManifest) -> str:
    """Return a phrase on which file of a changed layer differs, as far as it can be told."""
    try:
        sealed = _sealed(_skim(layout, manifest.layers[-1]).kept.get(MANIFEST_FILE, b""), manifest, where="")
    except OciImageError:
        return f"it is in {MANIFEST_FILE}"
    read = _skim(layout, layer)
    if differing := read.differing(sealed):
        return f"it is in {', '.join(map(shown, differing))}"
    last = next(reversed(read.hashes), None)
    return "it is in a header or between the files" + (f", {shown(last)} being the last that was read" if last else "")


def _skim(layout: ImageLayout, layer: Descriptor) -> _Read:
    """The files of a layer as far as they can be read, whatever its digest."""
    read = _Read()
    with layout.path(layer).open("rb") as file, suppress(ArchiveError):
        for member in members(file):
            read.take(member)
    return read
