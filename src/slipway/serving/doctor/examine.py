"""All checks on a repository and this machine, in the order in which serving would fail, and the verdict.

The findings of the lint come first, then the machine, each step (started in a process of its own by the interpreter
that would serve it), and each ensemble. Nothing is written to the repository.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slipway.contract import Lane, Manifest, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.lint import Finding, lint
from slipway.lint.heads import FOLDER, GROUP
from slipway.lint.models import AGAIN, Model, ensembles, read_models
from slipway.serving.doctor.checks import Check, CheckedPart, Servable, judge
from slipway.serving.doctor.machine import Host, check_memory, look
from slipway.serving.doctor.steps import check_step
from slipway.system.text import few

TIMEOUT_S = 120.0
"""Seconds for one step to load and answer; the launcher gives the same to the whole server."""
UNTRUSTED = ("file-changed", "file-added", "file-missing", "symbolic-link", "unreadable")
"""Rules about files that differ from the assembled ones; steps with such files are not run."""

LEFT_OUT = ("head-left-out", "bundle-differs")
"""Rules about a head for which the server does not serve it."""


@dataclass(frozen=True)
class Diagnosis:
    """All checks, and the verdict."""

    checks: tuple[Check, ...]
    verdict: Servable


@dataclass(frozen=True)
class Files:
    """The facts that do not depend on the machine."""

    lane: Lane | None
    models: Mapping[str, Model]
    findings: tuple[Finding, ...]
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Ensemble to its steps, for those that exist and those that the launcher would wait for."""

    @classmethod
    def read(cls, repository: Path) -> "Files":
        findings = tuple(lint(repository))
        try:
            lane = Lane.read(repository / LANE)
        except SpecError:
            lane = None
        if any(finding.rule == "repository-empty" for finding in findings):
            return cls(None, {}, findings)
        models = read_models(repository)
        return cls(lane, models, findings, {**dict.fromkeys(lane.ensembles if lane else (), ()), **ensembles(models)})

    def of(self, model: str) -> list[Finding]:
        """The findings of a model, but for those of a single head in a group."""
        return [finding for finding in self.findings if finding.model == model and not _head_of(finding)]

    def of_heads(self, ensemble: str) -> list[Finding]:
        """The findings of the heads that an ensemble answers for."""
        heads = self.lane.ensembles.get(ensemble, ()) if self.lane else ()
        return [finding for finding in self.findings if _head_of(finding) in heads]

    @property
    def broken_heads(self) -> frozenset[str]:
        """Heads with a finding, without which their groups are served."""
        return frozenset(filter(None, map(_head_of, self.findings)))

    @property
    def faulty(self) -> bool:
        """Whether anything but single heads has a finding."""
        return not all(map(_head_of, self.findings))


def _head_of(finding: Finding) -> str:
    """The head in a group that a finding concerns alone; empty for any other finding."""
    parts = finding.file.split("/")
    of_a_head = finding.model.startswith(GROUP) and len(parts) == 5 and parts[2] == FOLDER
    return parts[3] if of_a_head and finding.rule not in UNTRUSTED else ""


def examine(
    repository: Path, *, report: Callable[[Check], None] = lambda _: None, timeout_s: float = TIMEOUT_S
) -> Diagnosis:
    """Examine `repository` on this machine; `report` is called with each check as it is made."""
    checks: list[Check] = []
    files = Files.read(repository)
    for check in _look(repository, files, timeout_s=timeout_s):
        checks.append(check)
        report(check)
    return Diagnosis(tuple(checks), judge(checks, files.needs, faulty=files.faulty))


def _look(repository: Path, files: Files, *, timeout_s: float) -> Iterator[Check]:
    """Yield all checks in order."""
    yield from _repository(repository, files)
    if not files.models:
        return
    with tempfile.TemporaryDirectory(prefix="slipway-doctor-") as workspace:
        machine = look(files.lane, files.models.values(), Path(workspace))
        yield from machine.checks
        yield from _steps(repository, files, machine, timeout_s=timeout_s)
    sound: dict[tuple[str, ...], list[str]] = {}
    for name, steps in files.needs.items():
        if findings := [*files.of(name), *files.of_heads(name)]:
            yield from (_said("ensemble", finding, name) for finding in findings)
        elif steps and steps[-1].startswith(GROUP):
            sound.setdefault(steps, []).append(name)
        else:
            yield Check("ensemble", name, "ok", " → ".join(steps))
    yield from (Check("ensemble", few(names), "ok", " → ".join(steps)) for steps, names in sound.items())


def _repository(repository: Path, files: Files) -> Iterator[Check]:
    """Checks on the repository's own files, and on files that differ from the assembled ones."""
    about = [finding for finding in files.findings if not finding.model or finding.rule in UNTRUSTED]
    for finding in about:
        yield Check("repository", finding.file, "fail", finding.reason, finding.remedy)
    wrong = {finding.file for finding in about}
    if not files.models:
        return
    if not (repository / MANIFEST).is_file() and MANIFEST not in wrong:
        yield Check("repository", MANIFEST, "fail", "missing, so the files cannot be checked", AGAIN)
    elif not any(finding.rule in UNTRUSTED or finding.file == MANIFEST for finding in about):
        count = len(Manifest.read(repository / MANIFEST).outputs)
        yield Check("repository", MANIFEST, "ok", f"{count} files, all as assembled")
    if files.lane is not None and LANE not in wrong:
        named = few([f"{name} (bundle {bundle:.12})" for name, bundle in sorted(files.lane.classifiers.items())])
        yield Check("repository", LANE, "ok", f"{files.lane.lane} lane with {named}")


def _steps(repository: Path, files: Files, machine: Host, *, timeout_s: float) -> Iterator[Check]:
    """Checks on every step, in the order in which a request passes through them; then on their memory."""
    sealed = (repository / MANIFEST).is_file() and not any(finding.file == MANIFEST for finding in files.findings)
    in_order = dict.fromkeys([*(step for steps in files.needs.values() for step in steps), *files.models])
    peak_mb = {}
    for name in in_order:
        if name not in files.models or name in files.needs:
            continue
        findings = [finding for finding in files.of(name) if finding.rule not in UNTRUSTED]
        yield from (_said("step", finding, name) for finding in findings)
        changed = [finding.file for finding in files.of(name) if finding.rule in UNTRUSTED]
        doubt = ", ".join(changed) if changed else "" if sealed else "without a manifest its code"
        refused = any(finding.about.server in ("refuses", "hangs", "dies") for finding in findings)
        if doubt or refused:
            reason = f"not started: {doubt} cannot be trusted" if doubt else "not started: it would not load"
            yield Check("step", name, "untold", reason)
            continue
        trial = check_step(
            files.models[name], machine, lane=files.lane, timeout_s=timeout_s, without=files.broken_heads
        )
        yield from trial.checks
        if trial.peak_mb is not None:
            peak_mb[name] = trial.peak_mb
    yield check_memory(peak_mb, files.models, gpus=len(machine.gpus) or 1)


def _said(part: CheckedPart, finding: Finding, model: str) -> Check:
    """A finding of the lint, under the name of a model that cannot answer because of it."""
    inside = finding.file.partition("/")[2] if finding.model == model else finding.file
    reason = ": ".join(filter(None, (inside, finding.field, finding.reason)))
    return Check(part, model, "fail", reason, finding.remedy, bool(_head_of(finding)) and finding.rule not in LEFT_OUT)
