"""The work of `slipway head`: opens the base, tells whether the head is current, and fits it."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from slipway.contract import Bundle, BundleEngine, CompileError, ManifestError, SlipwayError, Spec, SpecError
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.bundle import BASE
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.engine import LANES
from slipway.contract.evidence.build import BundleMeasured
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.engines.embedders import Embedder, embedder_of
from slipway.engines.heads import build_head_engine
from slipway.steps.head import Head
from slipway.system.files import sha256_file
from slipway.system.targets import check_folder
from slipway.training.bundle.fit_decision import some_of_each_class
from slipway.training.data.dataset import check_top_k, scan
from slipway.training.data.sources import read_from
from slipway.training.heads.bundle import FittedHead, HeadOrigin, write_head
from slipway.training.heads.embeddings import FOLDER, Embeddings, embed
from slipway.training.heads.fit import Fitter
from slipway.training.heads.from_classifier import agreement, layers_of, prove, spec_of
from slipway.training.heads.spec import head_spec

REFERENCE = "openvino-fp32"


@dataclass
class Timings:
    """The seconds that each part of the work took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def spent(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[what] = round(time.monotonic() - started, 2)

    def __str__(self) -> str:
        return ", ".join(f"{what} {seconds:.1f} s" for what, seconds in self.seconds.items())


@dataclass(frozen=True)
class HeadRun:
    """A head that is wanted: its spec, its images and its base."""

    out: Path
    spec: Spec
    dataset: Dataset
    base: Base
    embedders: tuple[Embedder, ...]
    """The engines of the base that may be served, OpenVINO's FP32 first."""
    times: Timings
    classifier: Bundle | None = None
    """The whole classifier whose last layers become the head; None if it is fitted to the images."""

    @classmethod
    def open(cls, given: Path, base_run: Path, out: Path | None) -> "HeadRun":
        """Read everything that the head is made from.

        Args:
            given: its spec, or the folder of the run of a whole classifier.

        Raises:
            SpecError: the spec or classifier does not suit a head of this base, or `out` holds something else.
            ManifestError: the base or an engine of it is missing or damaged.
            DataError: the images cannot be used.
        """
        times, base = Timings(), Base.open(base_run / "base")
        embedders, classifier = _embedders(base, base_run), None
        if given.is_dir():
            classifier = Bundle.open(given / "bundle")
            spec = spec_of(classifier, base)
        else:
            spec = head_spec(given, base)
        out = out or Path("runs") / spec.name
        _check_out(out, spec, base_run, embedders, inputs=[given])
        with times.spent("reading images"):
            dataset = scan(spec.data, task=spec.task) if classifier is None else Dataset.read(classifier.path / DATASET)
        check_top_k(spec, dataset)
        return cls(out, spec, dataset, base, embedders, times, classifier)

    def changed(self) -> str | None:
        """Return the reason why the head in `out` is stale; None if it is current."""
        if not (self.out / "bundle").is_dir():
            return "a new head"
        try:
            bundle = Bundle.open(self.out / "bundle")
            return next(self._changes(bundle), None) or next(iter(self._stale_forms(bundle).values()), None)
        except SlipwayError as error:
            return str(error)

    def _changes(self, bundle: Bundle) -> Iterator[str]:
        """Yield the differences between the head in `out` and the one that would be fitted now, its forms aside."""
        if bundle.base is None or bundle.base.id != self.base.id:
            yield f"it stands on base {bundle.base.id if bundle.base else '':.12}, now {self.base.id:.12}"
        if bundle.spec != self.spec:
            yield "the spec changed"
        if Dataset.read(bundle.path / DATASET) != self.dataset:
            yield "the images changed"

    def _stale_forms(self, bundle: Bundle) -> dict[str, str]:
        """The forms to fit anew, each with the reason. One that was fitted to a plan stays where its GPU is missing."""
        stale = {}
        for name, embedder in self._sources.items():
            engine = embedder.engine
            try:
                form = BundleEngine.open(self.out / "engines" / name, bundle=bundle)
            except SlipwayError as error:
                stale[name] = str(error)
                continue
            if form.settings.base_engine_sha256 != sha256_file(engine.path / MANIFEST):
                stale[name] = f"{engine.path} was compiled again"
            elif form.settings.provider is not None and embedder.provider is None:
                stale[name] = f"{form.path} was fitted to the typed graph, and {engine.path} can be run here"
        return stale

    def _to_fit(self) -> tuple[Bundle | None, list[str]]:
        """The bundle, if it stays, and the names of the forms to fit."""
        try:
            bundle = Bundle.open(self.out / "bundle")
            if not any(self._changes(bundle)) and REFERENCE not in (stale := self._stale_forms(bundle)):
                return bundle, list(stale)
        except SlipwayError:
            pass  # missing or damaged: all of it is made anew
        return None, list(self._sources)

    def opened(self) -> tuple[Bundle, list[BundleEngine]]:
        """The head as it lies in `out`."""
        bundle = Bundle.open(self.out / "bundle")
        return bundle, [BundleEngine.open(self.out / "engines" / name, bundle=bundle) for name in self._sources]

    def fit(self) -> None:
        """Embed, fit, evaluate and write: the bundle by FP32 unless it stays, and the forms that are not current."""
        bundle, names = self._to_fit()
        sources = {name: self._sources[name] for name in dict.fromkeys((REFERENCE, *names))}
        with self.times.spent("embedding"):
            cache = self.base.path.parent / FOLDER
            found = embed(self.base, sources, self.dataset, self.dataset.images, cache=cache)
            single = {name: one for name, source in sources.items() if (one := source.by_single_images)}
            alone = embed(self.base, single, self.dataset, self.dataset.of("test"), cache=cache)
        train = self.dataset.of("train")
        with self.times.spent("fitting"):
            fitter = Fitter(self.spec, train, classes=len(self.dataset.labels))
            evidence = None if bundle is None else bundle.manifest.read_measured(BundleMeasured).head
            evidence = evidence or fitter.choose(found[REFERENCE].of(train))
            heads = {name: fitter.fit(given.of(train), strength=evidence.strength) for name, given in found.items()}
        origin = self._of_classifier(heads, found)
        with self.times.spent("evaluating"):
            if bundle is None:
                write_head(
                    self.out / "bundle",
                    FittedHead(heads[REFERENCE], evidence, origin),
                    spec=self.spec,
                    dataset=self.dataset,
                    base=self.base,
                    reference=self.embedders[0].engine,
                    embeddings=found[REFERENCE],
                )
            self._write_forms(names, heads, found, alone)

    def _of_classifier(self, heads: dict[str, Head], found: Mapping[str, Embeddings]) -> HeadOrigin:
        """Replace the FP32 head by the classifier's own last layers, if there is a classifier. For every other engine,
        choose between these layers and the fitted head: whichever agrees with them on more validation images in
        FP32."""
        if self.classifier is None:
            return HeadOrigin()
        with self.times.spent("comparing with the classifier"):
            own = heads[REFERENCE] = layers_of(self.classifier.path / "model.onnx")
            difference = prove(self.classifier, own, self.dataset, found[REFERENCE])
        validation = self.dataset.of("validation")
        expected = found[REFERENCE].answer(own, validation)
        for name, fitted in heads.items():
            both = {head: found[name].answer(head, validation) for head in (own, fitted)}
            heads[name] = max(both, key=lambda head: agreement(both[head], expected, task=self.spec.task))
        return HeadOrigin(
            "head of a classifier", {"classifier": sha256_file(self.classifier.path / MANIFEST)}, difference
        )

    def _write_forms(
        self,
        names: Sequence[str],
        heads: Mapping[str, Head],
        found: Mapping[str, Embeddings],
        alone: Mapping[str, Embeddings],
    ) -> None:
        bundle, dataset = Bundle.open(self.out / "bundle"), self.dataset
        there = REFERENCE not in names
        reference = BundleEngine.open(self.out / "engines" / REFERENCE, bundle=bundle) if there else None
        sample = some_of_each_class(dataset) if self.spec.task == "multiclass" else dataset.of("train")
        for name in names:
            head, embeddings = heads[name], found[name]
            form = build_head_engine(
                bundle,
                self._sources[name],
                head,
                self.out / "engines",
                train=embeddings.answer(head, sample),
                validation=embeddings.answer(head, dataset.of("validation")),
                test=embeddings.answer(head, dataset.of("test")),
                alone=alone[name].answer(head, dataset.of("test")) if name in alone else None,
                reference=reference,
            )
            reference = reference or form

    def left_over(self) -> list[Path]:
        """Forms of an earlier head for engines that the base does not serve now."""
        names = {engine.path.name for engine in _open_engines(self.base, self.base.path.parent / "engines")}
        return sorted(path for path in (self.out / "engines").iterdir() if path.is_dir() and path.name not in names)

    @property
    def _sources(self) -> dict[str, Embedder]:
        return {embedder.engine.path.name: embedder for embedder in self.embedders}


def _embedders(base: Base, run: Path) -> tuple[Embedder, ...]:
    """Return an embedder for each engine that may be served. An engine without one on this machine is named and left
    out.

    Raises:
        ManifestError: FP32 is missing, or an engine is damaged or of another base.
    """
    found: list[Embedder] = []
    for engine in _open_engines(base, run / "engines"):
        try:
            found.append(embedder_of(base, engine, run / "graphs"))
        except CompileError as error:
            print(f"no form for {engine.path.name}: {error}")
            continue
        if found[-1].stands_in:
            print(f"{engine.path}: its typed graph stands in for it, on the CPU, since {found[-1].stands_in}")
    return tuple(found)


def _open_engines(base: Base, folder: Path) -> list[BaseEngine]:
    """Raises ManifestError: FP32 is missing, or an engine is damaged or of another base."""
    patterns = (f"{target}-*" for target, lane in LANES.items() if lane is not None)
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern) if (path / MANIFEST).is_file())
    opened = [BaseEngine.open(path, base=base) for path in paths]
    served = sorted((e for e in opened if e.may_be_served), key=lambda engine: engine.path.name != REFERENCE)
    if not served or served[0].path.name != REFERENCE:
        raise ManifestError(
            f"{folder / REFERENCE}: no such engine, which the others are compared with; run slipway base again"
        )
    return served


def _check_out(
    out: Path, spec: Spec, base_run: Path, embedders: tuple[Embedder, ...], *, inputs: Iterable[Path]
) -> None:
    """Raises SpecError: the head would replace something else, or lie in one of its inputs."""
    bundle = out / "bundle"
    inputs = [base_run, *inputs, *read_from(spec.data, out=bundle)]
    check_folder(bundle, kind="bundle", inputs=inputs)
    for embedder in embedders:
        check_folder(out / "engines" / embedder.engine.path.name, kind="engine", inputs=inputs)
    if (bundle / MANIFEST).is_file() and not (bundle / BASE).is_file():
        raise SpecError(f"{bundle}: a classifier with a graph of its own, not a head; give another folder: --out RUN")
