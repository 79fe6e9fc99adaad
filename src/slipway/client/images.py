"""Turns the caller's images (paths, folders, bytes, arrays, PIL images) into encoded bytes."""

import io
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from slipway.client.errors import ImageError
from slipway.contract.shared_rules import IMAGE_SUFFIXES


class PilImage(Protocol):
    """The part of `PIL.Image.Image` that is used here, so that PIL need not be installed."""

    @property
    def mode(self) -> str: ...
    def getexif(self) -> Any: ...
    def save(self, fp: Any, format: str | None = None, **params: Any) -> None: ...


Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[np.uint8] | PilImage
"""One image: the path of its file, its encoded bytes, a PIL image, or its pixels as UINT8 [H, W] (grey) or [H, W, C],
where C is 1 (grey), 3 (RGB) or 4 (RGBA)."""

MAX_IMAGE_BYTES = 128 * 2**20
"""Largest image that a client sends. It exceeds the limit of every Slipway server, which judges everything smaller."""
_PNG_COLOURS = {1: 0, 3: 2, 4: 6}
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_ORIENTATION = 0x0112


def each(images: Source | Iterable[Source]) -> Iterator[Source]:
    """Yield one image after the other; a folder stands for every image below it, and is listed as it is consumed."""
    for image in [images] if _is_one(images) else cast("Iterable[Source]", images):
        if isinstance(image, str | os.PathLike) and os.path.isdir(image):
            yield from find_images(image)
        else:
            yield image


def _is_one(images: Source | Iterable[Source]) -> TypeGuard[Source]:
    if isinstance(images, np.ndarray):
        return images.ndim < 4
    return isinstance(images, str | os.PathLike | bytes | bytearray | memoryview) or _is_pil(images)


def find_images(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the files below `folder` that have a common image suffix, in the same order every time.

    A folder without images, or one that cannot be read, is yielded itself, so that it is reported and not left out.
    """
    unread: list[OSError] = []
    empty = True
    for root, folders, files in os.walk(folder, onerror=unread.append):
        folders.sort()
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                empty = False
                yield Path(root, name)
    yield from (Path(os.fsdecode(error.filename)) for error in unread)
    if empty and not unread:
        yield Path(folder)


def batches(images: Iterable[Source], *, size: int) -> Iterator[list[Source]]:
    iterator = iter(images)
    while batch := list(islice(iterator, size)):
        yield batch


def parts(images: Iterable[bytes], *, limit_bytes: int) -> Iterator[list[bytes]]:
    """Consecutive groups of images; each holds one image, or several that stay within the limit together."""
    part: list[bytes] = []
    held = 0
    for image in images:
        if part and held + len(image) > limit_bytes:
            yield part
            part, held = [], 0
        part.append(image)
        held += len(image)
    if part:
        yield part


def load(sources: Sequence[Source], *, shrink_px: int | None = None) -> list[bytes | ImageError]:
    """Encode each image, or give the reason why that failed; large JPEGs are shrunk with `shrink_px`."""
    return [_load(source, shrink_px) for source in sources]


def _load(source: Source, shrink_px: int | None) -> bytes | ImageError:
    try:
        encoded = encode(source)
    except ImageError as error:
        return error
    if shrink_px is None:
        return encoded
    from slipway.client.shrink import shrunk  # other clients need no simplejpeg

    return shrunk(encoded, least_px=shrink_px)


def encode(source: Source) -> bytes:
    """The bytes to send: a file's content unchanged, and pixels as a lossless PNG.

    Raises:
        ImageError: the image cannot be read, is too large, or has a type that cannot be sent.
    """
    if isinstance(source, str | os.PathLike):
        return _read(source)
    if isinstance(source, bytes | bytearray | memoryview):
        encoded = bytes(source)
    elif isinstance(source, np.ndarray):
        encoded = png(source)
    elif _is_pil(source):
        encoded = _png_of_pil(source)
    else:
        raise ImageError(
            f"{type(source).__name__} is not an image; "
            "give a path, encoded bytes, uint8 pixels [H, W, 3] or a PIL image"
        )
    if len(encoded) > MAX_IMAGE_BYTES:
        raise ImageError(f"an image of {len(encoded)} bytes; at most {MAX_IMAGE_BYTES} are sent")
    return encoded


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            os.scandir(path).close()  # raises with the reason if it cannot be read
            raise ImageError(f"{path}: a folder without an image in it, or not for classify(): ask classify_many()")
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_IMAGE_BYTES:
            raise ImageError(f"{path}: not a regular file of at most {MAX_IMAGE_BYTES} bytes")
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"{path!r}: cannot be read: {error}") from None


def png(pixels: NDArray[Any]) -> bytes:
    """Encode pixels as a PNG.

    Args:
        pixels: UINT8 [H, W] (grey) or [H, W, C] with C of 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
        ImageError: another dtype or shape.
    """
    channels = (*pixels.shape, 1)[2] if pixels.ndim in (2, 3) else 0
    if pixels.dtype != np.uint8 or channels not in _PNG_COLOURS or not pixels.size:
        raise ImageError(
            f"an array of {pixels.dtype} {list(pixels.shape)}; give uint8 [H, W, 3] in RGB order, [H, W, 4] or [H, W]"
        )
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row after the number of its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), level=1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _is_pil(source: object) -> TypeGuard[PilImage]:
    pil = sys.modules.get("PIL.Image")  # a caller with a PIL image has imported it
    return pil is not None and isinstance(source, pil.Image)


def _png_of_pil(image: PilImage) -> bytes:
    if image.mode not in _PNG_MODES:
        raise ImageError(
            f"a PIL image of mode {image.mode}, which PNG cannot hold without loss; "
            'convert it with .convert("RGB"), or give its file'
        )
    buffer = io.BytesIO()
    try:
        # PIL does not turn what it opens; the server does, if the image says how.
        seen = image.getexif()
        exif = type(seen)()
        exif[_ORIENTATION] = seen.get(_ORIENTATION, 1)
        image.save(buffer, "PNG", compress_level=1, exif=exif if exif[_ORIENTATION] != 1 else None)
    except Exception as error:  # each of PIL's decoders raises its own
        raise ImageError(f"a PIL image that cannot be read: {error}") from None
    return buffer.getvalue()
