"""Write the HTML page of result files: verdicts, tails, rates, steps, comparisons, the cost of a million images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import SpecError
from slipway.system.arguments import above_zero, positive
from slipway.system.json_line import print_json, verb_parser

if TYPE_CHECKING:
    from slipway.benchmark.page import Accuracy, Priced, ResultFile

PRICES = Path(__file__).with_name("prices.yaml")
EPILOG = """examples:
  slipway speed result.json --out speed.html
  slipway speed capacity.json --engine runs/digits/engines/openvino-int8 --price cpu-2 --out speed.html
  slipway speed benchmarks/results/{efficiency,peers,robustness,verdict}.json --out speed.html

A RESULT is a file of slipway gate (with or without --find-capacity), of slipway perf-analyzer, or of the studies
efficiency, peers, robustness and verdict. Give as many as you like. The page is self-contained.

Cost of a million images = price of an hour / (images per second * 3600) * 1,000,000, at a rate for which a gate showed
that P99 is within its limit; without such a rate no cost is shown. The prices of src/slipway/cli/prices.yaml are
examples. --utilisation is the share of time for which the machine is busy, since traffic is lower at night.

With --engine, the accuracy of the served engine stands beside each speed; its bundle must be the one that answered."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.benchmark.page import Accuracy, cards, cost_lines, costs, read_files, render
    from slipway.pages import check_page, write  # not at the top: --help needs no library

    check_page(arguments.out, kind="speed page")
    files = read_files(arguments.results)
    accuracies = [Accuracy.open(path) for path in arguments.engine]
    check_bundles(files, accuracies)
    price, utilisation = chosen_price(arguments), arguments.utilisation
    page = render(files, accuracies=accuracies, price=price, utilisation=utilisation)
    write(page, arguments.out, kind="speed page")
    print(f"{arguments.out}: {len(files)} result file(s), {arguments.out.stat().st_size / 1e6:.2f} MB")
    shown = cards(files, accuracies)
    for card in shown:
        print(f"  {card.file.name}: {f'{card.verdict}: ' if card.verdict else ''}{card.summary}")
        for caveat in card.caveats:
            print(f"    {caveat}")
    found = costs(files, accuracies, price, utilisation=utilisation) if price else []
    if price:
        print("\n".join(cost_lines(found, price, utilisation=utilisation)))
    verdicts = {card.file.name: card.verdict or None for card in shown}
    print_json(arguments, {"page": str(arguments.out), "verdicts": verdicts, "costs": [vars(cost) for cost in found]})


def check_bundles(files: "tuple[ResultFile, ...]", accuracies: "list[Accuracy]") -> None:
    """Check that each engine belongs to a measurement, and that no measurement has two engines."""
    measured = {bundle for file in files if (bundle := getattr(file.result, "bundle", None))}
    for accuracy in accuracies:
        if accuracy.bundle not in measured:
            given = ", ".join(sorted(bundle[:12] for bundle in measured)) or "none"
            raise SpecError(
                f"--engine {accuracy.engine} belongs to bundle {accuracy.bundle[:12]}; the results are of {given}"
            )
    if len({accuracy.bundle for accuracy in accuracies}) < len(accuracies):
        raise SpecError("two engines of one bundle: an answer does not say which it came from; give the one served")


def chosen_price(arguments: argparse.Namespace) -> "Priced | None":
    from slipway.benchmark.page import Priced, Prices

    if arguments.price:
        return Prices.read(arguments.prices).row(arguments.price)
    if arguments.price_per_hour:
        return Priced("The price given by --price-per-hour.", arguments.price_per_hour, arguments.currency, cores=None)
    return None


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("results", type=Path, nargs="+", metavar="RESULT", help="a JSON file of measurements")
    add("--out", type=Path, required=True, metavar="HTML", help="page to write")
    add(
        "--engine",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="engine that was served, to show its accuracy beside the speed (may be repeated)",
    )
    price = parser.add_mutually_exclusive_group()
    price.add_argument("--price", metavar="NAME", help="a machine of the price table")
    price.add_argument("--price-per-hour", type=positive, metavar="X", help="price of an hour of the machine")
    add("--currency", default="USD", help="currency of --price-per-hour")
    add("--prices", type=Path, default=PRICES, metavar="YAML", help="the table; default: src/slipway/cli/prices.yaml")
    add("--utilisation", type=share, default=0.5, metavar="SHARE", help="share of busy time")
    return parser


def share(text: str) -> float:
    return above_zero(text, f"{text} is not allowed: give a share above 0 and up to 1", most=1)
