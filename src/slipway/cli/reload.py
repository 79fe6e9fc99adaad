"""Make a running server read its repository again, and its gateway the settings, without refusing a request."""

import argparse

from slipway.serving.ports import Ports
from slipway.system.arguments import port, seconds
from slipway.system.json_line import print_json, verb_parser

EPILOG = """example:
  slipway assemble fleet.yaml && slipway reload
  slipway reload --status-port 8103 --json

slipway serve keeps answering with the old repository until every new model answers; then it switches, prints the
changes, and unloads the old models. An image that is served by a tag is looked up again. If the new repository cannot
be served, the old one stays, and the exit code is 1.

With slipway serve --gateway, the gateway reads its settings, keys and certificate again. If one of them is wrong, the
gateway keeps its old settings, and the exit code is 1; the new repository may be served by then. Send SIGUSR1 to a
gateway that runs alone.

The server's key is in SLIPWAY_ADMIN_KEY, or in a file of the same user below ~/.local/state/slipway."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.serving.reload_request import request_reload  # not at the top: --help needs no library

    changed = request_reload(arguments.status_port, timeout_s=2 * arguments.timeout_s, with_gateway=True)
    print(changed)
    print_json(arguments, {"done": True, "message": changed})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("--status-port", type=port, default=Ports().status, help="--status-port of slipway serve")
    add("--timeout-s", type=seconds, default=120.0, help="seconds for the load; waits twice that")
    return parser
