"""Rules shared by several stages: what a lane serves, which class ids stay, which files are images, and when a server
is busy."""

from collections.abc import Callable, Sequence
from pathlib import Path

from slipway.contract.bundle import Bundle
from slipway.contract.choice import FILE_NAME as CHOICE
from slipway.contract.choice import Choice
from slipway.contract.engine import Engine
from slipway.contract.lane import LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Precision, Spec
from slipway.errors import RepositoryError
from slipway.system.files import sha256_file

SERVED: dict[LaneName, tuple[Precision, ...]] = {"cpu": ("int8", "bf16", "fp32"), "gpu": ("int8", "fp16", "fp32")}
"""Precisions that each lane serves. On the CPU an FP16 graph computes in FP32, so it does not count there."""
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".heic", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes of the files that are sent. The server judges their content: it refuses GIF and HEIC by a status."""
_BUSY = ("exceeds maximum queue size", "request timeout expired")


class NotChosenError(RepositoryError):
    """There is no valid choice between the engines."""


def listed(spec: Spec, *, lane: LaneName) -> list[Precision]:
    """The spec's precisions that the lane serves, in the lane's order. The gpu lane takes the first that passed."""
    return [precision for precision in SERVED[lane] if precision in spec.precisions]


def chosen_engine(bundle: Bundle, engines: Path) -> tuple[Choice, Engine]:
    """The cpu lane's engine, named by `choice.json`. That file is not sealed, but identifies the engines it measured.

    Raises:
        NotChosenError: the engines were not measured, or other engines were.
        ManifestError: the engine is damaged, or belongs to another bundle.
    """
    path = engines / CHOICE
    if not path.is_file():
        raise NotChosenError(f"no {CHOICE}, so it is not known which engine is the fastest")
    choice = Choice.read(path)
    if choice.bundle != bundle.id:
        raise NotChosenError(f"{CHOICE} was measured on bundle {choice.bundle:.12}, but the bundle is {bundle.id:.12}")
    chosen = {candidate.engine: candidate for candidate in choice.candidates}.get(choice.chosen)
    folder = engines / choice.chosen
    if chosen is None or folder.parent != engines or choice.chosen == ".." or not folder.is_dir():
        raise NotChosenError(f"{CHOICE} names {choice.chosen!r}, which is not a measured engine in this folder")
    engine = Engine.open(folder, bundle=bundle)
    if sha256_file(folder / MANIFEST) != chosen.manifest_sha256:
        raise NotChosenError(f"{choice.chosen} was compiled again since {CHOICE} was measured, and may be slower now")
    if not engine.may_be_served:
        raise NotChosenError(f"{CHOICE} names {choice.chosen!r}, but its accuracy gate says {engine.verdict!r}")
    return choice, engine


def served_plans(spec: Spec, plans: Callable[[Precision], Sequence[Engine]]) -> Sequence[Engine]:
    """The gpu lane's plans, one for each GPU, of the first listed precision whose plans all passed; or none.

    A failed plan would leave its GPU unserved, while another precision may serve them all.
    """
    for precision in listed(spec, lane="gpu"):
        found = plans(precision)
        if found and all(plan.may_be_served for plan in found):
            return found
    return ()


def changed_class(before: Sequence[str], after: Sequence[str]) -> tuple[int, str, str] | None:
    """The first class id whose label changed, with both labels. New classes come last."""
    pairs = enumerate(zip(before, after, strict=False))
    return next(((class_id, old, new) for class_id, (old, new) in pairs if old != new), None)


def is_busy(said: str) -> bool:
    """Whether tritonserver rejected a request because of load: it is alive, and may be asked again later."""
    return any(words in said.lower() for words in _BUSY)
