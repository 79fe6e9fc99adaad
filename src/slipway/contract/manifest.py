"""`Manifest`: a stage's inputs, outputs, versions and measurements. It links one folder to the next."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeAlias, TypeVar

from pydantic import Field

from slipway.contract.evidence.origin import commit, now, versions
from slipway.contract.typed_file import Contract, Evidence
from slipway.errors import ManifestError, SpecError
from slipway.system.files import Identity, files_below, identities_below, sha256_bytes, sha256_file
from slipway.system.targets import MANIFEST, Sealed

FILE_NAME = MANIFEST
Kind = Sealed
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Found = TypeVar("Found", bound=Evidence)
Known: TypeAlias = Mapping[str, tuple[Sha256, Identity]]
"""Files that were hashed before, by relative path: the sha256, and the identity by which the file is known to be
unchanged."""
NONE_KNOWN: Known = MappingProxyType({})


class Manifest(Contract):
    """The contents of one stage's folder and their origin."""

    kind: Kind
    name: str
    """Name of the classifier; of a repository, its lane."""
    bundle: str | None = None
    """Bundle id; None for a checkpoint, which precedes the bundle."""
    inputs: dict[str, Sha256] = Field(default_factory=dict)
    outputs: dict[str, Sha256]
    """sha256 of every other file in the folder, by relative path."""
    versions: dict[str, str] = Field(default_factory=dict)
    seed: int | None = None
    commit: str | None = None
    created: str | None = None
    measured: dict[str, Any] = Field(default_factory=dict)
    """The stage's measurements as JSON, which `read_measured` parses."""
    own_sha256: Sha256 | None = None
    """sha256 of this manifest without this field; `write` fills it in."""

    def write(self, path: Path) -> None:
        sealed = self.model_copy(update={"own_sha256": _digest_of(self.to_json())})
        path.write_text(sealed.to_json(), encoding="utf-8")

    @classmethod
    def open(
        cls, folder: Path, *, kind: Kind, known: Known = NONE_KNOWN, found: Mapping[str, Identity] | None = None
    ) -> Self:
        """Read the manifest of `folder` and check every file against it, but for those that are `known`. The
        arguments are those of `verify`.

        A newer folder may replace this one meanwhile (`files.complete_folder`). The result then describes one of the
        two completely; if files of both were read, an error is raised, and opening again succeeds. A caller that needs
        the files themselves links or copies them first and opens the copy.

        Raises:
            ManifestError: the folder is absent or of another kind, or a file is missing, added or changed; names it.
        """
        if not (folder / FILE_NAME).is_file():
            raise ManifestError(f"{folder}: no {FILE_NAME} here; give the folder of a complete {kind}")
        try:
            manifest = cls.read(folder / FILE_NAME)
        except SpecError as error:
            raise ManifestError(str(error)) from None
        text = (folder / FILE_NAME).read_text(encoding="utf-8")
        if text != manifest.to_json() or manifest.own_sha256 != _digest_of(text):
            raise ManifestError(f"{folder / FILE_NAME}: changed since this {manifest.kind} was made; build it again")
        if manifest.kind != kind:
            raise ManifestError(
                f"{folder}: this folder is of kind {manifest.kind}, but kind {kind} is needed; give the folder of one"
            )
        manifest.verify(folder, known=known, found=found)
        return manifest

    def verify(self, folder: Path, *, known: Known = NONE_KNOWN, found: Mapping[str, Identity] | None = None) -> None:
        """Check every file of `folder` against the recorded hashes, but for those that are `known`.

        Args:
            found: the files of the folder, as `identities_below` gives them, if the caller has listed them already.
        """
        found = identities_below(folder) if found is None else found
        present = found.keys() - {FILE_NAME}
        for path in sorted(self.outputs.keys() - present):
            raise ManifestError(f"{folder / path}: missing; the manifest of this {self.kind} names it")
        for path in sorted(present - self.outputs.keys()):
            raise ManifestError(f"{folder / path}: not in the manifest of this {self.kind}; remove it or build again")
        for path, expected in sorted(self.outputs.items()):
            if known.get(path) == (expected, found[path]):
                continue
            sha256 = sha256_file(f"{folder}/{path}")
            if sha256 != expected:
                raise ManifestError(
                    f"{folder / path}: changed since this {self.kind} was made "
                    f"(sha256 {sha256[:12]}, recorded {expected[:12]}); build it again"
                )

    def read_measured(self, model: type[Found]) -> Found:
        """The stage's measurements.

        Raises:
            ManifestError: another release wrote them; names the fields.
        """
        try:
            return model.parse(self.measured, source=f"what this {self.kind} measured")
        except SpecError as error:
            raise ManifestError(f"{error}\n  another release made it; build it again") from None

    @classmethod
    def seal(
        cls,
        folder: Path,
        *,
        kind: Kind,
        name: str,
        bundle: str | None = None,
        inputs: Mapping[str, str] | None = None,
        libraries: Iterable[str] = (),
        versions_before: Mapping[str, str] | None = None,
        seed: int | None = None,
        measured: Evidence | Mapping[str, Any] | None = None,
    ) -> Self:
        """Hash everything in `folder` and write its manifest, with time, commit and library versions.

        `versions_before` holds versions that an earlier stage recorded and this one did not use itself.
        """
        manifest = cls.parse(
            {
                "kind": kind,
                "name": name,
                "bundle": bundle,
                "inputs": dict(inputs or {}),
                "outputs": hashes(folder),
                "versions": {**(versions_before or {}), **versions(libraries)},
                "seed": seed,
                "commit": commit(),
                "created": now(),
                "measured": measured.plain() if isinstance(measured, Evidence) else dict(measured or {}),
            },
            source=str(folder / FILE_NAME),
        )
        manifest.write(folder / FILE_NAME)
        return manifest


def _digest_of(text: str) -> str:
    """sha256 of a manifest's text without its own hash. Two spaces begin the lines of the outermost object alone."""
    return sha256_bytes(re.sub(r'(?m)^  "own_sha256": .*$', '  "own_sha256": null,', text).encode())


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder` except the manifest, by relative path."""
    return {name: sha256_file(path) for name, path in files_below(folder).items() if name != FILE_NAME}
