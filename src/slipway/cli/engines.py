"""Rebuild every graph, engine and plan of the runs that is not current; a manifest shows whether it is."""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from slipway.contract import Bundle, BundleEngine, CompileError, ManifestError, SlipwayError
from slipway.contract.base_bundle import Base, BaseEngine, Owner, open_network
from slipway.contract.engine import Target, engine_name
from slipway.contract.evidence.build import GraphMeasured
from slipway.contract.shared_rules import NOT_EVERYWHERE
from slipway.contract.spec import Precision
from slipway.system.json_line import print_json, verb_parser
from slipway.system.text import command

EPILOG = """example:
  slipway engines runs/digits
  slipway engines runs/* --target tensorrt --dry-run     in the container of the new release, for its TensorRT

A run is a folder with bundle/, or with base/ (slipway base); graphs/ and engines/ are written beside it. The plan is
printed first: the parts that are current, and for every other part the reason why it is rebuilt. If a part fails, that
is recorded in engines/made.json, the rest continues, and the exit code is 1. Folders appear whole or not at all, so
after an interruption the same command continues where it stopped. Run this where training ran, since it reads the data
set. The forms of heads follow when slipway head is run again.
The target onnxruntime is built for the runs whose spec says serving.gpu.fallback: onnxruntime."""
RECORD = "made.json"
QUANTISED: tuple[Literal["int8", "fp8", "fp16"], ...] = ("int8", "fp8", "fp16")


@dataclass(frozen=True)
class RunPart:
    """A graph folder or an engine folder of one run."""

    bundle: Bundle | Base
    folder: Path
    precision: Precision
    target: Target | None = None
    """The target of an engine; None for a graph."""
    outcome: str = "waiting"
    reason: str = ""
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("precision", "target", "outcome", "reason", "seconds")}
        return {"folder": str(self.folder), **kept}


class Rebuilder:
    """All runs with one set of compilers: finds out why a part is not current, and rebuilds it."""

    def __init__(self, compilers: dict[Target, Any], timing_cache: Path | None) -> None:
        self.compilers, self.timing_cache = compilers, timing_cache

    def parts(self, folder: Path) -> list[RunPart]:
        """The parts of one run, in the order of their dependencies."""
        from slipway.engines import wanted

        bundle = Base.open(folder / "base") if (folder / "base").is_dir() else open_network(folder / "bundle")
        falls_back = bundle.spec.serving.gpu.fallback == "onnxruntime"
        built = {
            target: wanted(bundle.spec, target) for target in self.compilers if target != "onnxruntime" or falls_back
        }
        reference = RunPart(bundle, folder / "engines/openvino-fp32", "fp32", "openvino")
        quantised = [p for p in QUANTISED if any(p in precisions for precisions in built.values())]
        graphs = [RunPart(bundle, folder / "graphs" / precision, precision) for precision in quantised]
        engines = [
            RunPart(bundle, folder / "engines" / engine_name(target, p, compiler.compute_capability), p, target)
            for target, compiler in self.compilers.items()
            for p in built.get(target, ())
        ]
        return [reference, *graphs, *(part for part in engines if part.folder != reference.folder)]

    def why(self, part: RunPart) -> str | None:
        """The reason why `part` has to be rebuilt; None if its manifest shows that it is current.

        Raises:
            SlipwayError: an input of the part is missing.
        """
        from slipway.engines.current import stale, stale_graph
        from slipway.engines.graph import Graph

        if part.target is None:
            return stale_graph(part.folder, bundle=part.bundle, precision=part.precision)
        reference = self._reference(part)
        if part.target not in self.compilers:  # the reference where OpenVINO is not a target: it is reused
            return _does_not_open(part)
        graph = Graph.open(part.bundle, _graphs(part), part.precision)
        compiler = self.compilers[part.target]
        return stale(part.folder, part.bundle, graph, precision=part.precision, compiler=compiler, reference=reference)

    def current(self, part: RunPart) -> RunPart:
        """`part` marked as current, with the reason."""
        by = self.compilers.get(part.target, "reused") if part.target else ""
        proof = (
            f"same {part.bundle.manifest.kind} and settings"
            if part.target is None
            else f"same graph, flags and gate, {by}"
        )
        return replace(part, outcome="current", reason=proof)

    def make(self, part: RunPart) -> str:
        """Build the part; returns one line about the result."""
        from slipway.engines import build_engine, quantize

        if part.target is None:
            precision = next(name for name in QUANTISED if name == part.precision)
            found = quantize(part.bundle, part.folder, precision=precision).read_measured(GraphMeasured)
            shares = (f"{count} in {name}" for name, count in found.by_precision.items() if count)
            return f"{found.layers} layers: {', '.join(shares)}"
        owner: Owner[Any] = part.bundle
        engine: BundleEngine | BaseEngine = build_engine(
            owner,
            _graphs(part),
            part.folder.parent,
            target=part.target,
            precision=part.precision,
            reference=self._reference(part),
            timing_cache=self.timing_cache,
        )
        return engine.verdict

    def _reference(self, part: RunPart) -> BundleEngine | BaseEngine | None:
        folder = part.folder.parent / "openvino-fp32"
        return None if folder == part.folder else part.bundle.open_engine(folder)


