"""Assemble a model repository for Triton from a fleet file, or from one bundle and its engines."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import Bundle, Fleet
from slipway.contract.lane import NO_PLAN, STAND_IN
from slipway.contract.serving import auto_layout
from slipway.system.arguments import count
from slipway.system.json_line import print_json, verb_parser
from slipway.system.text import command, few

if TYPE_CHECKING:
    from slipway.contract.lane import LaneName
    from slipway.repository import BaseHeads, Classifier, RepositoryPlan
    from slipway.repository.heads import ServedBase

EPILOG = """example:
  slipway assemble fleet.yaml --dry-run
  slipway assemble runs/digits/bundle --engines runs/digits/engines
  slipway assemble runs/digits/bundle --engines runs/digits/engines --lane gpu
  slipway assemble runs/digits/bundle --engine runs/digits/engines/openvino-int8 --out model_repository/cpu

A fleet file says which bundle of each classifier answers, which bundles are kept, and how they run: docs/fleet.md.

With --engines, a lane serves the fastest engine that passed, which slipway choose measured: the cpu lane the one that
choice.json names, the gpu lane the plan that choice-sm90.json and its like name for each kind of GPU. Several --engine
are plans of one graph for several GPUs; the decision of the first one is served.

Every file of the bundles and the engines is checked against its manifest first; a head whose manifests the repository
knows already is taken over without being opened. The changes are printed before anything
is written. The repository appears whole or not at all. Steps are named by their content, so the same input gives the
same bytes, and files that exist already are linked instead of written again."""
SIGNS = {"added": "+", "changed": "~", "removed": "-", "unchanged": "="}


def main(arguments: argparse.Namespace) -> None:
    from slipway.repository import plan_repository  # not at the top: --help needs no library
    from slipway.repository.lanes import LANE_RULES

    classifiers, bases, lane_name, multi = open_classifiers(arguments)
    out = arguments.out or Path("model_repository") / lane_name
    plan = plan_repository(
        classifiers, out, bases=bases, lane=lane_name, multi=multi, cores=arguments.cores, inputs=[arguments.source]
    )
    say(plan, classifiers, bases)
    if arguments.dry_run:
        print("  a dry run: nothing was written")
    elif plan.changes_nothing:
        print("  nothing changed, and nothing was written")
    else:
        plan.write()
        print(f"  written to {out}")
    if not arguments.dry_run:
        print(f"  next: {command(LANE_RULES[lane_name].SERVE_VERB, out)}")
    folders = [asdict(folder) for folder in plan.folders]
    written = not arguments.dry_run and not plan.changes_nothing
    print_json(arguments, {"repository": str(out), **plan.lane.model_dump(), "folders": folders, "written": written})


def open_classifiers(
    arguments: argparse.Namespace,
) -> "tuple[Sequence[Classifier], Sequence[BaseHeads], LaneName, Mapping[str, Sequence[str]]]":
    """The classifiers to serve, the bases, their lane, and the ensembles that answer for several of them."""
    from slipway.repository import open_bases, open_engines, open_fleet, pick_engines

    given = [f"--{name}" for name in ("engines", "engine", "lane") if getattr(arguments, name) is not None]
    if arguments.source.suffix in (".yaml", ".yml") and not arguments.source.is_dir():
        if given:
            parser().error(f"a fleet file names its own lane and engines; leave {' and '.join(given)} out")
        fleet = Fleet.read(arguments.source)
        root = arguments.source.parent
        return open_fleet(fleet, root=root), open_bases(fleet, root=root), fleet.lane, fleet.multi
    if given in ([], ["--lane"]):
        parser().error("a bundle needs --engines or --engine; or give a fleet file, which ends in .yaml")
    bundle = Bundle.open(arguments.source)
    lane: LaneName = arguments.lane or "cpu"
    if arguments.engines is not None:
        return [pick_engines(bundle, arguments.engines, lane=lane)], [], lane, {}
    return [open_engines(bundle, arguments.engine, lane=lane)], [], lane, {}


def say(plan: "RepositoryPlan", classifiers: "Sequence[Classifier]", bases: "Sequence[BaseHeads]") -> None:
    """Print the bundle and the engines of each classifier, then the change of every folder."""
    names = [*(f"{c.name} and {c.name}_full" for c in classifiers), *plan.lane.multi]
    names += [
        f"{len(base.heads):,} {'head' if len(base.heads) == 1 else 'heads'} of base {name}"
        for name, base in plan.lane.bases.items()
    ]
    print(f"{plan.out}: {plan.lane.lane} lane, serves {', '.join(names)}")
    _say_bases(plan, bases)
    for active in classifiers:
        for version in active.versions:
            role = f"{active.name}:" if version is active else f"{active.name}, kept:"
            print(f"  {role} bundle {version.bundle.id:.12} {version.bundle.path}")
            _say_engines(version)
    for name, members in plan.lane.multi.items():
        print(f"  {name}: {', '.join(members)} from one decode")
    automatic = {active.name for active in classifiers if active.serving.layout == "auto"}
    shared = {member for members in plan.lane.multi.values() for member in members}
    for name, serving in (plan.lane.serving or {}).items():
        print(f"  {name} runs as {serving}")
        if name in automatic:
            layout, reason = auto_layout(len(bases) + len(classifiers), shares_decode=name in shared)
            print(f"    {layout}, {reason}")
    if plan.lane.cores is not None:
        sharing = len(bases) + len(classifiers)
        one, several = (
            ("the only base", "classifiers and bases") if plan.lane.bases else ("the only classifier", "classifiers")
        )
        many = one if sharing == 1 else f"{sharing} {several}"
        print(f"    where serving leaves the choice: chosen for {many} on {plan.lane.cores} cores (--cores)")
    _say_folders(plan)


def _say_bases(plan: "RepositoryPlan", bases: "Sequence[BaseHeads]") -> None:
    for base in (own.base for own in bases):
        name = base.name
        own = plan.lane.bases[name]
        print(f"  {name}: base {base.base.id:.12} {base.base.path}")
        _say_engines(base)
        runs = "" if own.serving is None else f"runs as {own.serving}; "
        print(f"    {runs}serves NAME and NAME_full for {few(own.heads)}")
        if own.stand_ins:
            print(f"    {len(own.stand_ins):,} of {len(own.heads):,} heads {STAND_IN}")


def _say_engines(served: "Classifier | ServedBase") -> None:
    for engine in served.engines:
        settings = engine.settings
        print(f"    engine {engine.path}: {settings.target} {settings.precision} ({engine.verdict})")
    if served.falls_back:
        print(f"    fallback: {NO_PLAN}; its gate ran on {served.engine.settings.provider}")
    for choice in served.choices:
        print(f"    chosen: {choice.reason}")
    if served.failed_plans:
        print(f"    left out: {', '.join(served.failed_plans)}; no plan for that GPU passed its accuracy gate")


def _say_folders(plan: "RepositoryPlan") -> None:
    heads = {name + suffix for base in plan.lane.bases.values() for name in base.heads for suffix in ("", "_full")}
    for folder in plan.folders:
        if folder.name in heads:  # thousands of small ones; the sums below count them
            continue
        print(f"  {SIGNS[folder.change]} {folder.name:<28} {folder.size / 1e6:10.3f} MB  {folder.change}")
    for change in SIGNS:
        sizes = [folder.size for folder in plan.folders if folder.change == change]
        if sizes:
            print(f"  {len(sizes)} {change}, {sum(sizes) / 1e6:.3f} MB")


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("source", type=Path, help="fleet file (.yaml), or folder that slipway export wrote")
    engines = parser.add_mutually_exclusive_group()
    engines.add_argument("--engines", type=Path, help="folder of engine folders; the lane's choice is taken")
    engines.add_argument("--engine", type=Path, action="append", help="folder that slipway compile wrote")
    parser.add_argument("--lane", choices=("cpu", "gpu"), help="lane to assemble a bundle for; default: cpu")
    parser.add_argument(
        "--cores",
        type=count,
        metavar="N",
        help="cores of the machine that will serve on the cpu lane; default: those of this one",
    )
    parser.add_argument("--out", type=Path, help="repository to write; default: model_repository/LANE")
    parser.add_argument("--dry-run", action="store_true", help="print the changes, and write nothing")
    return parser
