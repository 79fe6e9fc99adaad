"""Seeded defects: each changes a good repository in one place, and names the file and the rule that must be found.

`REPOSITORIES` makes the good ones: `example` is model_repository/example; `fleet` has two classifiers that share their
first step, and one ensemble that answers both; `gpu` is a gpu lane around a stand-in for its plan, which decodes in the
native form, `isolated` one in the isolated form, and `fallback` one that ONNX Runtime serves without a plan; `heads`
has a base and a group of heads, and `gpu_heads` the same on the gpu lane, around a stand-in for the base's plan.
"""

import atexit
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from slipway.repository import assemble
from tests.support import colours
from tests.support.colours import copy_colours
from tests.support.fallbacks import fallback_classifier
from tests.support.gpu_bases import base_plan, gpu_heads, head_form
from tests.support.gpu_lanes import gpu_classifier, with_gpu
from tests.support.heads import open_heads, write_base, write_heads
from tests.support.lint_changes import Change, model

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
Base = Literal["example", "fleet", "gpu", "isolated", "fallback", "heads", "gpu_heads"]
POST, ENGINE, FIRST = "post/config.pbtxt", "engine/config.pbtxt", "preprocess/config.pbtxt"
ONE, FULL = "colours/config.pbtxt", "colours_full/config.pbtxt"
"""Where most defects are."""
MADE_WITH = {"release": "26.08", "dali": "2.2.0", "nvimgcodec": "0.8.0.22"}
"""What the gpu lane's plan says of its evaluation."""
KINDS = ("preprocess", "guard", "decode", "engine", "post", "base", "heads")


@dataclass(frozen=True)
class Defect:
    """One change to a good repository."""

    name: str
    base: Base
    file: str
    """Where it must be found: `post/config.pbtxt`, with what the model is called in changes in place of its name."""
    rule: str
    change: Change
    seals: bool = True
    """The manifest is written anew, so that nothing but the defect is wrong."""
    runs: int = 1
    """How often the server is asked; more than once where it is a matter of luck, and of clients that give up."""

    @property
    def served(self) -> bool:
        """Whether the cpu lane's server can be asked what it does with it; the others wait for a GPU's."""
        return self.base not in ("gpu", "isolated", "fallback", "gpu_heads")

    def make(self, folder: Path) -> Path:
        """The repository with the defect in it."""
        repository = shutil.copytree(good(self.base), folder)
        self.change(repository)
        if self.seals:
            reseal(repository)
        return repository

    @property
    def path(self) -> str:
        """`file` with the model's own name, relative to the repository."""
        kind, _, rest = self.file.partition("/")
        is_step = kind.split(" ")[-1] in KINDS
        return f"{model(good(self.base), kind).name}/{rest}" if is_step else self.file


@cache
def good(base: Base) -> Path:
    """A good repository, made once; copy it."""
    folder = Path(tempfile.mkdtemp(prefix="lint-corpus-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if base in ("gpu", "isolated"):
        spec = with_gpu(decode="native" if base == "gpu" else base)
        assemble([gpu_classifier(folder / "in", "9.0", plan=MADE_WITH, spec=spec)], folder / base, lane="gpu")
        return folder / base
    if base == "fallback":
        assemble([fallback_classifier(folder / "in")], folder / base, lane="gpu")
        return folder / base
    if base == "heads":
        run = write_base(folder / "base")
        assemble([], folder / base, bases=open_heads(run, write_heads(folder / "in", run, 4)))
        return folder / base
    if base == "gpu_heads":
        run = write_base(folder / "base")
        heads, plan = write_heads(folder / "in", run, 4), base_plan(run, plan=MADE_WITH)
        for head in heads:
            head_form(head, plan)
        assemble([], folder / base, bases=gpu_heads(run, heads), lane="gpu")
        return folder / base
    return copy_example(folder) if base == "example" else make_fleet(folder)


def copy_example(folder: Path) -> Path:
    return shutil.copytree(EXAMPLE, folder / "example", ignore=shutil.ignore_patterns("__pycache__"))


def make_fleet(folder: Path) -> Path:
    """`colours` and `shades` share their first step; `page` asks both after one decode."""
    import onnx

    def other_graph(engine: Path) -> None:
        graph = onnx.load(engine / "model.onnx")
        graph.doc_string = "another graph"
        onnx.save(graph, engine / "model.onnx")

    def other_labels(bundle: Path) -> None:
        (bundle / "labels.txt").write_text("navy\nolive\nmaroon\n")

    first = copy_colours(folder / "colours")
    shades = copy_colours(folder / "shades", spec={"name": "shades"}, bundle=other_labels, engine=other_graph)
    assemble([first, shades], folder / "fleet", multi={"page": ("colours", "shades")})
    return folder / "fleet"


def reseal(repository: Path) -> None:
    """The hashes fit again, where they can be written."""
    with suppress(Exception):  # what is wrong is the manifest itself, or something that has no hash
        colours.reseal(repository)


def broken(
    rule: str, file: str, base: Base = "example", *, seals: bool = True, runs: int = 1, **changes: Change
) -> tuple[Defect, ...]:
    """One defect for each change, all found in `file` by `rule`."""
    return tuple(
        Defect(name.replace("_", "-"), base, file, rule, change, seals, runs) for name, change in changes.items()
    )
