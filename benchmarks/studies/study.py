"""Common parts of the studies: their arguments, the origin and the file of a result, and the photographs."""

import argparse
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.system.arguments import Parser
from slipway.system.targets import file_option, write_file

if TYPE_CHECKING:
    from PIL import Image

    from slipway.contract.typed_file import Contract

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field"),
    *("ihc", "moon", "motorcycle_left", "retina", "rocket"),
)
"""The names of scikit-image's photographs."""


def provenance(libraries: Iterable[str]) -> dict[str, Any]:
    """Return time, commit, machine and library versions. Call it before the study measures: a commit that is made
    meanwhile is not what ran, and a result that is written changes the tree."""
    from slipway.contract.evidence.origin import Origin  # not at the top: --help needs no library

    return Origin.here(libraries).plain()


def finish(result: "Contract", arguments: argparse.Namespace) -> None:
    """Write the result where `--out` says, and the JSON line last."""
    if arguments.out:
        write_file(arguments.out, result.to_json())
        print(f"written to {arguments.out}", flush=True)
    if arguments.json:
        print(json.dumps(result.plain()))


def study_parser(
    doc: str | None, *, epilog: str, keys: tuple[str, ...], result: Path | None = None
) -> argparse.ArgumentParser:
    """Make the parser of a study, with the arguments that every study has: its result file, whose top level has one of
    `keys`, and `--json`.

    Args:
        result: the published result file, for a study that always writes one.
    """
    parser = Parser(description=doc, epilog=epilog, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--out",
        type=file_option(keys, what="a result of this study"),
        default=result,
        metavar="FILE",
        help=f"result file; default: {result.relative_to(ROOT) if result else 'none'}",
    )
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


def simulation_parser(doc: str | None, *, epilog: str, runs_of: str, result: Path, key: str) -> argparse.ArgumentParser:
    """Make the parser of a study that simulates; `runs_of` names the object of `--runs`."""
    parser = study_parser(doc, epilog=epilog, keys=(key,), result=result)
    add = parser.add_argument
    add("--runs", type=int, default=1000, metavar="N", help=f"number of runs of {runs_of}")
    add("--seed", type=int, default=0, help="seed of everything that is drawn")
    return parser


def scikit_image() -> Path:
    """Find the folder of scikit-image's photographs.

    Raises:
        DataError: scikit-image is not installed.
    """
    from slipway.contract import DataError

    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise DataError("scikit-image is not installed, and this study uses its photographs: make setup installs it")
    return Path(found.origin).parent / "data"


def load_photographs(folder: Path) -> "dict[str, Image.Image]":
    """Read RGB pictures by name: the photographs of `scikit_image()`, or every image of another folder.

    Raises:
        DataError: the folder has no image.
    """
    from PIL import Image

    from slipway.contract import DataError

    paths = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix in {".png", ".jpg", ".jpeg", ".webp"}}
    names = [name for name in PHOTOGRAPHS if name in paths] or list(paths)
    if not names:
        raise DataError(f"{folder}: no .png, .jpg, .jpeg or .webp in it")
    return {name: Image.open(paths[name]).convert("RGB") for name in names}