def _graphs(part: RunPart) -> Path:
    return part.folder.parents[1] / "graphs"


def _does_not_open(part: RunPart) -> str | None:
    try:
        part.bundle.open_engine(part.folder)
    except ManifestError as error:
        return str(error) if part.folder.is_dir() else "not there"
    return None


def main(arguments: argparse.Namespace) -> int:
    failures: list[str] = []
    rebuilder = Rebuilder(_compilers(arguments.target, failures), arguments.timing_cache)
    runs = {folder: _plan(rebuilder, folder, failures) for folder in dict.fromkeys(arguments.run)}
    to_make = sum(part.outcome != "current" for parts in runs.values() for part in parts)
    print(f"{to_make} to make, {sum(map(len, runs.values())) - to_make} current")
    if not arguments.dry_run:
        for folder, parts in runs.items():
            _work(rebuilder, folder, parts)
            failures += [f"{part.folder}: {part.reason}" for part in parts if part.outcome == "failed"]
            failures += _not_served(rebuilder, parts)
            _say_next(folder, {part.target for part in parts if part.outcome == "made"})
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    summaries = [part.summary() for parts in runs.values() for part in parts]
    print_json(arguments, {"parts": summaries, "failures": failures})
    return 1 if failures else 0


def _compilers(targets: list[Target], failures: list[str]) -> dict[Target, Any]:
    from slipway.engines.current import installed  # not at the top: --help needs no library

    compilers = {}
    for target in dict.fromkeys(targets):
        try:
            compilers[target] = installed(target)
            print(f"{target}: {compilers[target]}")
        except SlipwayError as error:
            failures.append(f"{target}: {error}")
    return compilers


def _plan(rebuilder: Rebuilder, folder: Path, failures: list[str]) -> list[RunPart]:
    """Print and return the current parts and the parts to make."""
    print(folder)
    try:
        parts = rebuilder.parts(folder)
    except SlipwayError as error:
        failures.append(f"{folder}: {error}")
        return []
    planned: list[RunPart] = []
    for part in parts:
        planned.append(_first_look(rebuilder, part, planned))
        mark = "✓" if planned[-1].outcome == "current" else "→"
        name = part.folder.relative_to(folder)
        print(f"  {mark} {name}: {planned[-1].reason}")
    return planned


def _first_look(rebuilder: Rebuilder, part: RunPart, before: list[RunPart]) -> RunPart:
    """Current, or the reason why not; a part that waits for another is checked again when its turn comes."""
    needed = [_graphs(part) / part.precision, part.folder.parent / "openvino-fp32"] if part.target else []
    first = [other.folder.name for other in before if other.folder in needed and other.outcome != "current"]
    if first and part.folder.is_dir():
        return replace(part, reason=f"{' and '.join(first)} made first, then checked again")
    try:
        reason = f"{' and '.join(first)} made first" if first else rebuilder.why(part)
    except SlipwayError as error:
        reason = str(error)
    return rebuilder.current(part) if reason is None else replace(part, reason=_one_line(reason, part))


