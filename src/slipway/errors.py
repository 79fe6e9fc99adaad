"""Every error that Slipway raises on purpose.

SlipwayError
├── SpecError               a spec, option or name that the user gave is invalid
├── DataError               the images are missing, unreadable or too few
├── StorageError            a file or folder cannot be written: full disk, no permission, a name that is too long
├── ManifestError           a file is missing, or differs from its manifest
├── ExportError             a graph cannot be served, or disagrees with the trained network
├── QuantizeError           a graph could not be quantised as requested
├── CompileError            a graph could not be compiled for a target
├── GateError               a gate did not pass: it failed, or could not tell
├── RepositoryError         a model repository cannot be written or read
├── OciImageError           an OCI image cannot be read, verified, pushed or pulled
├── ServingError            tritonserver could not be found, started or reached
└── MissingDependencyError  a library of an optional extra is not installed

A message names the given value, the allowed ones and the remedy. The command prints it and exits non-zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class SlipwayError(Exception):
    """Root of all errors that are meant for the user; any other exception is a bug of Slipway."""


class SpecError(SlipwayError):
    """A spec, option or name is invalid."""


class DataError(SlipwayError):
    """Images are missing, unreadable or too few."""


class StorageError(SlipwayError):
    """A file or folder cannot be written or read."""


class ManifestError(SlipwayError):
    """A file is missing, or differs from its manifest."""


class ExportError(SlipwayError):
    """A graph cannot be served, or disagrees with the network that it came from."""


class QuantizeError(SlipwayError):
    """A graph could not be quantised as requested."""


class CompileError(SlipwayError):
    """A compiler refused a graph, or built a plan that differs from the requested one."""


class GateError(SlipwayError):
    """A gate did not pass."""


class RepositoryError(SlipwayError):
    """A model repository cannot be written or read."""


class OciImageError(SlipwayError):
    """An OCI image cannot be read, verified, pushed or pulled."""


class ServingError(SlipwayError):
    """A tritonserver cannot be found, started or reached."""


class MissingDependencyError(SlipwayError):
    """A library of an optional extra is not installed."""

    def __init__(self, module: str, *, extra: str) -> None:
        super().__init__(f"{module} is not installed: pip install 'slipway[{extra}]' (in a clone: make setup)")


@contextmanager
def requiring(module: str, *, extra: str) -> Iterator[None]:
    """Raises MissingDependencyError for an import in the block that fails."""
    try:
        yield
    except ImportError:
        raise MissingDependencyError(module, extra=extra) from None
