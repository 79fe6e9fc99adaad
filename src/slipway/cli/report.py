"""One HTML page of what a build is worth: accuracy, flips, sizes, layers, speed, the decision and its reasons."""

import argparse
import json
from pathlib import Path

EPILOG = """example:
  slipway report runs/digits/bundle --engines runs/digits/engines

Everything on the page comes from files that the stages before wrote, each checked against its manifest; what is not
there yet is named with the command that makes it. The page holds its images and loads nothing: send it as it is. Run
this where training was run, since the flipped images are read from the data set."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.pages import check_page, write  # not at the top: --help needs no library
    from slipway.report import Build, lane_verdicts, render, todos

    beside = arguments.bundle.parent
    out = arguments.out or beside / "report.html"
    check_page(out, kind="build report")
    build = Build.open(arguments.bundle, engines=arguments.engines, graphs=arguments.graphs or beside / "graphs")
    write(render(build), out, kind="build report")
    print(f"{out}: {len(build.engines)} engines, {out.stat().st_size / 1e6:.2f} MB")
    served = {}
    for verdict in lane_verdicts(build):
        served[verdict.lane] = [engine.name for engine in verdict.serves]
        print(f"  {verdict.lane} lane: {'' if verdict.serves else 'nothing yet: '}{verdict.reason}")
    for todo in todos(build):
        print(f"  to do: {todo.what}")
    if arguments.json:
        print(json.dumps({"report": str(out), "served": served, "todo": [todo.what for todo in todos(build)]}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that slipway export or slipway import wrote")
    parser.add_argument(
        "--engines", type=Path, required=True, help="of engine folders, for example runs/digits/engines"
    )
    parser.add_argument("--graphs", type=Path, help="of graph folders; default: graphs beside the bundle")
    parser.add_argument("--out", type=Path, help="default: report.html beside the bundle")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser
