"""One HTML page of result files: verdicts, tails, rates, steps, comparisons, and what a million images cost."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import SpecError

if TYPE_CHECKING:
    from slipway.benchmark.page import Accuracy, Priced, ResultFile

PRICES = Path(__file__).with_name("prices.yaml")
EPILOG = """examples:
  slipway speed result.json --out report.html
  slipway speed capacity.json --engine runs/digits/engines/openvino-int8 --price cpu-2 --out report.html
  slipway speed benchmarks/results/{layouts,robustness,verdict}.json --out report.html

A RESULT is what gate.py (with --find-capacity or without), perf_analyzer.py, layouts.py, robustness.py or verdict.py
wrote; any of them, in any number. The page holds everything and loads nothing: send it as it is.

Cost of a million images = price of an hour / (images a second * 3600) * 1,000,000, at the rate that a gate showed to
hold its limit on P99: where none was shown there is no cost. Prices are examples: edit src/slipway/cli/prices.yaml.
Traffic has nights: --utilisation says for how much of the time the machine is busy.

An accuracy stands beside each speed where --engine names the engine that was served; its bundle must be the one that
answered."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.benchmark.page import Accuracy, cards, cost_lines, costs, read_files, render
    from slipway.pages import check_page, write  # not at the top: --help needs no library

    check_page(arguments.out, kind="benchmark report")
    files = read_files(arguments.results)
    accuracies = [Accuracy.open(path) for path in arguments.engine]
    check_bundles(files, accuracies)
    price, utilisation = chosen_price(arguments), arguments.utilisation
    page = render(files, accuracies=accuracies, price=price, utilisation=utilisation)
    write(page, arguments.out, kind="benchmark report")
    print(f"{arguments.out}: {len(files)} result file(s), {arguments.out.stat().st_size / 1e6:.2f} MB")
    shown = cards(files, accuracies)
    for card in shown:
        print(f"  {card.file.name}: {f'{card.verdict}: ' if card.verdict else ''}{card.headline}")
        for caveat in card.caveats:
            print(f"    {caveat}")
    found = costs(files, accuracies, price, utilisation=utilisation) if price else []
    if price:
        print("\n".join(cost_lines(found, price, utilisation=utilisation)))
    if arguments.json:
        verdicts = {card.file.name: card.verdict or None for card in shown}
        print(json.dumps({"report": str(arguments.out), "verdicts": verdicts, "costs": [vars(cost) for cost in found]}))


def check_bundles(files: "tuple[ResultFile, ...]", accuracies: "list[Accuracy]") -> None:
    """Each engine belongs to a measurement, and to each measurement one engine."""
    measured = {bundle for file in files if (bundle := getattr(file.result, "bundle", None))}
    for accuracy in accuracies:
        if accuracy.bundle not in measured:
            given = ", ".join(sorted(bundle[:12] for bundle in measured)) or "none"
            raise SpecError(
                f"--engine {accuracy.engine} is of bundle {accuracy.bundle[:12]}; the results are of {given}"
            )
    if len({accuracy.bundle for accuracy in accuracies}) < len(accuracies):
        raise SpecError("two engines of one bundle: an answer does not say which it came from; give the one served")


def chosen_price(arguments: argparse.Namespace) -> "Priced | None":
    from slipway.benchmark.page import Priced, Prices

    if arguments.price:
        return Prices.read(arguments.prices).row(arguments.price)
    if arguments.price_per_hour:
        return Priced("The price that was given.", arguments.price_per_hour, arguments.currency, cores=None)
    return None


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("results", type=Path, nargs="+", metavar="RESULT", help="a JSON file of measurements")
    add("--out", type=Path, required=True, metavar="HTML", help="the page")
    add(
        "--engine",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="that was served: its accuracy stands beside the speed (may be repeated)",
    )
    price = parser.add_mutually_exclusive_group()
    price.add_argument("--price", metavar="NAME", help="a machine of the price table")
    price.add_argument("--price-per-hour", type=positive, metavar="X", help="what an hour of the machine costs")
    add("--currency", default="USD", help="of --price-per-hour (%(default)s)")
    add("--prices", type=Path, default=PRICES, metavar="YAML", help="the table (default: src/slipway/cli/prices.yaml)")
    add("--utilisation", type=share, default=0.5, metavar="SHARE", help="of the time that it is busy (%(default)g)")
    add("--json", action="store_true", help="one JSON line last")
    return parser


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not allowed: give a number above 0")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: give a share above 0 and up to 1")
    return value
