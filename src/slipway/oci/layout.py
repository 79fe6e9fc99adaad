"""An OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/sha256/`.

A blob appears whole, under its SHA-256, and `index.json` is replaced last and in one step. A process that is killed
leaves the former images as they were.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from slipway.contract import OciImageError
from slipway.oci.documents import EMPTY, LANE, MANIFEST, MOST_BYTES, REF_NAME, Descriptor, ImageManifest, Index
from slipway.oci.layers import HashingSink
from slipway.oci.reference import LayoutReference
from slipway.system.files import locked, sha256_file
from slipway.system.targets import check_folder, told, write_file
from slipway.system.text import few

MARKER, INDEX_FILE = "oci-layout", "index.json"
KIND: Final = "layout of images"
MARKED = b'{"imageLayoutVersion":"1.0.0"}'
AGAIN = "remove it, and build or pull the image again"
DAMAGED = "the registry's copy is damaged: delete it there, and push the image again"
_ANEW = "pull the image again, or build it into a new folder, and list and sign it there (slipway image sbom, sign)"
_UNFINISHED = ".unfinished-"


class ImageLayout:
    """A layout that exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises OciImageError: the folder is not an image layout."""
        layout = cls(folder)
        if not folder.is_dir():
            raise OciImageError(f"{folder}: no such folder; give an OCI image layout, as slipway image build writes it")
        try:
            marked = (folder / MARKER).read_bytes()
        except OSError:
            raise OciImageError(
                f"{folder}: no {MARKER} here; give a folder that slipway image build or pull wrote"
            ) from None
        if b'"imageLayoutVersion"' not in marked or b'"1.0.0"' not in marked:
            raise OciImageError(
                f"{folder / MARKER}: not that of image layouts 1.0.0; it was changed, or is of a later one; build or "
                "pull the image into a new folder"
            )
        return layout

    @classmethod
    @contextmanager
    def writing(cls, folder: Path, *, inputs: tuple[Path, ...] = (), wait: bool = False) -> Iterator[Self]:
        """The layout at `folder`, made if it is missing, for the only process that writes to it.

        Raises:
            OciImageError: another process writes to it, and we do not wait.
            SpecError: something else is there.
            StorageError: the folder cannot be written.
        """
        check_folder(folder, kind=KIND, inputs=inputs)
        with told(folder), ExitStack() as to_the_end:
            made = cls._enter(folder, to_the_end, wait=wait)
            layout = cls(folder)
            layout._clear()
            try:
                yield layout
            except BaseException:
                if made and not any((folder / "blobs/sha256").iterdir()):  # nothing that a second try could use
                    shutil.rmtree(folder, ignore_errors=True)
                raise

    @classmethod
    def _enter(cls, folder: Path, to_the_end: ExitStack, *, wait: bool) -> bool:
        """Lock the layout until the end, after it was made if it is missing; returns whether this call made it."""
        while True:
            made = cls._make(folder)
            lock = ExitStack()
            with suppress(FileNotFoundError):  # whoever made it had nothing to keep, and removed it
                before = folder.stat()
                try:
                    lock.enter_context(locked(folder, wait=wait))
                except BlockingIOError:
                    raise OciImageError(f"{folder}: another process is writing to it; wait until it ends") from None
                if os.path.samestat(before, folder.stat()):
                    to_the_end.push(lock)
                    return made
            lock.close()

    @classmethod
    def _make(cls, folder: Path) -> bool:
        """Make an empty layout unless it is there: of several processes one makes it, and the others wait."""
        if (folder / MARKER).exists():
            return False
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent, wait=True):
            if (folder / MARKER).exists():
                return False
            staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                cls(staging)._begin()
                staging.chmod(0o755)
                os.rename(staging, folder)  # over nothing, or over an empty folder
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return True

    def _begin(self) -> None:
        (self.folder / "blobs/sha256").mkdir(parents=True)
        write_file(self.folder / INDEX_FILE, Index().to_bytes())
        write_file(self.folder / MARKER, MARKED)

    def _clear(self) -> None:
        for leftover in (self.folder / "blobs/sha256").glob(f"{_UNFINISHED}*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)

    @property
    def index(self) -> Index:
        path = self.folder / INDEX_FILE
        try:
            return Index.from_bytes(path.read_bytes(), source=str(path))
        except OSError as error:
            raise OciImageError(
                f"{path}: cannot be read: {error.strerror}; build or pull the image into a new folder"
            ) from None

    def path(self, descriptor: Descriptor) -> Path:
        return self.folder / "blobs/sha256" / descriptor.hex

    def has(self, descriptor: Descriptor, *, hashed: bool = True) -> bool:
        """Whether a blob is there as a file of its own, with the right size and, if `hashed`, the right SHA-256."""
        path = self.path(descriptor)
        if path.is_symlink() or not path.is_file() or path.stat().st_size != descriptor.size:
            return False
        return not hashed or sha256_file(path) == descriptor.hex

    def read(self, descriptor: Descriptor, *, what: str, remedy: str = AGAIN) -> bytes:
        """A small blob, with its size and SHA-256 checked.

        Raises:
            OciImageError: it is missing, too large or changed; names `what` and its file.
        """
        path = self.path(descriptor)
        self.check_size(descriptor, what=what, remedy=remedy)
        if descriptor.size > MOST_BYTES:
            raise OciImageError(f"{path}: {what} of {descriptor.size:,} bytes; at most {MOST_BYTES:,} are read")
        data = path.read_bytes()
        if Descriptor.of(data, descriptor.media_type).digest != descriptor.digest:
            raise OciImageError(f"{path}: {what} was changed: its SHA-256 is not the file's name; {remedy}")
        return data

    def read_artefact(self, blob: Descriptor, *, what: str) -> bytes:
        """`read` of a part of an SBOM or a signature, which a build does not write again."""
        return self.read(blob, what=what, remedy=_ANEW)

    def check_size(self, descriptor: Descriptor, *, what: str, remedy: str = AGAIN) -> None:
        path = self.path(descriptor)
        if path.is_symlink() or path.is_dir():
            raise OciImageError(f"{path}: {what} is a link or a folder, and has to be a file; {remedy}")
        if not path.is_file():
            raise OciImageError(f"{path}: {what} is missing; {remedy.removeprefix('remove it, and ')}")
        if (size := path.stat().st_size) != descriptor.size:
            raise OciImageError(
                f"{path}: {what} was changed: {size:,} bytes, where the image says {descriptor.size:,}; {remedy}"
            )

    def manifest(self, descriptor: Descriptor) -> ImageManifest:
        data = self.read(descriptor, what="the image's manifest")
        return ImageManifest.from_bytes(data, source=str(self.path(descriptor)))

    def _artefact(self, descriptor: Descriptor) -> ImageManifest:
        what = f"the manifest of an artefact ({descriptor.artifact_type or 'no type'})"
        return ImageManifest.from_bytes(self.read_artefact(descriptor, what=what), source=str(self.path(descriptor)))

    def whole_manifest(self, descriptor: Descriptor) -> ImageManifest | None:
        """The manifest of an image; None if it is missing or damaged, so that it must be written again."""
        with suppress(OciImageError):
            return self.manifest(descriptor)
        return None

    def add(self, data: bytes, media_type: str, **fields: object) -> Descriptor:
        """Write a small blob unless it is there and whole."""
        descriptor = Descriptor.of(data, media_type, **fields)
        if not self.has(descriptor):
            self.write_blob(lambda sink: sink.write(data))
        return descriptor

    def write_blob(
        self, write: Callable[[HashingSink], object], *, expected: Descriptor | None = None
    ) -> tuple[str, int]:
        """Write a blob as `write` gives it to the sink; returns its digest and size.

        Raises:
            OciImageError: it is not the `expected` one, which a registry should have given, and is not kept.
            StorageError: it cannot be written.
        """
        staging = self.folder / "blobs/sha256" / f"{_UNFINISHED}{os.getpid()}"
        with told(self.folder):
            try:
                with staging.open("wb") as file:
                    sink = HashingSink(file)
                    write(sink)
                if expected is not None and sink.digest != expected.digest:
                    raise OciImageError(f"its SHA-256 is {sink.digest.partition(':')[2]}; {DAMAGED}")
                os.replace(staging, staging.with_name(sink.digest.partition(":")[2]))
            finally:
                staging.unlink(missing_ok=True)
        return sink.digest, sink.size

    def find(self, reference: LayoutReference) -> Descriptor:
        """The descriptor of an image.

        Raises:
            OciImageError: the layout has no such tag or digest, or several tags where none is given.
        """
        tagged = {one.tag: one for one in self.index.manifests if one.tag is not None}
        known = few(sorted(tagged)) or "none"
        if reference.digest is not None:
            found = next((one for one in self.index.manifests if one.digest == reference.digest), None)
            if found is None:
                raise OciImageError(f"{self.folder}: no image {reference.digest}; the tags here: {known}")
            return found
        if reference.tag is None and len(tagged) != 1:
            raise OciImageError(f"{self.folder}: which image? Give {self.folder}:TAG; the tags here: {known}")
        tag = reference.tag or next(iter(tagged))
        if tag not in tagged:
            raise OciImageError(f"{self.folder}: no tag {tag}; the tags here: {known}")
        return tagged[tag]

    def check_tag(self, tag: str, *, lane: str) -> None:
        """Raises OciImageError if `tag` names an image of another lane; one with a damaged manifest may be replaced."""
        for one in self.index.manifests:
            manifest = self.whole_manifest(one) if one.tag == tag else None
            if manifest is not None and (there := manifest.annotation(LANE)) not in ("", lane):
                raise OciImageError(
                    f"{self.folder}:{tag}: names an image of the {there} lane, and the new one is of the {lane} lane; "
                    "give another tag"
                )

    def set_tag(self, tag: str, descriptor: Descriptor) -> None:
        """Let `tag` name an image, in one step."""
        named = descriptor.model_copy(update={"annotations": {REF_NAME: tag}})
        self._replace_index([*(one for one in self.index.manifests if one.tag != tag), named])

    def add_untagged(self, *descriptors: Descriptor) -> None:
        """Enter manifests without a tag, such as signatures; those that are there stay."""
        there = {one.digest for one in self.index.manifests}
        new = [one for one in descriptors if one.digest not in there]
        if new:
            self._replace_index([*self.index.manifests, *new])

    @contextmanager
    def with_untagged(self, *descriptors: Descriptor) -> Iterator[None]:
        """Enter manifests without a tag before the block, and take them back if it raises."""
        before = self.index.manifests
        self.add_untagged(*descriptors)
        try:
            yield
        except BaseException:
            self._replace_index([*before])
            raise

    def _replace_index(self, manifests: list[Descriptor]) -> None:
        ordered = sorted(manifests, key=lambda one: (one.tag or "", one.digest))
        write_file(self.folder / INDEX_FILE, Index(manifests=tuple(ordered)).to_bytes())

    def prune(self) -> None:
        """Remove everything that no tag leads to: images, artefacts of missing images, and blobs; also damaged
        files."""
        tagged = [one for one in self.index.manifests if one.tag is not None]
        kept = {one.digest: one for one in tagged if self.whole_manifest(one) is not None}
        others = [one for one in self.index.manifests if one.tag is None]
        while found := [one for one in others if one.digest not in kept and self._subject(one) in kept]:
            kept |= {one.digest: one for one in found}
        named = {one.hex for one in kept.values()}
        named |= {blob.hex for one in kept.values() for blob in self.manifest(one).blobs}
        self._replace_index([one for one in self.index.manifests if one.digest in kept])
        for path in (self.folder / "blobs/sha256").iterdir():
            if path.name not in named:
                path.unlink()

    def _subject(self, artefact: Descriptor) -> str | None:
        manifest = self.whole_manifest(artefact)
        return None if manifest is None or manifest.subject is None else manifest.subject.digest

    def referrers(self, subject: Descriptor) -> list[tuple[Descriptor, ImageManifest]]:
        """The artefacts of an image: its SBOM and its signatures."""
        found = []
        for one in self.index.manifests:
            if one.tag is None and one.media_type == MANIFEST:
                manifest = self._artefact(one)
                if manifest.subject is not None and manifest.subject.digest == subject.digest:
                    found.append((one, manifest))
        return found

    def attach(self, subject: Descriptor, data: bytes, media_type: str) -> Descriptor:
        """Add an artefact of one blob to an image; its type is that of the blob."""
        blob = self.add(data, media_type)
        artefact = ImageManifest(
            artifact_type=media_type, config=self.add(b"{}", EMPTY), layers=(blob,), subject=subject.bare()
        )
        descriptor = self.add(artefact.to_bytes(), MANIFEST, artifact_type=media_type)
        self.add_untagged(descriptor)
        return descriptor
