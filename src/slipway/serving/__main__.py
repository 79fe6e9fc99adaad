"""Serve a model repository with the real tritonserver on 127.0.0.1, until Ctrl-C or SIGTERM."""

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path

from slipway.contract import ServingError
from slipway.contract.cli import run
from slipway.serving import Ports, serve

EPILOG = """example:
  python -m slipway.serving model_repository/example
  python clients/classify_grpc.py image.jpg --model colours

The server listens on 127.0.0.1 only. It is ready when every ensemble has answered an image."""


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: argparse.Namespace) -> None:
    ports = Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port)
    for ending in ENDINGS:
        signal.signal(ending, _stop)
    with serve(
        arguments.repository, ports=ports, log=arguments.log, timeout_s=arguments.timeout_s, progress=_say
    ) as server:
        _say(f"ready after {server.seconds_to_ready:.1f} s: gRPC {server.grpc_url}, HTTP {server.http_url}")
        if arguments.json:
            ready = {"pid": server.process.pid, "grpc": server.grpc_url, "http": server.http_url}
            print(json.dumps(ready), flush=True)
        while server.process.poll() is None:
            time.sleep(0.2)
        raise ServingError(f"tritonserver ended by itself with exit code {server.process.returncode}")


def _stop(*_: object) -> None:
    """Leave the block that serves, so that it cleans up; a second, impatient signal does not cut that short."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    _say("stopping")
    sys.exit(0)


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; use seconds above 0")
    return seconds


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slipway.serving",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("repository", type=Path, help="folder that build/assemble.py wrote")
    parser.add_argument("--http-port", type=_port, default=8000, help="default: %(default)s")
    parser.add_argument("--grpc-port", type=_port, default=8001, help="default: %(default)s")
    parser.add_argument("--metrics-port", type=_port, default=8002, help="default: %(default)s")
    parser.add_argument("--timeout-s", type=_seconds, default=120.0, help="to be ready within; default: %(default)s")
    parser.add_argument("--log", type=Path, help="keep the server's log in this file")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout when ready")
    return parser


if __name__ == "__main__":
    run(main, parser())
