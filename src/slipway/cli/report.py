"""Write the HTML page of a build: accuracy, flips, sizes, layers, speed, the decision and its reasons."""

import argparse
from pathlib import Path

from slipway.system.json_line import print_json, verb_parser

EPILOG = """example:
  slipway report runs/digits/bundle --engines runs/digits/engines

Everything on the page comes from files that earlier stages wrote, each checked against its manifest. For anything that
is missing, the page names the command that makes it. The page is self-contained. Run this where training ran, since the
flipped images are read from the data set."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.pages import check_page, write  # not at the top: --help needs no library

    beside = arguments.bundle.parent
    out = arguments.out or beside / "report.html"
    check_page(out, kind="build report")
    from slipway.report import Build, lane_verdicts, render, todos  # after the check: it takes seconds

    build = Build.open(arguments.bundle, engines=arguments.engines, graphs=arguments.graphs or beside / "graphs")
    write(render(build), out, kind="build report")
    print(f"{out}: {len(build.engines)} engines, {out.stat().st_size / 1e6:.2f} MB")
    served = {}
    for verdict in lane_verdicts(build):
        served[verdict.lane] = [engine.name for engine in verdict.serves]
        print(f"  {verdict.lane} lane: {'' if verdict.serves else 'nothing yet: '}{verdict.reason}")
    for todo in todos(build):
        print(f"  to do: {todo.what}")
    print_json(arguments, {"report": str(out), "served": served, "todo": [todo.what for todo in todos(build)]})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("bundle", type=Path, help="folder that slipway export or slipway import wrote")
    parser.add_argument(
        "--engines", type=Path, required=True, help="folder of engine folders, for example runs/digits/engines"
    )
    parser.add_argument("--graphs", type=Path, help="folder of graph folders; default: graphs beside the bundle")
    parser.add_argument("--out", type=Path, help="page to write; default: report.html beside the bundle")
    return parser
