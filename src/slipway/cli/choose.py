"""Measure a lane's engines against each other, and pin the fastest that passed its gate."""

import argparse
from pathlib import Path

from slipway.contract import Choice
from slipway.contract.base_bundle import Base, open_network
from slipway.system.arguments import count
from slipway.system.json_line import print_json, verb_parser
from slipway.system.text import command

EPILOG = """example:
  slipway choose runs/digits/bundle --engines runs/digits/engines
  slipway choose runs/digits/bundle --engines runs/digits/engines --target tensorrt

INT8 is not always faster than FP32, FP16 or BF16: that depends on the network and the processor. So the engines are
timed here, interleaved round by round. Run this on the kind of machine that serves.

targets:
  openvino  the cpu lane, from encoded bytes to the answer, into choice.json
  tensorrt  the gpu lane, on this machine's GPU and in NVIDIA's image: a call with a single image and one with the
            largest batch, into choice-sm90.json and its like; slipway compile --target tensorrt ends with it

slipway assemble --engines reads the result."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.engines import choose, choose_plan  # not at the top: --help needs no library

    bundle = open_network(arguments.bundle)
    if arguments.target == "tensorrt":
        choice = choose_plan(bundle, arguments.engines, rounds=arguments.rounds, calls_per_round=arguments.images)
    else:
        choice = choose(bundle, arguments.engines, rounds=arguments.rounds, images_per_round=arguments.images)
    show(choice)
    lane = () if choice.card is None else ("--lane", "gpu")
    assembled = command("slipway assemble", arguments.bundle, "--engines", arguments.engines, *lane)
    head = command("slipway head", "SPEC", "--base", arguments.bundle.parent)
    print(f"  next: {head if isinstance(bundle, Base) else assembled}")
    print_json(arguments, choice.model_dump(mode="json"))


def show(choice: Choice) -> None:
    where = f"{choice.machine}, {choice.threads} thread(s)" if choice.card is None else str(choice.card)
    what, unit = ("images", "an image") if choice.card is None else ("calls of both sizes", "a call of each")
    print(f"{where}, {choice.rounds} rounds of {choice.images_per_round} {what}")
    for candidate in choice.candidates:
        speed = "not measured"
        if candidate.median_ms is not None:
            speed = (
                f"{candidate.median_ms:7.2f} ms {unit}, {candidate.speed_to_fp32:.2f} times FP32's speed "
                f"({candidate.speed_low:.2f} to {candidate.speed_high:.2f})"
            )
        print(f"  {candidate.engine:<18}{speed}; gate: {candidate.verdict}")
    print(f"  chosen: {choice.reason}")


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("bundle", type=Path, help="folder that slipway export wrote, or the base of slipway base")
    parser.add_argument("--engines", type=Path, required=True, help="folder of engine folders, gets the choice")
    parser.add_argument("--target", choices=("openvino", "tensorrt"), default="openvino", help="engines to compare")
    parser.add_argument("--rounds", type=count, default=15, help="rounds of the comparison")
    parser.add_argument("--images", type=count, default=40, help="images, or calls, per round")
    return parser
