"""Rules shared by several stages: the engines of a lane, stable class ids, the suffixes of images, and the signs of a
busy server."""

import re
from collections.abc import Sequence
from pathlib import Path

from slipway.contract.base_bundle import AnyEngine_co, BaseSpec, Owner
from slipway.contract.choice import FILE_NAME, Choice
from slipway.contract.engine import engine_name
from slipway.contract.lane import LaneName
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Precision, Spec
from slipway.errors import RepositoryError
from slipway.system.files import sha256_file

SERVED: dict[LaneName, tuple[Precision, ...]] = {
    "cpu": ("int8", "bf16", "fp32"),
    "gpu": ("int8", "fp8", "fp16", "fp32"),
}
"""Precisions that each lane serves. On the CPU an FP16 graph computes in FP32, so it does not count there."""
NOT_EVERYWHERE: tuple[Precision, ...] = ("bf16", "fp8")
"""Precisions that not every processor or GPU has: where one cannot be compiled, the others are built all the same."""
FALLBACKS: tuple[Precision, ...] = ("fp16", "int8", "fp32")
"""Precisions of the gpu lane's engine without a plan, the first one first: none was measured. FP16 is fast in both of
ONNX Runtime's providers for NVIDIA's GPUs; in the CUDA provider Q/DQ nodes only add work. FP8 is missing, since ONNX
Runtime's optimiser makes FP8 graphs that it then rejects."""
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".heic", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes of the files that are sent. The server judges their content: it refuses GIF and HEIC by a status."""
_LEFT_OUT = " is left out: "
_BUSY = ("exceeds maximum queue size", "request timeout expired")


class NotChosenError(RepositoryError):
    """No valid choice between the engines exists."""


def listed(spec: Spec | BaseSpec, *, lane: LaneName) -> list[Precision]:
    """The spec's precisions that the lane serves, in the lane's order."""
    return [precision for precision in SERVED[lane] if precision in spec.precisions]


def has_fp8(compute_capability: str) -> bool:
    """Whether a GPU computes in FP8: those from 8.9 on (Ada, Hopper, Blackwell)."""
    return tuple(map(int, compute_capability.split("."))) >= (8, 9)


def chosen_engine(bundle: Owner[AnyEngine_co], engines: Path, *, file: str = FILE_NAME) -> tuple[Choice, AnyEngine_co]:
    """The engine that a choice names (`choice.json` for the cpu lane). The file is not sealed, but records its
    measurements.

    Raises:
        NotChosenError: the engines were not measured, or other engines were.
        ManifestError: the engine is damaged, or belongs to another bundle.
    """
    path = engines / file
    if not path.is_file():
        raise NotChosenError(f"no {file}, so it is not known which engine is the fastest")
    choice = Choice.read(path)
    if choice.bundle != bundle.id:
        raise NotChosenError(f"{file} was measured on bundle {choice.bundle:.12}, but the bundle is {bundle.id:.12}")
    chosen = {candidate.engine: candidate for candidate in choice.candidates}.get(choice.chosen)
    folder = engines / choice.chosen
    if chosen is None or folder.parent != engines or choice.chosen == ".." or not folder.is_dir():
        raise NotChosenError(f"{file} names {choice.chosen!r}, which is not a measured engine in this folder")
    engine = bundle.open_engine(folder)
    if sha256_file(folder / MANIFEST) != chosen.manifest_sha256:
        raise NotChosenError(f"{choice.chosen} was compiled again since {file} was measured, and may be slower now")
    if not engine.may_be_served:
        raise NotChosenError(f"{file} names {choice.chosen!r}, but its accuracy gate says {engine.verdict!r}")
    return choice, engine


def plan_folders(spec: Spec | BaseSpec, engines: Path) -> list[Path]:
    """The folders of the plans of the listed precisions, for every GPU. A copy beside them, such as
    `tensorrt-int8-sm90.old`, is none: no choice would ever be made for it."""
    precisions = "|".join(listed(spec, lane="gpu"))
    name = re.compile(rf"tensorrt-({precisions})-sm\d+")
    return sorted(path for path in engines.glob("tensorrt-*") if name.fullmatch(path.name) and path.is_dir())


def chosen_plans(bundle: Owner[AnyEngine_co], engines: Path) -> list[tuple[Choice, AnyEngine_co]]:
    """The gpu lane's plans: for each compute capability with plans of a listed precision, the chosen one. Where none
    of them passed its gate, there is nothing to choose from, and the capability is left out.

    Raises:
        NotChosenError: the plans of a compute capability were not measured, or other plans were.
        ManifestError: a chosen plan is damaged, or belongs to another bundle.
    """
    plans = plan_folders(bundle.spec, engines)
    chosen = []
    for suffix in sorted({path.name.rpartition("-")[2] for path in plans}):
        try:
            chosen.append(chosen_engine(bundle, engines, file=f"choice-{suffix}.json"))
        except NotChosenError:
            same_gpu = (bundle.open_engine(path) for path in plans if path.name.endswith(f"-{suffix}"))
            if any(plan.may_be_served for plan in same_gpu):
                raise
    return chosen


def fallback_engine(bundle: Owner[AnyEngine_co], engines: Path) -> AnyEngine_co | None:
    """The engine of ONNX Runtime that the gpu lane may serve instead of a plan; None if none passed its gate.

    Raises:
        ManifestError: the engine is damaged, or belongs to another bundle.
    """
    listed_here = (precision for precision in FALLBACKS if precision in bundle.spec.precisions)
    folders = (engines / engine_name("onnxruntime", precision) for precision in listed_here)
    opened = (bundle.open_engine(folder) for folder in folders if folder.is_dir())
    return next((engine for engine in opened if engine.may_be_served), None)


def changed_class(before: Sequence[str], after: Sequence[str]) -> tuple[int, str, str] | None:
    """The first class id whose label changed, with both labels. New classes come last."""
    pairs = enumerate(zip(before, after, strict=False))
    return next(((class_id, old, new) for class_id, (old, new) in pairs if old != new), None)


def is_left_out(said: str, head: str) -> bool:
    """Whether a group of heads answered that it could not load this one, whatever becomes of the others."""
    return f"head {head}{_LEFT_OUT}" in said


def is_busy(said: str) -> bool:
    """Whether tritonserver rejected a request because of load: it is alive, and may be asked again later."""
    return any(words in said.lower() for words in _BUSY)
