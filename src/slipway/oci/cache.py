"""Images unpacked for a server, in `~/.cache/slipway/images/<digest>`: checked before each use."""

import shutil
from collections.abc import Callable
from pathlib import Path

from slipway.contract import Manifest, SlipwayError
from slipway.contract.manifest import FILE_NAME as MANIFEST_FILE
from slipway.oci.documents import SEALED, Descriptor, ImageManifest
from slipway.oci.layout import ImageLayout
from slipway.oci.verify import open_image, unpack
from slipway.system.files import locked, sha256_file
from slipway.system.home import user_folder
from slipway.system.targets import told


def images_folder() -> Path:
    return user_folder("XDG_CACHE_HOME", ".cache") / "slipway/images"


def folder_of(image: Descriptor) -> Path:
    return images_folder() / image.hex


def cached_repository(layout: ImageLayout, image: Descriptor, *, say: Callable[[str], None]) -> Path:
    """The repository of an image as a folder, whose every file has been checked; unpacked unless it is there.

    Raises:
        OciImageError: the image is damaged.
        StorageError: the cache cannot be written.
    """
    manifest = open_image(layout, image)
    folder = folder_of(image)
    lock = folder.with_name(f".{image.hex}.lock")
    with told(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    with locked(lock, wait=True):  # of two servers that start at once, one unpacks
        problem = _problem(folder, manifest)
        if problem is None:
            say(f"{folder}: unpacked before, and every file is as its manifest says")
            return folder
        if folder.exists():
            say(f"{folder}: unpacked again, since it was changed: {problem}")
            shutil.rmtree(folder)
        unpack(layout, image, folder)
        say(f"{folder}: unpacked, and every file is as its manifest says")
    return folder


def _problem(folder: Path, manifest: ImageManifest) -> str | None:
    """The reason why a folder is not the repository of an image; None if it is."""
    if not folder.exists():
        return "missing"
    try:
        if f"sha256:{sha256_file(folder / MANIFEST_FILE)}" != manifest.annotation(SEALED):
            return f"another {MANIFEST_FILE}"
        Manifest.open(folder, kind="repository")
    except SlipwayError as error:
        return str(error)
    return None
