"""The image that `slipway serve` is given, as a folder: verified, and unpacked into the cache of the user."""

from collections.abc import Callable
from pathlib import Path

from slipway.cli.image import check_signature, signed_line
from slipway.contract import ServingError
from slipway.image.cache import cached_repository
from slipway.image.documents import LANE, Descriptor
from slipway.image.layout import Layout
from slipway.image.reference import LayoutReference
from slipway.serving.binary import installed_server


def unpacked(reference: LayoutReference, *, key: Path | None, say: Callable[[str], None]) -> Path:
    """The repository of an image, whose signature, if there is a key, and every file have been checked.

    Raises:
        ImageError: the signature or a digest does not hold.
        ServingError: the image is of a lane that the server here cannot serve.
    """
    layout = Layout.open(reference.folder)
    image = layout.find(reference)
    signed = check_signature(layout, image, key)
    say(f"{reference}: {image.digest}; {signed_line(key, signed)}")
    _check_lane(layout, image, reference)
    return cached_repository(layout, image, say=say)


def _check_lane(layout: Layout, image: Descriptor, reference: LayoutReference) -> None:
    """Refuse the gpu lane before gigabytes are unpacked; what else may be missing, the server checks at its start."""
    if layout.manifest(image).annotation(LANE) == "gpu" and installed_server() is None:
        raise ServingError(
            f"{reference}: an image of the gpu lane, and the server of the nvidia-pytriton wheel has neither TensorRT "
            "nor NVIDIA's DALI backend; serve it in NVIDIA's image (slipway container serve), or give the cpu lane's "
            "image"
        )
