"""All findings on a repository and this machine, in the order in which serving would fail, and the verdict.

First the files against their manifest, then the machine, each step (started in a process of its own by the interpreter
that would serve it), and each ensemble. Nothing is written to the repository.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import Lane
from slipway.lint.chain import broken_links
from slipway.lint.ensembles import check_ensemble
from slipway.lint.models import Model, ensembles, read_models
from slipway.serving.doctor.files import damaged_files, read_lane, read_manifest
from slipway.serving.doctor.findings import Finding, Verdict, judge
from slipway.serving.doctor.machine import Machine, check_memory, look
from slipway.serving.doctor.steps import ASSEMBLE, check_step

TIMEOUT_S = 120.0
"""For one step to load and answer; what the launcher gives the whole server."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what follows from them."""

    findings: tuple[Finding, ...]
    verdict: Verdict


def examine(
    repository: Path, *, report: Callable[[Finding], None] = lambda _: None, timeout_s: float = TIMEOUT_S
) -> Diagnosis:
    """Examine `repository` on this machine; `report` is called with each finding as it is made."""
    findings: list[Finding] = []
    needs: dict[str, tuple[str, ...]] = {}
    for finding in _look(repository, needs, timeout_s=timeout_s):
        findings.append(finding)
        report(finding)
    return Diagnosis(tuple(findings), judge(findings, needs))


def _look(repository: Path, needs: dict[str, tuple[str, ...]], *, timeout_s: float) -> Iterator[Finding]:
    """Every finding in turn; `needs` gets each ensemble with its steps."""
    manifest = read_manifest(repository)
    if isinstance(manifest, Finding):
        yield manifest
        if not any(repository.glob("*/config.pbtxt")):
            return
        hashes: Mapping[str, str] = {}
        damaged: Mapping[str, Finding] | None = None
    else:
        hashes, damaged = manifest.outputs, damaged_files(repository, manifest)
        yield from damaged.values()
        if not damaged:
            yield Finding("repository", "manifest.json", "ok", f"{len(hashes)} files, each as it was assembled")
    lane, about_lane = read_lane(repository)
    yield about_lane
    models = read_models(repository)
    needs.update(_needs(lane, models))
    links: dict[str, list[str]] = {}
    for name, problem in [] if lane is None else broken_links(lane, models, hashes):
        links.setdefault(name, []).append(problem)
    with tempfile.TemporaryDirectory(prefix="slipway-doctor-") as workspace:
        machine = look(lane, models.values(), Path(workspace))
        yield from machine.findings
        yield from _steps(models, needs, machine, links, lane=lane, damaged=damaged, timeout_s=timeout_s)
    for name in needs:
        yield from _ensemble(name, models, links.get(name, []))


def _needs(lane: Lane | None, models: Mapping[str, Model]) -> dict[str, tuple[str, ...]]:
    """The ensembles that are there, and those that the launcher would wait for."""
    named = [] if lane is None else [name + suffix for name in lane.classifiers for suffix in ("", "_full")]
    return {**dict.fromkeys(named, ()), **ensembles(models)}


def _steps(
    models: Mapping[str, Model],
    needs: Mapping[str, Iterable[str]],
    machine: Machine,
    links: Mapping[str, list[str]],
    *,
    lane: Lane | None,
    damaged: Mapping[str, Finding] | None,
    timeout_s: float,
) -> Iterator[Finding]:
    """Every model that is no ensemble, in the order in which a request meets them; then the memory that they took."""
    in_order = dict.fromkeys([*(step for steps in needs.values() for step in steps), *models])
    peak_mb = {}
    for name in in_order:
        if name not in models or name in needs:
            continue
        for problem in links.get(name, []):
            yield Finding("step", name, "fail", problem, ASSEMBLE)
        trial = check_step(models[name], machine, lane=lane, damaged=damaged, timeout_s=timeout_s)
        yield from trial.findings
        if trial.peak_mb is not None:
            peak_mb[name] = trial.peak_mb
    yield check_memory(peak_mb, models)


def _ensemble(name: str, models: Mapping[str, Model], links: list[str]) -> Iterator[Finding]:
    problems = [*(check_ensemble(models[name], models) if name in models else []), *links]
    for problem in problems:
        yield Finding("ensemble", name, "fail", problem, ASSEMBLE)
    if not problems:
        steps = " → ".join(step.model_name for step in models[name].config.ensemble_scheduling.step)
        yield Finding("ensemble", name, "ok", steps)
