"""The classifier that labels are for: the bundle that the repository serves, and the labels that it knows."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import Decision, Lane, SpecError, read_labels
from slipway.contract.lane import FILE_NAME as LANE
from slipway.operations.gateway.settings import FULL_SUFFIX, GatewaySettings
from slipway.operations.journal.store import Store


@dataclass(frozen=True)
class LabelledClassifier:
    """A classifier of the repository behind the gateway."""

    classifier: str
    bundle: str
    """Id of the bundle that answers."""
    labels: tuple[str, ...]
    """The bundle's labels, by class id."""

    @classmethod
    def of(cls, settings: GatewaySettings, *, source: Path, classifier: str | None) -> "LabelledClassifier":
        """The classifier of that name; without a name, the only one.

        Raises:
            SpecError: the repository is not named or not there, or has no such classifier, or several without a name;
                or the classifier gives several labels for an image.
        """
        repository = repository_of(settings, source=source)
        lane = Lane.read(repository / LANE)
        known = sorted(lane.classifiers)
        if classifier is None and len(known) != 1:
            raise SpecError(f"{repository}: several classifiers; give one of {', '.join(known)} with --classifier")
        name = classifier or known[0]
        if name not in lane.classifiers:
            raise SpecError(f"--classifier: {name!r} is not in {repository}; it has {', '.join(known)}")
        if _has_several_labels(repository, lane.classifiers[name]):
            raise SpecError(
                f"{repository}: {name} gives several labels for an image; live images are labelled for classifiers "
                "with one label an image (task: multiclass). Label its images elsewhere, and train it by hand"
            )
        labels = read_labels(repository / f"{name}{FULL_SUFFIX}" / "labels.txt")
        return cls(name, lane.classifiers[name], labels)

    def known(self, store: Store) -> Collection[str]:
        """Labels that need no `--new-class`: the bundle's, and labels that were given before."""
        given = store.query(
            "SELECT DISTINCT labels.label FROM labels JOIN rows ON rows.id = labels.row WHERE rows.classifier = ?",
            (self.classifier,),
        )
        return {*self.labels, *(label for (label,) in given)}


def with_several_labels(repository: Path) -> set[str]:
    """Ids of the bundles in a repository that give several labels for an image."""
    return {bundle for bundle, path in _decisions(repository) if Decision.read(path).task == "multilabel"}


def _has_several_labels(repository: Path, bundle: str) -> bool:
    path = next((path for found, path in _decisions(repository) if found == bundle), None)
    return path is not None and Decision.read(path).task == "multilabel"


def _decisions(repository: Path) -> Iterator[tuple[str, Path]]:
    """Yield the id of each bundle, and the file of its decision: in the bundle's last step, or beside its head."""
    for path in repository.glob("*/1/**/decision.json"):
        of = path.with_name("bundle.txt")
        if of.is_file():
            yield of.read_text(encoding="utf-8").strip(), path


def repository_of(settings: GatewaySettings, *, source: Path) -> Path:
    """The folder that the server serves.

    Raises:
        SpecError: the settings do not name it, or it is not a repository.
    """
    if settings.repository is None:
        raise SpecError(f"{source}: repository: give the folder that is served; labels are for the bundles in it")
    repository = Path(settings.repository)
    if not (repository / LANE).is_file():
        raise SpecError(f"{source}: repository: {repository} is not a repository: it has no {LANE}")
    return repository
