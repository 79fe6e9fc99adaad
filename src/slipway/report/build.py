"""`Build`: everything that the stages before wrote for one bundle, opened with every hash checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar, get_args

from slipway.contract import Bundle, Choice, Engine, Manifest, ManifestError, SpecError
from slipway.contract.choice import FILE_NAME as CHOICE
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.engine import Target, engine_name, plan_name
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.report.evidence import Evaluation, Evidence, GraphFigures, Measured, Search
from slipway.system.files import sha256_file

EVALUATION, SEARCH, FAILED_SEARCH = "evaluation.json", "search.json", "int8-search.json"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
Read = TypeVar("Read", bound=Evidence)


@dataclass(frozen=True)
class BuiltEngine:
    """An engine folder with its evidence."""

    engine: Engine
    measured: Measured
    evaluation: Evaluation | None
    """None for a plan that proves only that its graph compiles."""
    size_bytes: int
    """Of the model file."""

    @classmethod
    def open(cls, path: Path, *, bundle: Bundle) -> Self:
        """Raises ManifestError: a broken link of the chain, or a folder of another name."""
        engine = Engine.open(path, bundle=bundle)
        settings = engine.settings
        capability = None if settings.plan is None else settings.plan.compute_capability
        expected = engine_name(settings.target, settings.precision, capability)
        if path.name != expected:
            raise ManifestError(f"{path}: this is the engine {expected}; give the folder that name again")
        evaluation = _read(Evaluation, path / EVALUATION)
        model = path / ("model.onnx" if settings.target == "openvino" else plan_name(capability))
        measured = Measured.parse(engine.manifest.measured, source=str(path / MANIFEST))
        return cls(engine, measured, evaluation, model.stat().st_size)

    @property
    def name(self) -> str:
        return self.engine.path.name

    @property
    def target(self) -> Target:
        return self.engine.settings.target

    @property
    def precision(self) -> str:
        return self.engine.settings.precision

    @property
    def manifest_sha256(self) -> str:
        return sha256_file(self.engine.path / MANIFEST)

    @property
    def compute_capability(self) -> str | None:
        plan = self.engine.settings.plan
        return None if plan is None else plan.compute_capability


@dataclass(frozen=True)
class Graph:
    """A graph folder."""

    measured: GraphFigures
    search: Search | None
    manifest_sha256: str

    @classmethod
    def open(cls, path: Path, *, bundle: Bundle) -> Self:
        """Raises ManifestError: a changed file, or a graph of another bundle."""
        manifest = Manifest.open(path, kind="graph")
        if manifest.bundle != bundle.id:
            raise ManifestError(
                f"{path}: made from bundle {str(manifest.bundle)[:12]}, and the bundle given is {bundle.id:.12}; "
                "quantise again"
            )
        return cls(
            measured=GraphFigures.parse(manifest.measured, source=str(path / MANIFEST)),
            search=_read(Search, path / SEARCH),
            manifest_sha256=sha256_file(path / MANIFEST),
        )


@dataclass(frozen=True)
class Build:
    """A bundle, and whatever there is of graphs, engines and choice."""

    bundle: Bundle
    evaluation: Evaluation | None
    dataset: Dataset | None
    graphs_path: Path
    graphs: Mapping[str, Graph]
    """By precision."""
    failed_search: Search | None
    """Of INT8, which left no graph: `int8-search.json`."""
    engines_path: Path
    engines: tuple[BuiltEngine, ...]
    """By target, compute capability and precision, FP32 first."""
    choice: Choice | None
    choice_flaw: str
    """Why there is no choice: none was made, or it is of other engines. Empty where there is one."""

    @classmethod
    def open(cls, bundle_path: Path, *, engines: Path, graphs: Path) -> Self:
        """Open every part that is there.

        Raises:
            ManifestError: a part that is changed, half-copied or of another bundle, by name.
            SpecError: `engines` is no folder, or a file of evidence that cannot be read.
        """
        bundle = Bundle.open(bundle_path)
        if not engines.is_dir():
            raise SpecError(f"{engines}: no such folder; give the one that slipway compile wrote its engines to")
        dataset = bundle.path / DATASET
        built = tuple(BuiltEngine.open(path, bundle=bundle) for path in _engine_folders(engines))
        choice, flaw = _open_choice(engines / CHOICE, bundle, built)
        folders = {precision: graphs / precision for precision in PRECISIONS}
        return cls(
            bundle=bundle,
            evaluation=_read(Evaluation, bundle.path / EVALUATION),
            dataset=Dataset.read(dataset) if dataset.is_file() else None,
            graphs_path=graphs,
            graphs={name: Graph.open(path, bundle=bundle) for name, path in folders.items() if path.is_dir()},
            failed_search=_read(Search, graphs / FAILED_SEARCH),
            engines_path=engines,
            engines=tuple(sorted(built, key=_place)),
            choice=choice,
            choice_flaw=flaw,
        )

    def engine(self, name: str) -> BuiltEngine | None:
        return next((engine for engine in self.engines if engine.name == name), None)

    def file(self, *parts: str) -> str:
        """A file of `engines`, as the page names it: equal wherever the build lies."""
        return "/".join((self.engines_path.name, *parts))


def _read(model: type[Read], path: Path) -> Read | None:
    """None where there is no such file. Raises SpecError: it is not what its name says."""
    return model.read(path) if path.is_file() else None


def _engine_folders(engines: Path) -> list[Path]:
    """Folders named `<target>-…`; others, such as compilers' caches, are nobody's engines."""
    targets = tuple(f"{target}-" for target in get_args(Target))
    return [path for path in engines.iterdir() if path.is_dir() and path.name.startswith(targets)]


def _place(engine: BuiltEngine) -> tuple[int, str, int]:
    target = get_args(Target).index(engine.target)
    return target, engine.compute_capability or "", PRECISIONS.index(engine.precision)


def _open_choice(path: Path, bundle: Bundle, engines: tuple[BuiltEngine, ...]) -> tuple[Choice | None, str]:
    """`choice.json`, or why there is none that counts: it is not sealed, but it names what it measured."""
    if not path.is_file():
        return None, "nobody has measured the engines against each other"
    choice = Choice.read(path)
    if choice.bundle != bundle.id:
        return None, f"{CHOICE} is of another bundle ({choice.bundle:.12})"
    chosen = next((engine for engine in engines if engine.name == choice.chosen), None)
    measured = {candidate.engine: candidate.manifest_sha256 for candidate in choice.candidates}
    if chosen is None or not chosen.engine.may_be_served or chosen.name not in measured:
        return None, f"{CHOICE} names {choice.chosen!r}, which is no engine that passed its gate and was measured"
    if measured[chosen.name] != chosen.manifest_sha256:
        return None, f"{chosen.name} was compiled again since {CHOICE} was measured"
    return choice, ""
