"""Transfers an image with its artefacts between a layout and a registry: only the parts that the other side lacks.

Named parts come last. An interrupted push leaves no tag behind, and an interrupted pull none in the layout.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from slipway.contract import OciImageError
from slipway.oci.artefacts import SBOM, SIGNATURE
from slipway.oci.documents import INDEX, LANE, MANIFEST, MOST_BYTES, SEALED, Descriptor, ImageManifest, Index
from slipway.oci.layout import AGAIN, ImageLayout
from slipway.oci.reference import RegistryReference
from slipway.oci.registry import BLOCK_BYTES, AbsentError, Registry, referrers_tag
from slipway.oci.verify import check_kind, open_image
from slipway.system.text import shown

Progress = Callable[[int], object]
"""Called with the number of bytes that have just been moved."""
_OURS = (SBOM, SIGNATURE)
_DEPTH = 2
"""An SBOM belongs to an image, and a signature to either."""


class Moved(NamedTuple):
    """The result of a push or pull."""

    image: Descriptor
    moved_bytes: int
    skipped_bytes: int
    moved: int
    """Number of blobs and manifests that were moved."""
    skipped: int
    """Number of those that the other side had."""


class _Count:
    """Adds up the transferred and the skipped bytes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._sizes: dict[bool, list[int]] = {True: [], False: []}

    def add(self, descriptor: Descriptor, *, moved: bool) -> None:
        self._sizes[moved].append(descriptor.size)

    def counted(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            yield block
            self._progress(len(block))

    def result(self, image: Descriptor) -> Moved:
        moved, skipped = self._sizes[True], self._sizes[False]
        return Moved(image.bare(), sum(moved), sum(skipped), len(moved), len(skipped))


def push(
    layout: ImageLayout, image: Descriptor, target: RegistryReference, registry: Registry, progress: Progress
) -> Moved:
    """Write an image to a registry, and then its tag.

    Raises:
        OciImageError: a part of it is missing or changed; the registry cannot be reached or refuses; or the tag names
            something else there, or an image of another lane.
    """
    manifest = open_image(layout, image)
    if target.tag is None:
        raise OciImageError(f"{target}: give a tag to push to; the digest follows from the image")
    registry.check()
    _check_tag(registry, target, lane=manifest.annotation(LANE))
    count = _Count(progress)
    for descriptor, member in _family(layout, image, manifest):
        for blob in member.blobs:
            _push_blob(layout, blob, registry, count)
        data = layout.read(descriptor, what="a manifest")
        has_list = _push_manifest(data, descriptor, registry, count)
        if member.subject is not None and not has_list:
            _list_artefact(registry, member.subject, descriptor)
    registry.put_manifest(layout.read(image, what="the image's manifest"), MANIFEST, target=target.tag)
    return count.result(image)


def _family(
    layout: ImageLayout, image: Descriptor, manifest: ImageManifest
) -> Iterator[tuple[Descriptor, ImageManifest]]:
    """An image, its artefacts, and theirs."""
    yield image, manifest
    for descriptor, artefact in layout.referrers(image):
        yield from _family(layout, descriptor, artefact)


def _check_tag(registry: Registry, target: RegistryReference, *, lane: str) -> None:
    try:
        data, media_type = registry.manifest(target.target)
    except AbsentError:
        return
    there = ImageManifest.from_bytes(data, source=str(target)) if media_type == MANIFEST else None
    if there is None or not there.annotation(SEALED):
        raise OciImageError(f"{target}: names something other than a model repository there; give another name or tag")
    if there.annotation(LANE) != lane:
        raise OciImageError(
            f"{target}: names an image of the {shown(there.annotation(LANE))} lane there, and this one is of the "
            f"{lane} lane; give another name or tag"
        )


def _push_blob(layout: ImageLayout, blob: Descriptor, registry: Registry, count: _Count) -> None:
    what = f"layer {shown(blob.step)}" if blob.step else "a part"
    layout.check_size(blob, what=what)
    there = registry.has_blob(blob)
    if not there:
        try:
            registry.put_blob(blob, lambda: count.counted(_blocks(layout, blob)))
        except OciImageError:
            if not layout.has(blob):  # whatever the registry made of it
                raise OciImageError(
                    f"{layout.path(blob)}: {what} was changed: its SHA-256 is not the file's name; {AGAIN}"
                ) from None
            raise
    count.add(blob, moved=not there)


def _blocks(layout: ImageLayout, blob: Descriptor) -> Iterator[bytes]:
    with layout.path(blob).open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _push_manifest(data: bytes, descriptor: Descriptor, registry: Registry, count: _Count) -> bool:
    try:
        registry.manifest(descriptor.digest)
    except AbsentError:
        count.add(descriptor, moved=True)
    else:
        count.add(descriptor, moved=False)
    return registry.put_manifest(data, MANIFEST, target=descriptor.digest)  # again, since its answer tells of the list


def _list_artefact(registry: Registry, subject: Descriptor, artefact: Descriptor) -> None:
    """Enter an artefact in the tag that lists those of its subject, since the registry does not."""
    try:
        data, _ = registry.manifest(referrers_tag(subject))
        listed = Index.from_bytes(data, source="the list of artefacts").manifests
    except AbsentError:
        listed = ()
    if artefact.digest not in {one.digest for one in listed}:
        index = Index(manifests=(*listed, artefact.bare()))
        registry.put_manifest(index.to_bytes(), INDEX, target=referrers_tag(subject))


def pull(
    registry: Registry,
    source: RegistryReference,
    layout: ImageLayout,
    *,
    tag: str,
    lane: str | None = None,
    trust: Callable[[Descriptor], object] | None = None,
    unpacked: Callable[[Descriptor], bool] = lambda _: False,
    progress: Progress,
) -> Moved:
    """Write an image of a registry into a layout, and then its tag.

    Args:
        layout: opened for writing.
        lane: lane that it must be of, if any.
        trust: called with the image once its signatures are there, and before its layers; raises if it is not trusted.
        unpacked: whether an image's files are checked elsewhere, so that the layers in the layout need no hashing.

    Raises:
        OciImageError: the registry cannot be reached or refuses; it has no such image, or not all of it; or the image
            is not of a model repository, or of another lane.
    """
    registry.check()
    try:
        data, media_type = registry.manifest(source.target)
    except AbsentError as error:
        raise OciImageError(
            f"{source}: no such image: {error}; check name and tag; if its push was cut short, push it again"
        ) from None
    image = Descriptor.of(data, MANIFEST)
    if source.digest not in (None, image.digest):
        raise OciImageError(f"{source}: the registry gave {image.digest}, which is another image")
    if media_type != MANIFEST:
        raise OciImageError(f"{source}: not the image of a model repository; give one that slipway image push wrote")
    manifest = ImageManifest.from_bytes(data, source=str(source))
    check_kind(manifest, where=str(source))
    found = manifest.annotation(LANE)
    if lane not in (None, found):
        raise OciImageError(f"{source}: of the {shown(found)} lane, and the {lane} lane is wanted; give another image")
    layout.check_tag(tag, lane=found)
    count = _Count(progress)
    count.add(image, moved=not layout.has(image))
    layout.add(data, MANIFEST)
    artefacts = list(_pull_artefacts(registry, image, layout, count, where=str(source), depth=_DEPTH))
    with layout.with_untagged(*artefacts):
        if trust is not None:
            try:
                trust(image)
            except OciImageError as error:
                raise OciImageError(f"{source}: {error}") from None
    hashed = not unpacked(image)
    for blob in manifest.blobs:
        _pull_blob(registry, blob, layout, count, where=str(source), hashed=hashed)
    open_image(layout, image)
    layout.set_tag(tag, image)
    return count.result(image)


def _pull_blob(
    registry: Registry, blob: Descriptor, layout: ImageLayout, count: _Count, *, where: str, hashed: bool = True
) -> None:
    there = layout.has(blob, hashed=hashed)
    count.add(blob, moved=not there)
    if there:
        return
    name = f"layer {shown(blob.step)} ({blob.digest})" if blob.step else blob.digest
    try:
        layout.write_blob(
            lambda sink: [sink.write(block) for block in count.counted(registry.blob(blob))], expected=blob
        )
    except AbsentError:
        raise OciImageError(f"{where}: {name} is not in the registry; push the image again") from None
    except OciImageError as error:
        raise OciImageError(f"{where}: {name}: {error}") from None


def _pull_artefacts(
    registry: Registry, subject: Descriptor, layout: ImageLayout, count: _Count, *, where: str, depth: int
) -> Iterator[Descriptor]:
    """Pull the SBOM and the signatures of an image or of an SBOM; what else is attached to it stays there."""
    if not depth:
        return
    for listed in registry.referrers(subject):
        if listed.artifact_type in _OURS and listed.media_type == MANIFEST:
            data, _ = registry.manifest(listed.digest)
            found = Descriptor.of(data, MANIFEST, artifact_type=listed.artifact_type)
            if found.digest != listed.digest:
                raise OciImageError(f"{where}: the registry gave {found.digest} for the artefact {listed.digest}")
            for blob in ImageManifest.from_bytes(data, source=where).blobs:
                if blob.size > MOST_BYTES:  # anybody may have attached it: no signature is verified yet
                    raise OciImageError(
                        f"{where}: {blob.size:,} bytes for a part of the artefact {found.digest}; at most "
                        f"{MOST_BYTES:,} are read; remove that artefact from the registry"
                    )
                _pull_blob(registry, blob, layout, count, where=where)
            count.add(found, moved=not layout.has(found))
            layout.add(data, MANIFEST)
            yield found
            yield from _pull_artefacts(registry, found, layout, count, where=where, depth=depth - 1)
