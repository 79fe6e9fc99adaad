"""Find the `serving` values with which a classifier holds the highest rate within its P99 limit, and write them."""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_file, file_option, write_file
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.benchmark import GateOptions
    from slipway.contract.evidence.tuning import TuningResult
    from slipway.contract.serving import Serving
    from slipway.repository import Classifier


EVIDENCE, EVIDENCE_IS = ("better",), "evidence of slipway tune"
LIBRARIES = {
    "cpu": (
        "grpcio",
        "hdrhistogram",
        "cykooz-resizer",
        "nvidia-nvimgcodec-cu13",
        "nvidia-pytriton",
        "openvino",
        "tritonclient",
    ),
    "gpu": ("grpcio", "hdrhistogram", "tritonclient"),
}
"""Libraries of the evidence. Those of the gpu lane's server are beside its card, under `gpu`."""
TRIAL: Mapping[str, Mapping[str, Any]] = {"cpu": {"instances": 1}, "gpu": {"gpu": {"engine_instances": 1}}}
"""A change that shows whether the fleet file can be changed."""
MAX_RUNS = 40
"""Largest number of measurements in the search."""
EPILOG = """examples:
  slipway tune fleet.yaml --images data/pets/test --limit-ms 50
  slipway tune runs/digits --images runs/digits/data --dry-run

The search covers layout, pinned, preferred_batch_size, instances with threads, and max_queue_delay_us, in the order of
the gain that each gave in our measurements. On the gpu lane it covers serving.gpu's engine_instances, decode_instances
with decode_threads, max_queue_delay_us and cuda_graphs, and needs the GPU and the server of that lane. It starts from
the present settings. A candidate differs from the best so far in one setting, and is tried at one rate, 10 % above the
best one's. If the gate finds its P99 within the limit in two blocks, it becomes the best, and its rate rises step by
step. So a candidate that is not better usually costs 15 s.

The best of many noisy measurements looks better than it is. So the start and the best are compared once more, in rounds
in which they take turns on the same arrivals. Unless the gain exceeds the spread of these rounds, the start is kept.

The classifier is measured alone, on this machine, with the client on the same cores: tune where it is served, with
nothing else running. The keys that differ are written into `serving` of this classifier in the fleet file (a RUN
without one gets RUN/fleet.yaml); comments stay. The evidence goes beside it. It takes about 8 minutes on two cores."""


@dataclass(frozen=True)
class TuningTarget:
    """The classifier to tune, and the fleet file that has its settings."""

    fleet: Path
    text: str
    name: str
    classifier: "Classifier"
    """The classifier, with every setting resolved that the fleet file and the spec leave open."""
    given: "Serving"
    """The `serving` settings as the fleet file and the spec give them."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.benchmark.tuning_fleet import replace_text, with_serving
    from slipway.cli.tune_measure import described
    from slipway.contract.evidence.latency import rate_at

    target = open_target(arguments.path, arguments.classifier)
    output = arguments.out or target.fleet.with_name(f"{target.fleet.stem}.{target.name}.tuning.json")
    if not arguments.dry_run:
        check_file(output, mark=EVIDENCE, what=EVIDENCE_IS)
        check_file(target.fleet, mark="classifiers", what="a fleet file")
    start, lane = target.classifier.serving, target.classifier.lane
    print(f"{target.name} at the start: {described(start, lane)}", flush=True)
    found = search_and_compare(target, arguments)
    changes = found.changes
    for side, rungs in found.rungs.items():
        rates = [rate_at(rung) for rung in rungs]
        print(f"{side:6} {min(rates):.0f} to {max(rates):.0f} requests/s in {len(rates)} rounds")
    print(verdict(found, described(found.chosen, lane)))
    if arguments.out or not arguments.dry_run:
        write_file(output, found.to_json())
        print(f"evidence: {output}")
    if changes:
        print(
            f"{'would write' if arguments.dry_run else 'written'} to {target.fleet}, {target.name}: serving: {changes}"
        )
        if not arguments.dry_run:
            # Read again: somebody may have edited it in the meantime.
            text = target.fleet.read_bytes().decode() if target.fleet.exists() else target.text
            replace_text(target.fleet, with_serving(text, target.name, changes))
            print(f"next: {command('slipway assemble', target.fleet, '--dry-run')}")
    print_json(arguments, found.plain())


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `after` that differ from `before`, nested values included."""
    changed = {key: value for key, value in after.items() if value != before[key]}
    return {key: differing(before[key], value) if isinstance(value, dict) else value for key, value in changed.items()}


def open_target(path: Path, name: str | None) -> TuningTarget:
    """Open one classifier of a fleet file, or that of a run.

    Raises:
        SpecError: the repository does not serve this classifier, or cannot tune it alone; or its lane is the gpu lane,
            and this machine has no GPU, or the classifier no plan.
    """
    from slipway.benchmark.tuning_fleet import with_serving
    from slipway.contract import Bundle, Fleet, SpecError
    from slipway.contract.serving import settle
    from slipway.repository.fleet import open_fleet
    from slipway.system.yaml_json import dump_yaml, parse_yaml

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
    if fleet.lane == "gpu":
        require_gpu_and_server(fleet_path)
    if members := [multi for multi, members in fleet.multi.items() if name in members]:
        raise SpecError(
            f"{fleet_path}: {name} shares its decode in {', '.join(members)}, whose serving must be equal; take it out "
            "of multi: to tune it, or set serving of all of them alike"
        )
    with_serving(text, name, TRIAL[fleet.lane])  # raises before the search if the file cannot be changed
    alone = fleet.classifiers[name].model_copy(update={"keep": ()})
    (classifier,) = open_fleet(
        fleet.model_copy(update={"classifiers": {name: alone}, "bases": {}, "multi": {}}), root=fleet_path.parent
    )
    if classifier.falls_back:
        raise SpecError(f"{fleet_path}: {name} has no TensorRT plan; compile one for this GPU, and tune that")
    given = classifier.serving
    if fleet.lane == "cpu":
        settled = settle(given, cores=len(os.sched_getaffinity(0)), classifiers=len(fleet.classifiers))
        classifier = replace(classifier, settings=settled)
    return TuningTarget(fleet_path, text, name, classifier, given)


