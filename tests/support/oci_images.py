"""Images of small repositories, and changes of them."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from slipway.oci.build import build
from slipway.oci.documents import LAYER, MANIFEST, Descriptor, ImageConfig, ImageManifest, RootFs
from slipway.oci.layout import ImageLayout
from slipway.oci.reference import LayoutReference
from slipway.repository import assemble
from tests.support.colours import copy_colours, replaced
from tests.support.scripts import ROOT

EXAMPLE = ROOT / "model_repository/example"
Built = tuple[ImageLayout, Descriptor]
"""A layout and the image in it."""


def built(folder: Path, repository: Path = EXAMPLE, *, tag: str = "v1") -> Built:
    """The image of a repository in the layout `folder`."""
    image = build(repository, LayoutReference(folder, tag)).image
    return ImageLayout.open(folder), image


def warmer(folder: Path, *, temperature: str = "1.5") -> Path:
    """The example with another decision: a new post step, and everything else as it was."""
    assert b'"temperature": 1.0' in (ROOT / "tests/assets/colours/engine/decision.json").read_bytes()
    change = replaced("decision.json", b'"temperature": 1.0', f'"temperature": {temperature}'.encode())
    classifier = copy_colours(folder / "source", bundle=change, engine=change)
    assemble([classifier], folder / "repository")
    return folder / "repository"


def with_layers(layout: ImageLayout, image: Descriptor, change: Callable[[str, bytes], bytes]) -> Descriptor:
    """The image with layers changed by `change(name, archive)`, and every digest made to fit again."""
    manifest = layout.manifest(image)
    layers = []
    for layer in manifest.layers:
        data = change(layer.step, layout.path(layer).read_bytes())
        layers.append(layout.add(data, LAYER, annotations=layer.annotations))
    return with_manifest(layout, manifest.model_copy(update={"layers": tuple(layers)}))


def with_manifest(layout: ImageLayout, manifest: ImageManifest) -> Descriptor:
    """Write another manifest, with a configuration that fits its layers, as the image `changed`."""
    config = ImageConfig(rootfs=RootFs(diff_ids=tuple(layer.digest for layer in manifest.layers)))
    fitting = manifest.model_copy(update={"config": layout.add(config.to_bytes(), manifest.config.media_type)})
    image = layout.add(fitting.to_bytes(), MANIFEST)
    layout.set_tag("changed", image)
    return image


def with_member(archive: bytes, member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """A tar archive with one more member at its end."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as old,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for one in old:
            new.addfile(one, old.extractfile(one) if one.isfile() else None)
        member.size = len(content)
        new.addfile(member, io.BytesIO(content))
    return out.getvalue()


def copied(layout: ImageLayout, target: Path) -> ImageLayout:
    shutil.copytree(layout.folder, target)
    return ImageLayout.open(target)
