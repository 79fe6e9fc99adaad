"""Checks of what is assembled: engines that passed and belong to the lane, stable class ids, the lane's own rules."""

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise

from slipway.contract import Bundle, BundleEngine, RepositoryError
from slipway.contract.engine import LANES
from slipway.contract.lane import LaneName
from slipway.contract.shared_rules import changed_class
from slipway.repository.classifier import Classifier
from slipway.repository.heads import ServedBase


def check_names(names: Collection[str]) -> None:
    """Raises RepositoryError: no classifier is given, or two have the same name."""
    if not names:
        raise RepositoryError("no classifier given; a repository serves at least one")
    if len(set(names)) != len(names):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        raise RepositoryError(f"classifiers {', '.join(twice)}: each name may appear once; rename one in its spec")


def check(classifiers: Sequence[Classifier], *, lane: LaneName, decoder: str) -> None:
    """Raises RepositoryError: a classifier cannot be served; names the cause and the remedy. Whether all can be served
    together, the lane's own `check` says. `decoder` is the lane's."""
    for classifier in classifiers:
        for version in classifier.versions:
            for engine in version.engines:
                _check_engine(engine, version, lane, decoder)
        _check_class_ids(classifier)


def _check_engine(engine: BundleEngine, classifier: Classifier, lane: LaneName, decoder: str) -> None:
    settings = engine.settings
    _check_head(engine, classifier)
    if LANES[settings.target] is None:
        raise RepositoryError(
            f"{engine.path}: compiled by {settings.target}, which only proves that a graph compiles; "
            "Triton cannot load its plans: compile with --target tensorrt"
        )
    if LANES[settings.target] != lane:
        raise RepositoryError(
            f"{engine.path}: compiled by {settings.target} for the {LANES[settings.target]} lane, but this is the "
            f"{lane} lane; assemble the {LANES[settings.target]} lane (--lane, or lane in the fleet file), or give an "
            "engine of this one"
        )
    if not engine.may_be_served:
        raise RepositoryError(
            f"{engine.path}: the accuracy gate says {engine.verdict!r}, but only engines that passed can be served; "
            "see its evaluation.json"
        )
    if settings.classes != len(classifier.bundle.labels):
        raise RepositoryError(
            f"{classifier.bundle.path}: {len(classifier.bundle.labels)} labels for {settings.classes} logits of "
            f"{engine.path}; give an engine that was compiled from this bundle"
        )
    # What ONNX Runtime computed was for a GPU that was not there, so its images were decoded on a CPU, as it records.
    if settings.decoder != decoder and settings.provider is None and settings.target != "onnxruntime":
        raise RepositoryError(
            f"{engine.path}: evaluated with decoder {settings.decoder}, but the {lane} lane decodes with {decoder}; "
            "compile it again where that decoder is available"
        )


def check_base(bundle: Bundle, served: ServedBase | None) -> None:
    """Raises RepositoryError: `bundle` is a head without its base, or a whole classifier with one."""
    link = bundle.base
    if link is None and served is None:
        return
    if link is None or served is None:
        is_head = "a head, which needs its base" if served is None else "a whole classifier, which needs no base"
        where = "name it below bases" if served is None else "name it below classifiers"
        raise RepositoryError(f"{bundle.path}: {is_head}: {where} in the fleet file")
    if link.id != served.base.id:
        raise RepositoryError(
            f"{bundle.path}: a head on base {link.name} {link.id:.12}, but {served.base.path} is base "
            f"{served.base.id:.12}; fit it again (slipway head)"
        )


def _check_head(engine: BundleEngine, classifier: Classifier) -> None:
    """Check that a head, and only a head, stands on its base, and was fitted to the embeddings of the served engine."""
    served = classifier.base
    check_base(classifier.bundle, served)
    if served is not None and engine.settings.base_engine_sha256 not in served.engine_manifests.values():
        folders = " or ".join(str(own.path) for own in served.engines)
        raise RepositoryError(
            f"{engine.path}: fitted to other embeddings than those of {folders}; fit it again (slipway head)"
        )


def _check_class_ids(classifier: Classifier) -> None:
    """Check that, among all versions, a shorter list of labels begins every longer one."""
    bundles = sorted((version.bundle for version in classifier.versions), key=lambda bundle: len(bundle.labels))
    for shorter, longer in pairwise(bundles):
        if changed := changed_class(shorter.labels, longer.labels):
            class_id, label, other = changed
            raise RepositoryError(
                f"{classifier.name}: class {class_id} is {label!r} in {shorter.path} and {other!r} in "
                f"{longer.path}; class ids must stay the same across versions, with new classes last: give the "
                "labels the same order, or remove one of the two from keep"
            )
