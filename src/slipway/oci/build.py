"""Builds the image of a model repository: equal repositories give equal digests, in any clone and on any machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from slipway import __version__
from slipway.contract import Lane, Manifest, OciImageError, SpecError
from slipway.contract.lane import FILE_NAME as LANE_FILE
from slipway.contract.manifest import FILE_NAME as MANIFEST_FILE
from slipway.oci.documents import (
    CLASSIFIERS,
    CONFIG,
    LANE,
    LAYER,
    MANIFEST,
    SEALED,
    STEP,
    VERSION,
    Descriptor,
    ImageConfig,
    ImageManifest,
    RootFs,
)
from slipway.oci.layers import REST, HashingSink, OciLayer, plan, write_tar
from slipway.oci.layout import ImageLayout
from slipway.oci.reference import TAG, LayoutReference
from slipway.system.files import sha256_file


class Built(NamedTuple):
    """The image that `build` wrote, and the layers that were new."""

    image: Descriptor
    manifest: ImageManifest
    written: tuple[Descriptor, ...]
    """Layers that were new to the layout."""

    @property
    def reused(self) -> int:
        return len(self.manifest.layers) - len(self.written)


def build(repository: Path, target: LayoutReference) -> Built:
    """Write the image of a repository into a layout, which is made if it is missing, and give it a tag.

    Raises:
        ManifestError: the repository is not as `slipway assemble` wrote it; names the file.
        OciImageError: the tag names an image of another lane, or the repository changed meanwhile.
        SpecError: the target is not a layout, or a digest is given.
        StorageError: the layout cannot be written.
    """
    if target.digest is not None:
        raise SpecError(f"{target}: give a tag; the digest follows from the repository")
    tag = target.tag or "latest"
    if not TAG.fullmatch(tag):
        raise SpecError(f"{tag!r}: invalid tag; use up to 128 letters, digits and ._-")
    manifest = Manifest.open(repository, kind="repository")
    lane = Lane.read(repository / LANE_FILE)
    with ImageLayout.writing(target.folder, inputs=(repository,)) as layout:
        layout.check_tag(tag, lane=lane.lane)
        known = _known_layers(layout)
        files = {*manifest.outputs, MANIFEST_FILE}
        sizes = {name: (repository / name).stat().st_size for name in files}
        layers, written = [], []
        for layer in plan(sizes, ensembles=lane.ensembles):
            descriptor, is_new = _add_layer(layout, repository, layer, known=known)
            layers.append(descriptor)
            written += [descriptor] if is_new else []
        sealed = sha256_file(repository / MANIFEST_FILE)
        _check_unchanged(repository, manifest)
        image = _image(layout, lane, layers, sealed=sealed)
        descriptor = layout.add(image.to_bytes(), MANIFEST)
        layout.set_tag(tag, descriptor)
    return Built(descriptor, image, tuple(written))


def _known_layers(layout: ImageLayout) -> Mapping[str, Descriptor]:
    """Layers of the images that are there, by name: a step is named by its content, so it is likely the same."""
    return {
        layer.step: layer
        for one in layout.index.manifests
        if one.tag is not None and (manifest := layout.whole_manifest(one)) is not None
        for layer in manifest.layers
    }


def _add_layer(
    layout: ImageLayout, repository: Path, layer: OciLayer, *, known: Mapping[str, Descriptor]
) -> tuple[Descriptor, bool]:
    """The descriptor of a layer, and whether it had to be written."""
    annotations = {STEP: layer.name}
    if layer.name in known and layer.name != REST:
        sink = HashingSink()
        write_tar(repository, layer.files, sink)
        found = Descriptor(media_type=LAYER, digest=sink.digest, size=sink.size, annotations=annotations)
        if layout.has(found):
            return found, False
    before = {path.name for path in (layout.folder / "blobs/sha256").iterdir()}
    digest, size = layout.write_blob(lambda sink: write_tar(repository, layer.files, sink))
    descriptor = Descriptor(media_type=LAYER, digest=digest, size=size, annotations=annotations)
    return descriptor, descriptor.hex not in before


def _check_unchanged(repository: Path, manifest: Manifest) -> None:
    if Manifest.read(repository / MANIFEST_FILE) != manifest:
        raise OciImageError(f"{repository}: assembled again while the image was built; build it again")


def _image(layout: ImageLayout, lane: Lane, layers: list[Descriptor], *, sealed: str) -> ImageManifest:
    config = ImageConfig(rootfs=RootFs(diff_ids=tuple(layer.digest for layer in layers)))
    annotations = {
        VERSION: __version__,
        LANE: lane.lane,
        CLASSIFIERS: ",".join(sorted(lane.classifiers)),
        SEALED: f"sha256:{sealed}",
    }
    return ImageManifest(config=layout.add(config.to_bytes(), CONFIG), layers=tuple(layers), annotations=annotations)
