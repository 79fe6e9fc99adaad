#!/usr/bin/env python3
"""Measure what serving costs: the rate that Triton holds with P99 < 50 ms, as a share of what the work alone allows."""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies.study import provenance, study_parser
from slipway.system.targets import write_file

if TYPE_CHECKING:
    from benchmarks.studies.efficiency.result import FullEfficient
    from benchmarks.studies.effort import Effort
    from slipway.repository import Classifier


BACKBONES = ("mobilenetv3_large_100", "efficientnet_b0", "resnet50")
BATCHES = (1, 2)
IMAGES = 256
TARGETS = {"steps": 0.80, "shared_decode": 0.80, "fused": 0.88}
LIBRARIES = ("hdrhistogram", "nvidia-dali-cuda130", "nvidia-pytriton", "openvino", "tritonclient")
EPILOG = """examples:
  python -m benchmarks.studies.efficiency --out benchmarks/results/efficiency.json       30 minutes on two cores
  git worktree add ../former 52eae4e6 && python -m benchmarks.studies.efficiency --former ../former
  python -m benchmarks.studies.efficiency --quick                                           fewer, shorter rounds
  python -m benchmarks.studies.efficiency --run runs/digits --images runs/digits/data       a classifier of your own

Four sides do the same work on the same cores: Triton with the layouts steps, shared_decode and fused, and a pool of as
many worker processes, which run the same step files with the same threads on images that they have already. The pool
is what the work alone allows; what Triton does not reach of it is the cost of serving. All are pinned, each instance to
cores of its own. In steps and shared_decode half of the processes decode, and half run the engine. Each side first
searches the batch that suits it best. A fifth side is steps with its defaults, which is what serving.layout meant until
auto: two processes of each step, unpinned, and batches of up to 8. With --former, a sixth side is the default of an
earlier revision: assembled, launched and served by its own code, from a checkout of it.

In every round each side climbs the same grid of rates (10 % from one to the next), in turns, on the same seeded Poisson
arrivals. It holds a rate where at most one request in a hundred takes over 50 ms and 99 % of the rate is achieved. Its
capacity is the highest rate that it holds. The client shares the cores, and goes before them all; speaking HTTP it
costs more than a pipe does, which is a part of what serving costs.

Then an image's time is taken apart, asked one by one, and the processor time that it took is counted. Without --run:
networks with random weights in INT8, 224 pixels, of 512-pixel JPEGs. They cost what trained ones cost, and say
nothing."""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.efficiency.result import FullEfficiencyResult
    from benchmarks.studies.effort import effort_of
    from benchmarks.studies.former import commit_of

    effort = effort_of(arguments)
    # Before anything is written: a result among the files of the repository would make its commit a dirty one.
    origin = provenance(LIBRARIES)
    former_commit = commit_of(arguments.former) if arguments.former else None
    classifiers: dict[str, FullEfficient] = {}
    with tempfile.TemporaryDirectory(prefix="slipway-efficiency-") as folder:
        for classifier, images in subjects(arguments, Path(folder)):
            work = Path(folder) / f"{classifier.name}-served"
            work.mkdir()
            found = classifiers[classifier.name] = efficiency(classifier, images, arguments, effort, work)
            print("\n".join(summary(classifier.name, found, arguments)), flush=True)
            result = FullEfficiencyResult(
                **origin,
                **vars(effort),
                client_shares_the_cores=True,
                targets=TARGETS,
                former_commit=former_commit,
                classifiers=classifiers,
            )
            if arguments.out:  # after each classifier, so that its result is kept
                write_file(arguments.out, result.to_json())
                print(f"written to {arguments.out}", flush=True)
    if arguments.json:
        print(json.dumps(result.plain()))


def subjects(arguments: argparse.Namespace, folder: Path) -> "Iterator[tuple[Classifier, Sequence[bytes]]]":
    """Yield the classifiers to measure, each with its images."""
    from benchmarks.studies.efficiency.classifier import open_classifier, random_classifier
    from slipway.benchmark.gate import load_images
    from slipway.contract import Bundle, SpecError
    from slipway.engines.child import run_in_child
    from slipway.repository import pick_engines

    if arguments.run:
        if arguments.former:
            raise SpecError("--former is for networks with random weights, which it makes again; leave out --run")
        if not arguments.images:
            raise SpecError("--run asks for --images too: a folder of images for this classifier")
        chosen = pick_engines(Bundle.open(arguments.run / "bundle"), arguments.run / "engines", lane="cpu")
        yield chosen, load_images(arguments.images, seed=arguments.seed)
        return
    for backbone in arguments.backbones:
        print(f"{backbone}: network, INT8 and images; about a minute", flush=True)
        # In a process of its own: torch in the client's would make its garbage collections long.
        made = run_in_child(
            random_classifier, what=backbone, backbone=backbone, folder=folder / backbone, images=IMAGES
        )
        yield open_classifier(made), load_images(made / "images", seed=arguments.seed)


