"""Measure the cpu lane's engines against each other, end to end, and pin the fastest that passed its gate."""

import argparse
from pathlib import Path

from slipway.contract import Bundle
from slipway.system.arguments import count
from slipway.system.json_line import add_json, print_json
from slipway.system.text import command

EPILOG = """example:
  slipway choose runs/digits/bundle --engines runs/digits/engines

INT8 is not always faster than FP32 or BF16: that depends on the network and the processor. So the engines are timed
here, from encoded bytes to the answer, interleaved round by round. Run this on the kind of machine that serves.
slipway assemble --engines reads the result, choice.json."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.engines import choose  # not at the top: --help needs no library

    bundle = Bundle.open(arguments.bundle)
    choice = choose(bundle, arguments.engines, rounds=arguments.rounds, images_per_round=arguments.images)
    print(f"{choice.machine}, {choice.threads} thread(s), {choice.rounds} rounds of {choice.images_per_round} images")
    for candidate in choice.candidates:
        speed = "not measured"
        if candidate.median_ms is not None:
            speed = (
                f"{candidate.median_ms:7.2f} ms an image, {candidate.speed_to_fp32:.2f} times FP32's speed "
                f"({candidate.speed_low:.2f} to {candidate.speed_high:.2f})"
            )
        print(f"  {candidate.engine:<16}{speed}; gate: {candidate.verdict}")
    print(f"  chosen: {choice.chosen}")
    print(f"  next: {command('slipway assemble', arguments.bundle, '--engines', arguments.engines)}")
    print_json(arguments, choice.model_dump(mode="json"))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that slipway export wrote")
    parser.add_argument("--engines", type=Path, required=True, help="folder of engine folders, gets choice.json")
    parser.add_argument("--rounds", type=count, default=15, help="rounds of the comparison; default: %(default)s")
    parser.add_argument("--images", type=count, default=40, help="images per round; default: %(default)s")
    add_json(parser)
    return parser
