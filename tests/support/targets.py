"""Folders of every kind, and the stages that write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from slipway.contract import Bundle, Manifest
from slipway.contract.search_space import SearchSpace
from slipway.engines import build_engine, quantize
from slipway.repository import open_engines, plan_repository
from slipway.system.targets import MARKERS, FolderKind, Sealed
from slipway.training import export, import_onnx, import_timm, train
from slipway.training.data.demo_data import write_digits, write_pages
from slipway.training.data.inspection import inspect
from slipway.training.search.hyperparameters import search
from slipway.training.search.label_errors import find_label_errors
from tests.support.colour_training import small_spec
from tests.support.colours import COLOURS

ROOT = Path(__file__).parents[2]
SEALED: tuple[FolderKind, ...] = get_args(Sealed)
KINDS: tuple[FolderKind, ...] = (*SEALED, *(kind for kind in MARKERS if kind not in SEALED))
SPACE = SearchSpace.parse(
    {"metric": "val_loss", "parameters": {"recipe.learning_rate": {"low": 0.001, "high": 0.01}}}, source="test"
)
ABSENT = Path("absent")
"""Read by no stage, since every refusal comes first."""


def compile_to(out: Path) -> None:
    """Where engine folders are written into a folder that the user names, that one is the engine's."""
    out.rename(folder := out.with_name("openvino-fp32"))
    build_engine(bundle(), ABSENT, folder.parent, target="openvino", precision="fp32", reference=None)


def assemble_to(out: Path) -> None:
    plan_repository([open_engines(bundle(), [COLOURS / "engine"], lane="cpu")], out)


def bundle() -> Bundle:
    return Bundle.open(COLOURS / "bundle")


def spec(root: Path = ABSENT) -> Any:
    return small_spec(root)


STAGES: dict[str, tuple[FolderKind, Callable[[Path], Any]]] = {
    "train": ("checkpoint", lambda out: train(spec(), out)),
    "export": ("bundle", lambda out: export(ABSENT, out)),
    "import an ONNX file": ("bundle", lambda out: import_onnx(spec(), ABSENT, out, labels=None)),
    "import timm weights": ("bundle", lambda out: import_timm(spec(), ABSENT, out, labels=None)),
    "quantize": ("graph", lambda out: quantize(bundle(), out)),
    "compile": ("engine", compile_to),
    "assemble": ("repository", assemble_to),
    "inspect": ("inspection", lambda out: inspect(spec(make_data(out.parent)), out)),
    "find_label_errors": ("label errors", lambda out: find_label_errors(spec(), out, folds=2, seed=0)),
    "search": ("search", lambda out: search(spec(), SPACE, out, trials=1, seed=0)),
    "make_digits": ("digits", lambda out: write_digits(out, seed=0)),
    "make_pages": ("pages", lambda out: write_pages(out, pages=1, seed=0)),
}


def make_data(folder: Path) -> Path:
    """As little as `inspect` wants before it writes."""
    for name in ("data/a/1.png", "data/b/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder / "data"


def make(folder: Path, kind: FolderKind) -> Path:
    """What a stage of this kind leaves, with a file that must not be lost."""
    folder.mkdir(parents=True)
    (folder / "precious").write_text("precious")
    if kind in SEALED:
        Manifest.seal(folder, kind=kind, name="colours")  # type: ignore[arg-type]
    else:
        (folder / MARKERS[kind]).touch()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
