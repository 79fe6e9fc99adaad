"""Checks rendered objects for what no schema finds."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from slipway.contract import SpecError
from slipway.operations.rendering.field_rules import field_findings
from slipway.operations.rendering.link_rules import link_findings
from slipway.operations.rendering.manifests import WANTED, Objects
from slipway.operations.rendering.network_rules import network_findings
from slipway.operations.rendering.pod_rules import pod_findings
from slipway.operations.rendering.violation import Violation
from slipway.system.process import output_of

KUSTOMIZE_TIMEOUT_S = 60


def check(text: str, *, source: str) -> list[Violation]:
    """Return the faults of objects that are applied together; raises SpecError if the text does not contain objects."""
    return violations(Objects.parse(text, source=source))


def violations(objects: Objects) -> list[Violation]:
    """Return the violations of all rules; raises SpecError if the text has no object, or an object has a wrong form."""
    if not objects.all:
        raise SpecError(f"{objects.source}: no object; give {WANTED}")
    rules = (pod_findings, link_findings, network_findings, field_findings)
    return sorted({violation for rule in rules for violation in rule(objects)})


def texts(given: Path, *, kubectl: Path | None = None) -> dict[str, str]:
    """The objects of a file, or of each overlay of a rendered folder, as `kubectl kustomize` makes them.

    Raises:
        SpecError: there is nothing to read, or kubectl is missing or refuses it.
    """
    if given.is_file():
        return {str(given): _read(given)}
    overlays = sorted(path.parent for path in given.glob("overlays/*/kustomization.yaml"))
    if overlays:
        return {str(overlay): _kustomized(overlay, kubectl) for overlay in overlays}
    files = sorted(given.glob("*.yaml"))
    if not files:
        raise SpecError(f"{given}: no overlays and no YAML files; give {WANTED}")
    return {str(given): "---\n".join(_read(file) for file in files)}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}; give {WANTED}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8 text; give {WANTED}") from None


def _kustomized(overlay: Path, kubectl: Path | None) -> str:
    found = kubectl or shutil.which("kubectl")
    if found is None:
        raise SpecError(
            f"{overlay}: kubectl is not installed, which makes the objects of an overlay; install it, or give the file "
            "that kubectl kustomize prints elsewhere"
        )
    command: Sequence[str | Path] = [found, "kustomize", overlay]
    try:
        done = output_of(command, timeout_s=KUSTOMIZE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        said = getattr(error, "strerror", None) or f"no answer within {KUSTOMIZE_TIMEOUT_S} s"
        raise SpecError(f"{found} does not run: {said}; give another kubectl with --kubectl") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:500]
        raise SpecError(f"{overlay}: kubectl refuses it: {said}; correct that, or render the folder again")
    return done.stdout