def efficiency(
    classifier: "Classifier", images: "Sequence[bytes]", arguments: argparse.Namespace, effort: "Effort", work: Path
) -> "FullEfficient":
    """Measure the rates that the sides hold with their best batches, the layouts' shares, and the parts of an image's
    time."""
    from benchmarks.studies.climbing import Bench, share
    from benchmarks.studies.efficiency.load import one_by_one
    from benchmarks.studies.efficiency.result import FullEfficient
    from benchmarks.studies.efficiency.sides import AUTO, FORMER, PLAIN, POOL, all_sides
    from benchmarks.studies.memory.measure import proportional_mib
    from slipway.benchmark.tuning import NONE
    from slipway.contract import GateError
    from slipway.contract.evidence.latency import rate_at
    from slipway.contract.serving import settle

    settings = {"threads": arguments.threads, "instances": arguments.workers, "pinned": True}
    given = classifier.serving.model_copy(update=settings)
    serving = settle(given, cores=arguments.workers * arguments.threads, classifiers=1)
    bench = Bench(len(images), effort)
    with all_sides(classifier, images, serving, work, batches=arguments.batches, former=arguments.former) as candidates:
        connects = {
            kind: {name: side.connect for name, side in of_kind.items()} for kind, of_kind in candidates.items()
        }
        best = {kind: bench.best(of_kind) for kind, of_kind in connects.items()}
        print(f"{classifier.name}: " + "; ".join(f"{kind} with {name}" for kind, (name, _) in best.items()), flush=True)
        chosen = {kind: candidates[kind][name] for kind, (name, _) in best.items()}
        parts, processor = one_by_one(chosen, images=len(images), chunks=4 if arguments.quick else 15)
        memory_mib = {kind: proportional_mib(side.pid) for kind, side in chosen.items()}
        rungs = bench.rounds(
            {kind: side.connect for kind, side in chosen.items()}, {kind: rung for kind, (_, rung) in best.items()}
        )
        if none := [kind for kind, of_kind in rungs.items() if NONE in of_kind]:
            lowest = f"{rate_at(0):g} requests/s"
            raise GateError(f"{', '.join(none)}: P99 over {effort.limit_ms:g} ms at {lowest} too; end what else runs")
        tails = bench.tails({kind: chosen[kind].connect for kind in (POOL, AUTO)}, rungs)
    return FullEfficient(
        precision=classifier.engine.settings.precision,
        graph_sha256=classifier.engine.settings.graph_sha256,
        serving=serving.model_dump(mode="json", exclude={"layout", "preferred_batch_size"}),
        batches={kind: name for kind, (name, _) in best.items()},
        memory_mib=memory_mib,
        distinct_images=len(set(images)),
        auto_to_plain=share(rungs, AUTO, of=PLAIN),
        auto_to_former=share(rungs, AUTO, of=FORMER) if FORMER in rungs else None,
        share_of_pool={kind: share(rungs, kind, of=POOL) for kind in TARGETS},
        capacity_per_s={kind: tuple(map(rate_at, of_kind)) for kind, of_kind in rungs.items()},
        tail=tails,
        one_by_one_ms=parts,
        processor_ms=processor,
        blocks=tuple(bench.blocks),
    )


def summary(name: str, found: "FullEfficient", arguments: argparse.Namespace) -> Iterator[str]:
    from benchmarks.studies.climbing import tail_line

    yield f"\n{name}, {found.precision}: P99 within {arguments.limit_ms:g} ms is held up to"
    for side, rates in found.capacity_per_s.items():
        line = f"  {side:13} {min(rates):4.0f} to {max(rates):.0f} requests/s in {len(rates)} rounds"
        line += f", {found.batches[side]}"
        if share := found.share_of_pool.get(side):
            spread = f"({share.least:.2f} to {share.most:.2f}; target {TARGETS[side]:.2f})"
            line += f": {share.mean:.2f} of the pool {spread}"
        yield f"{line}; {found.memory_mib[side]:.0f} MiB"
    for former, gain in (
        ("steps with its defaults", found.auto_to_plain),
        ("the former default", found.auto_to_former),
    ):
        if gain:
            spread = f"({gain.least:.2f} to {gain.most:.2f})"
            yield f"what auto chooses, fused, holds {gain.mean:.2f} times as much as {former} {spread}"
    for side, tail in found.tail.items():
        yield f"  {side:13} {tail_line(tail, arguments.workers)}"
    processor_ms = {side: spent["server"] + spent["client"] for side, spent in found.processor_ms.items()}
    yield "processor time of an image, ms, and the pool's share of it: what the rates could be at best"
    for side, spent in found.processor_ms.items():
        best = processor_ms["pool"] / processor_ms[side]
        yield f"  {side:13} {processor_ms[side]:.2f}, of which {spent['client']:.2f} the client's: {best:.2f}"
    yield "one image at a time, ms"
    for side, parts in found.one_by_one_ms.items():
        yield f"  {side:13} {parts['client']:.2f} for the client, of which {parts['rest']:.2f} in no step"
        steps = dict.fromkeys(part.split()[0] for part in parts if " " in part)
        for step in steps:
            inner = (f"{part.split()[1]} {ms:.2f}" for part, ms in parts.items() if part.split()[0] == step)
            yield f"         {step:10} " + "  ".join(inner)


def parser() -> argparse.ArgumentParser:
    from benchmarks.studies.effort import add_effort

    parser = study_parser(__doc__, epilog=EPILOG, keys=("classifiers",))
    add = parser.add_argument
    add(
        "--backbones",
        nargs="+",
        default=BACKBONES,
        metavar="NAME",
        help=f"timm models; default: {' '.join(BACKBONES)}",
    )
    add("--run", type=Path, metavar="RUN", help="a folder with bundle/, engines/ and a choice, in their place")
    add("--images", type=Path, metavar="FOLDER", help="folder of images to send, with --run")
    add(
        "--workers",
        type=int,
        default=2,
        metavar="N",
        help="workers of the pool, and instances of the steps",
    )
    add("--threads", type=int, default=1, metavar="N", help="threads of each worker and instance")
    add(
        "--batches",
        type=int,
        nargs="+",
        default=BATCHES,
        metavar="N",
        help="waiting images that one takes at most; of several, each side gets its best; default: 1 2",
    )
    add("--former", type=Path, metavar="CHECKOUT", help="an earlier revision, whose default is a side too")
    add_effort(parser, rounds=6, search_rounds=2)
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
