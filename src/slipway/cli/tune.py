"""Find the `serving` values with which a classifier holds the highest rate within its P99 limit, and write them."""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.system.targets import file_option, write_file
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.benchmark import GateOptions
    from slipway.contract.spec import Serving
    from slipway.repository import Classifier


LIBRARIES = ("grpcio", "hdrhistogram", "nvidia-dali-cuda130", "nvidia-pytriton", "openvino", "tritonclient")
MAX_RUNS = 40
"""Of the search."""
EPILOG = """examples:
  slipway tune fleet.yaml --images data/pets/test --limit-ms 50
  slipway tune runs/digits --images runs/digits/data --dry-run

Searched: layout, pinned, preferred_batch_size, instances with threads, max_queue_delay_us, in this order, which is
that of what they were seen to be worth. It begins with how the classifier is served now. Whatever differs from the best
so far in one setting is asked about one rate, 10 % above what the best one holds; if the gate finds its P99 within the
limit there, in two blocks, it is the best from there on, and climbs. So most of what is no better costs 15 seconds.

The best of many noisy measurements flatters itself. So start and best are compared once more, in rounds in which they
take turns on the same arrivals. If the best one is not better beyond the spread of these, the start stays.

The classifier is measured by itself, on this machine, with the client on the same cores: tune where it will be served,
with nothing else running. Written are the keys that differ, into `serving` of this classifier in the fleet file (a RUN
without one gets RUN/fleet.yaml); comments stay. The evidence goes beside it. About 8 minutes on two cores."""


@dataclass(frozen=True)
class Target:
    """What is tuned, and the file that says so."""

    fleet: Path
    text: str
    name: str
    classifier: "Classifier"


def main(arguments: argparse.Namespace) -> None:
    from slipway.benchmark.tuning_climb import rate_at
    from slipway.benchmark.tuning_fleet import replace_text, with_serving
    from slipway.cli.tune_measure import described
    from slipway.contract.evidence.origin import Origin

    target = open_target(arguments.path, arguments.classifier)
    start = target.classifier.serving
    print(f"{target.name} at the start: {described(start)}", flush=True)
    found = search_and_compare(target, arguments)
    best: Serving = found.pop("best")
    values = best.model_dump(mode="json")
    changes = {key: value for key, value in values.items() if value != start.model_dump(mode="json")[key]}
    for side, rungs in found["rungs"].items():
        rates = [rate_at(rung) for rung in rungs]
        print(f"{side:6} {min(rates):.0f} to {max(rates):.0f} requests/s in {len(rates)} rounds")
    print(verdict(found, described(best)))
    origin = Origin.here(LIBRARIES).plain() | {"client_shares_the_cores": True}
    evidence = {**origin, **found, "start": start.model_dump(mode="json"), "chosen": values, "changes": changes}
    output = arguments.output or target.fleet.with_name(f"{target.fleet.stem}.{target.name}.tuning.json")
    if arguments.output or not arguments.dry_run:
        write_file(output, json.dumps(evidence, indent=1) + "\n")
        print(f"evidence: {output}")
    if changes:
        print(
            f"{'would write' if arguments.dry_run else 'written'} to {target.fleet}, {target.name}: serving: {changes}"
        )
        if not arguments.dry_run:
            # Read again: somebody may have worked on it in these minutes.
            text = target.fleet.read_bytes().decode() if target.fleet.exists() else target.text
            replace_text(target.fleet, with_serving(text, target.name, changes))
            print(f"next: {command('slipway assemble', target.fleet, '--dry-run')}")
    if arguments.json:
        print(json.dumps(evidence))


def open_target(path: Path, name: str | None) -> Target:
    """The classifier of a fleet file, or of a run, alone.

    Raises:
        SpecError: no such classifier, or one that cannot be tuned by itself.
    """
    from slipway.benchmark.tuning_fleet import with_serving
    from slipway.contract import Bundle, Fleet, SpecError
    from slipway.repository.fleet import open_fleet
    from slipway.system.reading import dump_yaml, parse_yaml

    fleet_path = path / "fleet.yaml" if path.is_dir() else path
    if path.is_dir() and not fleet_path.is_file():
        text = dump_yaml({"classifiers": {Bundle.open(path / "bundle").spec.name: {"active": "."}}})
        fleet = Fleet.parse(parse_yaml(text, source=str(fleet_path)), source=str(fleet_path))
    else:
        fleet, text = Fleet.read(fleet_path), fleet_path.read_bytes().decode()
    name = name or (next(iter(fleet.classifiers)) if len(fleet.classifiers) == 1 else None)
    if name not in fleet.classifiers:
        names = ", ".join(fleet.classifiers)
        raise SpecError(f"{fleet_path}: --classifier {name or 'is not given'}; the classifiers are {names}")
    if fleet_path.suffix == ".json":
        raise SpecError(f"{fleet_path}: only YAML is changed in place; write it as fleet.yaml")
    if fleet.lane != "cpu":
        raise SpecError(f"{fleet_path}: lane {fleet.lane}; what is searched here are settings of the cpu lane")
    if members := [multi for multi, members in fleet.multi.items() if name in members]:
        raise SpecError(f"{fleet_path}: {name} shares its decode in {', '.join(members)}, whose serving must be equal")
    with_serving(text, name, {"instances": 1})  # what cannot be written is said before the search
    alone = fleet.classifiers[name].model_copy(update={"keep": ()})
    (classifier,) = open_fleet(
        fleet.model_copy(update={"classifiers": {name: alone}, "multi": {}}), root=fleet_path.parent
    )
    return Target(fleet_path, text, name, classifier)


