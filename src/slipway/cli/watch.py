"""Watch the journal: have images changed, and how accurate are the answers?"""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import SpecError
from slipway.system.arguments import Parser, positive
from slipway.system.json_line import add_actions, print_json, verb_parser
from slipway.system.process import told_to_end

if TYPE_CHECKING:
    from slipway.operations.gateway.settings import GatewaySettings

EPILOG = """example:
  slipway serve model_repository/cpu --gateway gateway.yaml &
  slipway journal run gateway.yaml &
  slipway watch reference gateway.yaml runs/digits   # where the images of its test split are
  slipway watch run gateway.yaml &
  slipway watch status gateway.yaml
  slipway watch restart gateway.yaml digits --reason "lamp replaced"

in gateway.yaml, beside observe:
  watch:
    rows_between_false_alarms: 432000   # average for each classifier, at least
    accuracy_points: 2                  # loss of accuracy or recall tolerated without an alarm, in percentage points
    reference_rows: 1000                # unchanged live rows that replace the test split as reference of drift
    metrics_port: 8006                  # GET http://127.0.0.1:8006/metrics, and / is a page

reference sends the test split of RUN/bundle through the server, and keeps the answers in the journal's folder. A new
bundle needs a new reference. run may be killed at any moment: no row is counted twice.

status says what has changed since when, how accurate the answers are, and what to do. After an alarm was handled,
restart watches the rows from now on; with --live the newest rows become the reference (docs/watch.md)."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.operations.gateway.settings import read_settings  # not at the top: --help needs no library

    settings = read_settings(arguments.settings)
    if settings.observe is None:
        raise SpecError(f"{arguments.settings}: observe: not given, so that there is no journal; add observe: {{}}")
    if settings.watch is None:
        raise SpecError(f"{arguments.settings}: watch: not given; add watch: {{}}")
    arguments.run(arguments, settings)


def run(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.watch.page import MachinePrice
    from slipway.operations.watch.run import run_watch
    from slipway.serving.messages import Messages

    given = arguments.price_per_hour
    price = MachinePrice(given, arguments.currency, "The price given by --price-per-hour.") if given else None
    ended = told_to_end()
    with closing(Messages(sys.stderr.fileno())) as messages:
        found = run_watch(settings, ended=ended, say=messages.say, once=arguments.once, price=price)
    print_json(arguments, {"classifiers": {one.classifier: {"rows": one.rows, "alarms": one.alarms} for one in found}})


def status(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.watch.status import status_of

    found = status_of(settings)
    for line in found.lines():
        print(line)
    print_json(arguments, found.plain())


def reference(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.contract import Bundle
    from slipway.operations.journal.replay import ports_behind
    from slipway.operations.journal.store import Store
    from slipway.operations.watch.measure import make_reference
    from slipway.operations.watch.status import check_no_alarm
    from slipway.operations.watch.test_split import write_reference

    run = arguments.run_folder
    bundle = Bundle.open(run / "bundle" if (run / "bundle").is_dir() else run)
    name = arguments.classifier or bundle.spec.name
    with Store.of(settings, make=True) as store:  # the reference may be there before the first row
        check_no_alarm(store, name, bundle=bundle.id)
    port = ports_behind(settings.folder, otherwise={})
    print(f"{bundle.path}: asking the server for its test split", flush=True)
    made = make_reference(bundle, classifier=name, port=port.get("stable", settings.stable.grpc))
    path = write_reference(settings.journal, made)
    print(f"{path}: {name}, bundle {made.bundle:.12}, {made.rows:,} images of the test split")
    if made.refused:
        print(f"  {made.refused:,} images were refused by the server, and are left out")
    print(
        f"  accuracy {made.accuracy:.2%} as the server answers; class means: {'yes' if made.means else 'no embedding'}"
    )
    if made.drift is None:
        print(f"  {made.rows} images are too few for drift, which needs 100: it waits for a live reference")
    print_json(
        arguments,
        {
            "reference": str(path),
            "bundle": made.bundle,
            "images": made.rows,
            "refused": made.refused,
            "accuracy": made.accuracy,
            "drift": made.drift is not None,
        },
    )


def restart(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.journal.store import Store
    from slipway.operations.watch.restarts import add_restart
    from slipway.operations.watch.status import watched_state
    from slipway.system.text import shown

    assert settings.watch is not None, "main has checked it"
    live = settings.watch.reference_rows if arguments.live else None
    with Store.of(settings, make=False) as store:
        state = watched_state(store, arguments.classifier)
        entry = add_restart(store, state, reason=arguments.reason, live=live)
    handled = shown(entry.alarm or "no alarm")
    print(f"{arguments.classifier}: drift detection restarts after row {entry.after_row}; handled: {handled}")
    print_json(arguments, entry.plain())


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    known = {
        "reference": (reference, "send a bundle's test split through the server: what the watch compares with"),
        "run": (run, "watch the journal's rows, until Ctrl-C"),
        "status": (status, "say what has changed, how accurate the answers are, and what to do"),
        "restart": (restart, "mark an alarm as handled and restart drift detection"),
    }
    shared = Parser(add_help=False)
    shared.add_argument("settings", type=Path, metavar="FILE", help="the gateway's settings, with observe: and watch:")
    made = add_actions(parser, "watch", known, shared)
    made["reference"].add_argument("run_folder", type=Path, metavar="RUN", help="run (or bundle) that is served")
    made["reference"].add_argument("--classifier", help="name in the repository; default: the spec's name")
    made["run"].add_argument("--once", action="store_true", help="end after one look at the journal")
    made["run"].add_argument(
        "--price-per-hour", type=positive, metavar="X", help="price of this machine, for the page's cost"
    )
    made["run"].add_argument("--currency", default="USD", help="currency of the price")
    made["restart"].add_argument("classifier", metavar="CLASSIFIER", help="name in the repository")
    made["restart"].add_argument("--reason", required=True, help="the cause and the remedy; kept with your name")
    made["restart"].add_argument(
        "--live", action="store_true", help="live traffic is as it should be: its newest rows become the reference"
    )
    return parser
