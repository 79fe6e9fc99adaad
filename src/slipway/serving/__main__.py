"""Serve a model repository with the real tritonserver on 127.0.0.1 until Ctrl-C or SIGTERM; bring back what dies."""

import argparse
import http.client
import json
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

from slipway.contract import ServingError
from slipway.contract.cli import run
from slipway.serving.command import HOST, Ports

EPILOG = """example:
  python -m slipway.serving model_repository/example
  python clients/classify_grpc.py image.jpg --model colours
  curl http://127.0.0.1:8003/ready
  python -m slipway.serving --reload         # in another terminal, after build/assemble.py wrote the repository anew

The server listens on 127.0.0.1 only: the wheel's tritonserver has known vulnerabilities. To serve others, run the gpu
lane in NVIDIA's current image (build/container.py serve), or put a proxy in front of the inference ports alone.

The supervisor's own port answers GET /live, /ready, /ready/<classifier>, /metrics and, with the key, POST /reload. The
key is in SLIPWAY_ADMIN_KEY, or in a file of yours below ~/.local/state/slipway. What happens is said on stderr: to a
terminal in words, elsewhere as one JSON line each."""


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: argparse.Namespace) -> None:
    ports = Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port, arguments.status_port)
    if arguments.reload:
        return _ask_for_reload(ports.status, timeout_s=2 * arguments.timeout_s)
    if arguments.host not in (HOST, "localhost"):
        raise ServingError(
            f"--host {arguments.host}: the wheel's tritonserver has known vulnerabilities and listens on {HOST} alone; "
            "serve others from NVIDIA's current image (build/container.py serve), or put a proxy in front of the "
            "inference ports"
        )
    return _serve(arguments, ports)


def _serve(arguments: argparse.Namespace, ports: Ports) -> None:
    for ending in ENDINGS:  # first, since what follows takes time
        signal.signal(ending, _stop)
    from slipway.serving.endpoint import endpoint  # not at the top: --help needs no library
    from slipway.serving.key import offered_key
    from slipway.serving.status import Status
    from slipway.serving.supervisor import Supervisor

    def event(name: str, message: str, **fields: Any) -> None:
        _say(name, message, **fields)
        if name == "ready" and arguments.json:
            here = {"pid": fields["pid"], "grpc": f"{HOST}:{ports.grpc}", "http": f"{HOST}:{ports.http}"}
            print(json.dumps({**here, "status": f"{HOST}:{ports.status}"}), flush=True)

    status = Status()
    supervisor = Supervisor(
        arguments.repository,
        ports=ports,
        log=arguments.log,
        timeout_s=arguments.timeout_s,
        status=status,
        event=event,
    )
    supervisor.check()
    with (
        offered_key(ports.status) as key,
        endpoint(ports.status, status=status, reload=supervisor.ask_for_reload, key=key),
    ):
        supervisor.run()


def _ask_for_reload(port: int, *, timeout_s: float) -> None:
    from slipway.serving.endpoint import KEY_HEADER
    from slipway.serving.key import find_key

    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("POST", "/reload", headers={KEY_HEADER: find_key(port)})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(f"{HOST}:{port} (--status-port) gives no answer: {error}") from None
    if response.status != 200:
        raise ServingError(answer.get("message") or answer.get("error"))
    print(answer["message"])


def _stop(*_: object) -> None:
    """Leave the block that serves, so that it cleans up; a second, impatient signal does not cut that short."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    _say("stopping", "stopping")
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


def _log(text: str) -> Path:
    path = Path(text)
    if path.exists() and not (path.is_file() and (not path.stat().st_size or "log" in path.name.lower())):
        raise argparse.ArgumentTypeError(
            f"{text} is there already, and is not a file with log in its name; give another, for example {text}.log"
        )
    return path


def _say(event: str, message: str, **fields: Any) -> None:
    """To people in words, to a log collector as a line of JSON."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    line = message if sys.stderr.isatty() else json.dumps({"time": now, "event": event, "message": message, **fields})
    print(line, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m slipway.serving",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("repository", type=Path, nargs="?", help="folder that build/assemble.py wrote")
    what.add_argument("--reload", action="store_true", help="tell the server on --status-port to read its folder again")
    for name, port in vars(Ports()).items():
        parser.add_argument(f"--{name}-port", type=_port, default=port, help="default: %(default)s")
    parser.add_argument("--host", default=HOST, help="%(default)s, and no other: see below")
    parser.add_argument("--timeout-s", type=_seconds, default=120.0, help="to be ready within; default: %(default)s")
    parser.add_argument("--log", type=_log, help="keep the server's log in this file, and the one before in .previous")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout when ready")
    return parser


if __name__ == "__main__":
    run(main, parser())