def require_gpu_and_server(fleet: Path) -> None:
    """Raises SpecError: this machine has no GPU, or its tritonserver lacks the backends of the gpu lane."""
    from slipway.contract import SpecError
    from slipway.serving.binary import INSTALLED, installed_server
    from slipway.serving.doctor.gpu import find_gpus

    gpus, reason = find_gpus()
    if not gpus:
        raise SpecError(
            f"{fleet}: lane gpu, whose settings are measured on the GPU that serves; this machine shows none "
            f"({reason}); tune there"
        )
    if installed_server() is None:
        raise SpecError(
            f"{fleet}: lane gpu, whose settings are measured on NVIDIA's tritonserver; there is none on PATH, nor "
            f"{INSTALLED}; tune where it is, with slipway[serve,bench] installed there"
        )


def search_and_compare(target: TuningTarget, arguments: argparse.Namespace) -> "TuningResult":
    """The settings to keep, and the evidence for them."""
    from slipway.benchmark.tuning import ratio, rung_at, tune
    from slipway.cli.tune_measure import Bench, described
    from slipway.contract.card import cards
    from slipway.contract.evidence.origin import Origin
    from slipway.contract.evidence.tuning import TunedGpu, TuningResult, TuningSearch
    from slipway.contract.installed import Installed

    options = gate_options(target.name, arguments)
    start, lane = target.classifier.serving, target.classifier.lane
    over_s = time.monotonic() + 60 * arguments.minutes
    rungs, compared = {}, None
    with (
        tempfile.TemporaryDirectory(prefix="slipway-tune-") as folder,
        Bench(target.classifier, options, Path(folder)) as bench,
    ):
        tuned = tune(
            start,
            bench.searched,
            lane=lane,
            cores=len(os.sched_getaffinity(0)),
            rung=rung_at(arguments.start),
            in_budget=lambda: time.monotonic() < over_s and len(bench.evidence) < MAX_RUNS,
        )
        searched = len(bench.evidence)
        if tuned.serving != start:
            print(f"best of the search: {described(tuned.serving, lane)}; compared with the start:", flush=True)
            sides = {"before": start, "after": tuned.serving}
            rungs = bench.compared(sides, rung=tuned.rung, rounds=arguments.rounds)
            compared = ratio(rungs["after"], to=rungs["before"])
    better = compared is not None and compared.beyond_spread
    chosen = tuned.serving if better else start
    given, values = (serving.model_dump(mode="json") for serving in (target.given, chosen))
    return TuningResult(
        **Origin.here(LIBRARIES[lane]).fields(),
        better=better,
        search=TuningSearch(runs=searched, complete=tuned.complete, best=tuned.serving),
        after_to_before=compared,
        rungs={side: tuple(held) for side, held in rungs.items()},
        options=options,
        measurements=tuple(bench.evidence),
        start=start,
        chosen=chosen,
        changes=differing(given, values) if better else {},
        gpu=TunedGpu(card=cards()[0], **asdict(Installed.here())) if lane == "gpu" else None,
    )


def gate_options(name: str, arguments: argparse.Namespace) -> "GateOptions":
    from slipway.benchmark import GateOptions
    from slipway.benchmark.statistics import MIN_REQUESTS
    from slipway.contract import SpecError

    if arguments.requests < MIN_REQUESTS:
        raise SpecError(
            f"--requests {arguments.requests}: a block of so few requests proves nothing; give {MIN_REQUESTS} or more"
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


def verdict(found: "TuningResult", best: str) -> str:
    search, compared = found.search, found.after_to_before
    ended = "" if search.complete else "; the search ran out of its budget before it had tried everything"
    if compared is None:
        return f"KEPT: nothing better was found in {search.runs} runs{ended}"
    spread = f"{compared.mean:.2f} times the rate ({compared.least:.2f} to {compared.most:.2f}){ended}"
    if found.better:
        return f"BETTER: {best} holds {spread}"
    return f"KEPT: the best of the search holds {spread}, which is not better beyond the spread"


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("path", type=Path, metavar="FLEET_OR_RUN", help="a fleet file, or a folder with bundle/ and engines/")
    add("--images", type=Path, required=True, metavar="FOLDER", help="folder of images to send, searched recursively")
    add("--limit-ms", type=float, default=50.0, help="the limit on P99")
    add("--classifier", metavar="NAME", help="classifier of the fleet; not needed if it has only one")
    add("--dry-run", action="store_true", help="search, and print the changes without writing them")
    add("--start", type=float, default=50.0, metavar="PER_S", help="first rate to try")
    add("--minutes", type=float, default=10.0, help="time limit of the search")
    add("--rounds", type=int, default=5, help="rounds of the final comparison")
    add("--requests", type=int, default=500, metavar="N", help="requests per block; 459 or more")
    add("--seed", type=int, default=0, help="seed of the arrivals and the order of the images")
    add(
        "--out",
        type=file_option(EVIDENCE, what=EVIDENCE_IS),
        metavar="FILE",
        help="file for the evidence; default: FLEET.NAME.tuning.json beside the fleet",
    )
    return parser
