"""Assembles bundles and engines into a model repository for Triton, whole or not at all."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from slipway.contract import Lane, RepositoryError
from slipway.contract.lane import LaneName
from slipway.repository.checks import check, check_names
from slipway.repository.classifier import Classifier
from slipway.repository.contents import contents
from slipway.repository.groups import BaseHeads
from slipway.repository.lanes import LANE_RULES
from slipway.repository.plan import plan
from slipway.repository.taken_over import Present
from slipway.repository.write import RepositoryPlan, state_of
from slipway.system.targets import check_folder

NONE: Mapping[str, Sequence[str]] = MappingProxyType({})


def plan_repository(
    classifiers: Sequence[Classifier],
    out: Path,
    *,
    bases: Sequence[BaseHeads] = (),
    lane: LaneName = "cpu",
    multi: Mapping[str, Sequence[str]] = NONE,
    cores: int | None = None,
    inputs: Iterable[Path] = (),
) -> RepositoryPlan:
    """The plan of what `assemble` writes; `.write()` writes it. `multi` names ensembles for several classifiers.

    Groups of heads of which nothing changed are taken over from `out`, and their heads are not opened.

    Args:
        cores: of the machine that will serve; by default those that this process may use.
        inputs: other files that were read, besides bundles and engines, and that `out` must not contain.

    Raises:
        RepositoryError: there is no classifier, or two have one name; an engine is not of this lane, did not pass its
            gate, or has other labels or another decoder; class ids changed; the classifiers of a multi ensemble cannot
            share a decode; or the lane's own `check` fails.
        ManifestError: a head of `bases` is missing or damaged.
        SpecError: `out` is not a repository of ours, or contains its own inputs.
    """
    versions = [version for classifier in classifiers for version in classifier.versions]
    check_folder(out, kind="repository")  # soon, and once more when it is known what is read
    check_names([*(classifier.name for classifier in classifiers), *(name for own in bases for name in own.runs)])
    rules = LANE_RULES[lane]
    check(classifiers, lane=lane, decoder=rules.DECODER)
    rules.check(versions, [own.base for own in bases])
    try:
        before = state_of(out)
        present = Present.open(out) if bases else None
        intended = contents(classifiers, bases, lane=lane, multi=multi, cores=cores, present=present)
        return plan(intended, out, before=before, present=present, inputs=inputs)
    except OSError as error:
        raise RepositoryError(f"{out}: {error.filename} cannot be read: {error.strerror}; assemble again") from None


def assemble(
    classifiers: Sequence[Classifier],
    out: Path,
    *,
    bases: Sequence[BaseHeads] = (),
    lane: LaneName = "cpu",
    multi: Mapping[str, Sequence[str]] = NONE,
) -> Lane:
    """Write the lane of `classifiers` to `out`. Equal input gives equal bytes. Raises what `plan_repository` raises."""
    planned = plan_repository(classifiers, out, bases=bases, lane=lane, multi=multi)
    planned.write()
    return planned.lane
