"""Every error that Slipway raises on purpose.

SlipwayError
├── SpecError               something that a user wrote (spec, option, name) is not allowed
├── DataError               the images are missing, unreadable or too few
├── StorageError            a file or folder cannot be written: full disk, no permission, a name that is too long
├── ManifestError           a file is missing or is not the one its manifest names
├── ExportError             a graph that cannot be served, or does not do what the trained network does
├── QuantizeError           the graph could not be quantised as asked
├── CompileError            a graph could not be compiled for a target
├── GateError               a gate did not pass: it failed, or could not tell
├── RepositoryError         a model repository cannot be written or is not one
├── ServingError            tritonserver could not be found, started or reached
└── MissingDependencyError  a library of an optional extra is not installed

A message says what was given, what is allowed and what to change. Scripts print it and exit non-zero.
"""


class SlipwayError(Exception):
    """Root of every error that is meant for the user; anything else is a bug of ours."""


class SpecError(SlipwayError):
    """A spec, option or name that is not allowed."""


class DataError(SlipwayError):
    """Images that are missing, unreadable or too few."""


class StorageError(SlipwayError):
    """A file or folder that cannot be written or read where it was asked for."""


class ManifestError(SlipwayError):
    """A file that is missing or differs from what its manifest recorded."""


class ExportError(SlipwayError):
    """A graph that cannot be served, or that disagrees with the network it came from."""


class QuantizeError(SlipwayError):
    """A graph that could not be quantised as asked."""


class CompileError(SlipwayError):
    """A graph that a target's compiler refused, or a plan that is not what was asked for."""


class GateError(SlipwayError):
    """A gate that did not pass."""


class RepositoryError(SlipwayError):
    """A model repository that cannot be written or read."""


class ServingError(SlipwayError):
    """A tritonserver that cannot be found, started or reached."""


class MissingDependencyError(SlipwayError):
    """A library of an optional extra that is not installed."""

    def __init__(self, module: str, *, extra: str) -> None:
        super().__init__(f"{module} is not installed: pip install 'slipway[{extra}]' (in a clone: make setup)")