def search_and_compare(target: Target, arguments: argparse.Namespace) -> dict[str, Any]:
    """The serving to keep as `best`, and how it was found."""
    from slipway.benchmark.tuning import tune
    from slipway.benchmark.tuning_climb import ratio, rung_at
    from slipway.cli.tune_measure import Bench, described

    options, start = gate_options(target.name, arguments), target.classifier.serving
    over_s = time.monotonic() + 60 * arguments.minutes
    rungs, compared = {}, None
    with (
        tempfile.TemporaryDirectory(prefix="slipway-tune-") as folder,
        Bench(target.classifier, options, Path(folder)) as bench,
    ):
        tuned = tune(
            start,
            bench.searched,
            cores=len(os.sched_getaffinity(0)),
            rung=rung_at(arguments.start),
            in_budget=lambda: time.monotonic() < over_s and len(bench.evidence) < MAX_RUNS,
        )
        searched = len(bench.evidence)
        if tuned.serving != start:
            print(f"best of the search: {described(tuned.serving)}; compared with the start:", flush=True)
            sides = {"before": start, "after": tuned.serving}
            rungs = bench.compared(sides, rung=tuned.rung, rounds=arguments.rounds)
            compared = ratio(rungs["after"], to=rungs["before"])
    better = compared is not None and compared.beyond_spread
    return {
        "best": tuned.serving if better else start,
        "better": better,
        "search": {"runs": searched, "complete": tuned.complete, "best": tuned.serving.model_dump(mode="json")},
        "after_to_before": None if compared is None else asdict(compared),
        "rungs": rungs,
        "options": options.model_dump(mode="json"),
        "measurements": bench.evidence,
    }


def gate_options(name: str, arguments: argparse.Namespace) -> "GateOptions":
    from slipway.benchmark import GateOptions
    from slipway.benchmark.statistics import MIN_REQUESTS
    from slipway.contract import SpecError

    if arguments.requests < MIN_REQUESTS:
        raise SpecError(
            f"--requests {arguments.requests}: a block of so few shows nothing; give {MIN_REQUESTS} or more"
        )
    values = {
        "model": name,
        "images": arguments.images,
        "limit_ms": arguments.limit_ms,
        "deadline_ms": max(1000.0, 2 * arguments.limit_ms),
        "requests_per_block": arguments.requests,
        "warm_up_requests": arguments.requests // 10,
        "seed": arguments.seed,
    }
    return GateOptions.parse(values, source="the options given")


def verdict(found: dict[str, Any], best: str) -> str:
    search, compared = found["search"], found["after_to_before"]
    ended = "" if search["complete"] else "; the search ended with its budget, not with its settings"
    if compared is None:
        return f"KEPT: nothing better was found in {search['runs']} runs{ended}"
    spread = f"{compared['mean']:.2f} times the rate ({compared['least']:.2f} to {compared['most']:.2f}){ended}"
    if found["better"]:
        return f"BETTER: {best} holds {spread}"
    return f"KEPT: the best of the search holds {spread}, which is not better beyond the spread"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("path", type=Path, metavar="FLEET.yaml|RUN", help="a fleet file, or a folder with bundle/ and engines/")
    add("--images", type=Path, required=True, metavar="FOLDER", help="image files in it and below it are sent")
    add("--limit-ms", type=float, default=50.0, help="the limit on P99 (%(default)g)")
    add("--classifier", metavar="NAME", help="of the fleet; may be left out where there is one")
    add("--dry-run", action="store_true", help="search, and say what would be written")
    add("--start", type=float, default=50.0, metavar="PER_S", help="the first rate that is tried (%(default)g)")
    add("--minutes", type=float, default=10.0, help="after which the search tries nothing more (%(default)g)")
    add("--rounds", type=int, default=5, help="of the comparison at the end (%(default)s)")
    add("--requests", type=int, default=500, metavar="N", help="of a block; 459 or more (%(default)s)")
    add("--seed", type=int, default=0, help="of arrivals and order of images (%(default)s)")
    add(
        "--output",
        type=file_option(("better",), what="the evidence of tune.py"),
        metavar="JSON",
        help="the evidence (default: FLEET.NAME.tuning.json beside the fleet)",
    )
    add("--json", action="store_true", help="one JSON line last")
    return parser