def _one_line(reason: str, part: RunPart) -> str:
    text = reason.removeprefix(f"{part.folder}: ").removeprefix(f"{part.folder}/")
    return " ".join(line.strip() for line in text.splitlines())


def _work(rebuilder: Rebuilder, folder: Path, parts: list[RunPart]) -> None:
    """Build the waiting parts, in place in `parts`, and record all of them after each."""
    waiting = [index for index, part in enumerate(parts) if part.outcome == "waiting"]
    for number, index in enumerate(waiting, 1):
        print(f"[{number}/{len(waiting)}] {parts[index].folder}", flush=True)
        started = time.monotonic()
        try:
            parts[index] = _make(rebuilder, parts[index])
        finally:
            parts[index] = replace(parts[index], seconds=round(time.monotonic() - started, 1))
            _record(folder, parts)
        print(f"  {parts[index].outcome} after {parts[index].seconds} s: {parts[index].reason}", flush=True)


def _make(rebuilder: Rebuilder, part: RunPart) -> RunPart:
    try:
        reason = rebuilder.why(part)
        if reason is None:
            return rebuilder.current(part)
        result = rebuilder.make(part)
        return replace(part, outcome="made", reason=f"{_one_line(reason, part)}; {result}")
    except CompileError as error:
        if part.precision in NOT_EVERYWHERE:
            return replace(part, outcome="left out", reason=str(error))
        return replace(part, outcome="failed", reason=str(error))
    except SlipwayError as error:
        return replace(part, outcome="failed", reason=str(error))
    except Exception as error:  # a bug of ours or of a compiler; the others are still built
        traceback.print_exc()
        return replace(part, outcome="failed", reason=f"{type(error).__name__}: {error}")


def _record(folder: Path, parts: list[RunPart]) -> None:
    """Write `engines/made.json`, whole or not at all."""
    (folder / "engines").mkdir(exist_ok=True)
    partial = folder / "engines" / f".{RECORD}"
    partial.write_text(json.dumps([part.summary() for part in parts], indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / "engines" / RECORD)


def _not_served(rebuilder: Rebuilder, parts: list[RunPart]) -> Iterator[str]:
    """The targets of a run that have nothing to serve although every build succeeded."""
    for target in rebuilder.compilers:
        own = [part for part in parts if part.target == target and part.precision in part.bundle.spec.precisions]
        if target == "tensorrt_rtx" or not own or any(part.outcome == "failed" for part in own):
            continue
        engines = [part.bundle.open_engine(part.folder) for part in own if part.outcome in ("made", "current")]
        if not any(engine.may_be_served for engine in engines):
            verdicts = {engine.path.name: engine.verdict for engine in engines}
            yield f"{own[0].folder.parent}: nothing passed its gate on {target}: {verdicts}"


def _say_next(folder: Path, made: set[Target | None]) -> None:
    of_base = (folder / "base").is_dir()
    given = (folder / ("base" if of_base else "bundle"), "--engines", folder / "engines")
    heads = f"{command('slipway head', 'SPEC', '--base', folder)} of each head, whose forms are for these engines"

    def assembled(*lane: str) -> str:
        return heads if of_base else command("slipway assemble", *given, *lane)

    if "openvino" in made:
        print(f"  next: {command('slipway choose', *given)}, then {assembled()}")
    if "onnxruntime" in made:
        print(f"  next: {assembled('--lane', 'gpu')}{'' if of_base else ' (for a classifier without a plan)'}")
    if "tensorrt" in made:
        print(f"  next: {command('slipway choose', *given, '--target', 'tensorrt')}, then {assembled('--lane', 'gpu')}")


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("run", type=Path, nargs="+", help="folder with bundle/ or base/, for example runs/digits")
    parser.add_argument(
        "--target",
        choices=get_args(Target),
        nargs="+",
        default=["openvino"],
        help="engines to build; default: openvino",
    )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        help="file of TensorRT's timings, read and written, for faster builds; default: beside the engines",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and build nothing")
    return parser
