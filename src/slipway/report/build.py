"""Opens a `Build`, everything that the earlier stages wrote for one bundle, and checks every hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

from slipway.contract import Bundle, BundleEngine, Choice, Manifest, ManifestError, SpecError
from slipway.contract.bundle import HEAD
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.engine import RUNTIMES, Target, plan_name
from slipway.contract.evidence.build import FAILED_SUFFIX, SEARCH, EngineMeasured, GraphMeasured, SensitivitySearch
from slipway.contract.evidence.evaluation import (
    EVALUATION,
    AnyBundleEvaluation,
    AnyEngineEvaluation,
    read_bundle_evaluation,
    read_engine_evaluation,
)
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.shared_rules import NotChosenError, chosen_engine, chosen_plans
from slipway.system.files import sha256_file

FAILED_SEARCH = f"int8{FAILED_SUFFIX}"
PRECISIONS = ("fp32", "bf16", "fp16", "fp8", "int8")


@dataclass(frozen=True)
class BuiltEngine:
    """An engine folder with its evidence."""

    engine: BundleEngine
    measured: EngineMeasured
    evaluation: AnyEngineEvaluation | None
    """The engine's evaluation; None for a plan that proves only that its graph compiles."""
    size_bytes: int
    """Size of the model file in bytes."""

    @classmethod
    def open(cls, path: Path, *, bundle: Bundle) -> Self:
        """Raises ManifestError: a link of the chain is broken, or the folder has another name."""
        engine = BundleEngine.open(path, bundle=bundle)
        settings = engine.settings
        capability = None if settings.plan is None else settings.plan.compute_capability
        if path.name != settings.name:
            raise ManifestError(f"{path}: holds the engine {settings.name}; rename the folder to that")
        evaluated = (path / EVALUATION).is_file()
        evaluation = read_engine_evaluation(path, task=bundle.decision.task) if evaluated else None
        graph = "model.onnx" if settings.target in RUNTIMES else plan_name(capability)
        model = path / (graph if bundle.base is None else HEAD)
        measured = engine.manifest.read_measured(EngineMeasured)
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
class BuiltGraph:
    """A graph folder with its evidence."""

    measured: GraphMeasured
    search: SensitivitySearch | None
    manifest_sha256: str

    @classmethod
    def open(cls, path: Path, *, bundle: Bundle) -> Self:
        """Raises ManifestError: a file has changed, or the graph belongs to another bundle."""
        manifest = Manifest.open(path, kind="graph")
        if manifest.bundle != bundle.id:
            raise ManifestError(
                f"{path}: made from bundle {str(manifest.bundle)[:12]}, but the given bundle is {bundle.id:.12}; "
                "quantise again"
            )
        return cls(
            measured=manifest.read_measured(GraphMeasured),
            search=_read_search(path / SEARCH),
            manifest_sha256=sha256_file(path / MANIFEST),
        )


@dataclass(frozen=True)
class Build:
    """A bundle with its graphs, engines and choice, as far as they exist."""

    bundle: Bundle
    evaluation: AnyBundleEvaluation | None
    dataset: Dataset | None
    graphs_path: Path
    graphs: Mapping[str, BuiltGraph]
    """The graphs by precision."""
    failed_search: SensitivitySearch | None
    """The failed search for an INT8 graph, from `int8-search.json`; None where there was none."""
    engines_path: Path
    engines: tuple[BuiltEngine, ...]
    """The engines, sorted by target, compute capability and precision, FP32 first."""
    choice: Choice | None
    choice_flaw: str
    """The reason why there is no choice: none was made, or it is of other engines. Empty where there is one."""
    plan_choices: tuple[Choice, ...]
    """The choices between plans, one for each compute capability, or none at all."""
    plan_flaw: str
    """The reason why there is no choice between plans; empty where there is one for each compute capability."""

    @classmethod
    def open(cls, bundle_path: Path, *, engines: Path, graphs: Path) -> Self:
        """Open every part that exists.

        Raises:
            ManifestError: a part, named in the message, has changed, is half-copied or belongs to another bundle.
            SpecError: `engines` is not a folder, or a file of evidence cannot be read.
        """
        bundle = Bundle.open(bundle_path)
        if not engines.is_dir():
            raise SpecError(f"{engines}: no such folder; give the folder that slipway compile wrote engines to")
        dataset, evaluated = bundle.path / DATASET, (bundle.path / EVALUATION).is_file()
        built = tuple(BuiltEngine.open(path, bundle=bundle) for path in _engine_folders(engines))
        choice, flaw = _open_choice(bundle, engines)
        plan_choices, plan_flaw = _open_plan_choices(bundle, engines)
        folders = {precision: graphs / precision for precision in PRECISIONS}
        return cls(
            bundle=bundle,
            evaluation=read_bundle_evaluation(bundle.path, task=bundle.decision.task) if evaluated else None,
            dataset=Dataset.read(dataset) if dataset.is_file() else None,
            graphs_path=graphs,
            graphs={name: BuiltGraph.open(path, bundle=bundle) for name, path in folders.items() if path.is_dir()},
            failed_search=_read_search(graphs / FAILED_SEARCH),
            engines_path=engines,
            engines=tuple(sorted(built, key=_place)),
            choice=choice,
            choice_flaw=flaw,
            plan_choices=plan_choices,
            plan_flaw=plan_flaw,
        )

    def engine(self, name: str) -> BuiltEngine | None:
        return next((engine for engine in self.engines if engine.name == name), None)

    def file(self, *parts: str) -> str:
        """Return the page's name of a file in `engines`, which does not depend on where the build lies."""
        return "/".join((self.engines_path.name, *parts))


def _read_search(path: Path) -> SensitivitySearch | None:
    """Return None where the file does not exist. Raises SpecError: the file holds something else."""
    return SensitivitySearch.read(path) if path.is_file() else None


def _engine_folders(engines: Path) -> list[Path]:
    """Return the folders named `<target>-…`; others, such as compilers' caches, are not engines."""
    targets = tuple(f"{target}-" for target in get_args(Target))
    return [path for path in engines.iterdir() if path.is_dir() and path.name.startswith(targets)]


def _place(engine: BuiltEngine) -> tuple[int, str, int]:
    target = get_args(Target).index(engine.target)
    return target, engine.compute_capability or "", PRECISIONS.index(engine.precision)


def _open_choice(bundle: Bundle, engines: Path) -> tuple[Choice | None, str]:
    """Return the choice for the cpu lane, or the reason why there is none."""
    if bundle.base is not None:
        return None, f"{bundle.base.name}, the base of this head, was compared as a whole, and has the choice"
    try:
        return chosen_engine(bundle, engines)[0], ""
    except NotChosenError as error:
        return None, str(error)


def _open_plan_choices(bundle: Bundle, engines: Path) -> tuple[tuple[Choice, ...], str]:
    """Return the choices of the gpu lane, or the reason why there are none."""
    try:
        return tuple(choice for choice, _ in chosen_plans(bundle, engines)), ""
    except NotChosenError as error:
        return (), str(error)
