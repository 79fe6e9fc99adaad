"""The image that `slipway serve` is given, as a folder: verified, and unpacked into the cache of the user."""

from collections.abc import Callable
from pathlib import Path

from slipway.cli.image import check_signature, signed_line
from slipway.contract import ServingError
from slipway.oci.cache import cached_repository, folder_of, images_folder
from slipway.oci.documents import LANE, Descriptor
from slipway.oci.layout import ImageLayout
from slipway.oci.reference import LayoutReference, RegistryReference
from slipway.serving.binary import installed_server
from slipway.system.files import sha256_bytes


def unpacked(
    reference: LayoutReference | RegistryReference,
    *,
    key: Path | None,
    say: Callable[[str], None],
    plain_http: bool = False,
) -> Path:
    """The repository of an image, whose signature, if there is a key, and every file have been checked.

    Args:
        plain_http: whether the registry is asked without TLS.

    Raises:
        OciImageError: the signature or a digest does not hold, or the registry cannot be reached.
        ServingError: the image is of a lane that the server here cannot serve.
    """
    if isinstance(reference, RegistryReference):
        return _pulled(reference, key=key, say=say, plain_http=plain_http)
    layout = ImageLayout.open(reference.folder)
    image = layout.find(reference)
    signed = check_signature(layout, image, key)
    say(f"{reference}: {image.digest}; {signed_line(key, signed)}")
    _check_lane(layout, image, reference)
    return cached_repository(layout, image, say=say)


def _pulled(reference: RegistryReference, *, key: Path | None, say: Callable[[str], None], plain_http: bool) -> Path:
    """The image by way of the cache's layout, which is brought up to date from the registry and keeps nothing else.

    The layout is locked to the end: another server that follows the tag might remove the unpacked folder.
    """
    from slipway.oci.registry import Registry
    from slipway.oci.transfer import pull

    tag = f"pulled-{sha256_bytes(str(reference).encode())[:16]}"
    with ImageLayout.writing(images_folder().with_name("layout"), wait=True) as layout:
        moved = pull(
            Registry(reference, plain_http=plain_http),
            reference,
            layout,
            tag=tag,
            trust=lambda image: check_signature(layout, image, key),
            unpacked=lambda image: folder_of(image).is_dir(),  # its files are checked below
            progress=lambda _: None,
        )
        say(f"{reference}: pulled {moved.moved_bytes:,} bytes, {moved.skipped_bytes:,} were there")
        layout.prune()
        return unpacked(LayoutReference(layout.folder, digest=moved.image.digest), key=key, say=say)


def _check_lane(layout: ImageLayout, image: Descriptor, reference: LayoutReference) -> None:
    """Refuse the gpu lane before gigabytes are unpacked; what else may be missing, the server checks at its start."""
    if layout.manifest(image).annotation(LANE) == "gpu" and installed_server() is None:
        raise ServingError(
            f"{reference}: an image of the gpu lane, and the server of the nvidia-pytriton wheel has neither TensorRT "
            "nor NVIDIA's DALI backend; serve it in NVIDIA's image (slipway container serve), or give the cpu lane's "
            "image"
        )
