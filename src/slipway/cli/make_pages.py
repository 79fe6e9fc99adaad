"""Write multi-label demo data: pages of one to three of scikit-learn's digits, and a CSV file of their labels."""

import argparse
from pathlib import Path

from slipway.system.json_line import print_json, verb_parser


def main(arguments: argparse.Namespace) -> None:
    from slipway.training.data.demo_data import write_pages  # not at the top: --help needs no library

    pages = write_pages(arguments.out, pages=arguments.pages, seed=arguments.seed)
    print(f"{arguments.out}: {pages} pages, their labels and splits in {arguments.out / 'pages.csv'}")
    print_json(arguments, {"data": str(arguments.out), "images": pages})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/pages/data"), help="folder to write")
    parser.add_argument("--pages", type=int, default=3000, help="number of pages, at least 100")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing")
    return parser
