"""Serve a model repository with the real tritonserver on 127.0.0.1, and restart whatever dies, until Ctrl-C."""

import argparse
import ipaddress
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.errors import ServingError
from slipway.oci.reference import OCI, OCI_LAYOUT, LayoutReference, RegistryReference
from slipway.serving.binary import ignored_variables, installed_server
from slipway.serving.messages import Messages
from slipway.serving.ports import HOST, SPOKEN, Ports
from slipway.system.arguments import Parser, parsed, port, seconds
from slipway.system.json_line import add_json

if TYPE_CHECKING:
    from slipway.operations.gateway.process import Gateway

EPILOG = """example:
  slipway serve model_repository/example
  python clients/classify_grpc.py image.jpg --model colours
  curl http://127.0.0.1:8003/ready
  slipway serve model_repository/example --gateway gateway.yaml     # and for other machines: slipway gateway --help
  slipway serve oci-layout:images:v1 --key public.pem              # an image of slipway image, checked and unpacked
  slipway reload         # in another terminal, after slipway assemble has rewritten the repository

The wheel's tritonserver has known vulnerabilities and listens on 127.0.0.1 only. To serve other machines, put the
gateway in front (--gateway, slipway gateway --help), or run the lane in NVIDIA's current image (slipway container
serve). In an image the launcher uses the image's tritonserver, --host 0.0.0.0 opens its ports to the outside of the
container, and without --log tritonserver's log joins the events on stderr.

The supervisor's port answers GET /live, /ready, /ready/<classifier>, /metrics and, with the key, POST /reload. The key
is in SLIPWAY_ADMIN_KEY, or in a file of yours below ~/.local/state/slipway. The supervisor sends at most four probes a
second. It takes the classifiers and groups of heads in turn, and another head of a group each time; /ready says how
many seconds a round over all of them takes (probed_within_s). Events go to stderr: as text to a terminal, otherwise as
one JSON line each. Each connection takes an open file, and the server may open as many as the hard limit allows (ulimit
-Hn). When none is left, it reports that it is not ready and why, and still answers open connections."""


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: argparse.Namespace) -> None:
    ports = Ports(arguments.http_port, arguments.grpc_port, arguments.metrics_port, arguments.status_port)
    if arguments.host != HOST and installed_server() is None:
        raise ServingError(
            f"--host {arguments.host}: the wheel's tritonserver has known vulnerabilities and listens on {HOST} alone; "
            "serve other machines through the gateway (--gateway, slipway gateway --help), or from NVIDIA's current "
            "image (slipway container serve)"
        )
    _leave_out_ignored_variables()
    arguments.renew = None
    if not isinstance(arguments.repository, Path):
        from slipway.cli.serve_image import unpacked

        image = arguments.repository
        arguments.renew = lambda: unpacked(
            image, key=arguments.key, plain_http=arguments.plain_http, say=lambda said: _say("image", said)
        )
        arguments.repository = arguments.renew()
    elif arguments.key is not None:
        raise ServingError(f"--key: {arguments.repository} is a folder, which has no signature; give an image to --key")
    elif arguments.plain_http:
        raise ServingError(f"--plain-http: {arguments.repository} is a folder, and no registry is asked; leave it out")
    return _serve(arguments, ports)


def _serve(arguments: argparse.Namespace, ports: Ports) -> None:
    messages = Messages(
        sys.stderr.fileno(), lost=lambda lines: _line("messages_lost", f"{lines} messages were lost", lines=lines)
    )

    ended = threading.Event()

    def stop(*_: object) -> None:
        """Leave the block that serves, so that it cleans up; a second signal does not cut that short.

        Python drops the exception where no caller could take it (a finaliser, a hook of fork): `ended` stays.
        """
        ended.set()
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_IGN)
        messages.say(_line("stopping", "stopping"))
        sys.exit(0)

    for ending in ENDINGS:  # first, since the rest takes time
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup, or a shell's background
            signal.signal(ending, stop)
    try:
        _supervise(arguments, ports, messages, ended)
    finally:
        messages.close()


def _supervise(arguments: argparse.Namespace, ports: Ports, messages: Messages, ended: threading.Event) -> None:
    from slipway.serving.endpoint import endpoint  # not at the top: --help needs no library
    from slipway.serving.key import offered_key
    from slipway.serving.limits import raise_open_files
    from slipway.serving.status import ServingStatus
    from slipway.serving.supervisor import Supervisor

    status, results = ServingStatus(), Messages(sys.stdout.fileno())
    status.messages_lost.set_function(lambda: messages.lost)

    def event(name: str, message: str, **fields: Any) -> None:
        messages.say(_line(name, message, **fields))
        if name == "ready" and arguments.json:
            here = {"pid": fields["pid"], "grpc": f"{HOST}:{ports.grpc}", "http": f"{HOST}:{ports.http}"}
            here |= {"gateway": gateway.address} if gateway is not None else {}
            results.say(json.dumps({**here, "status": f"{HOST}:{ports.status}"}))
        if name == "reloaded" and gateway is not None:
            gateway.update(supervisor.lane)

    supervisor = Supervisor(
        arguments.repository,
        ports=ports,
        log=arguments.log,
        timeout_s=arguments.timeout_s,
        status=status,
        event=event,
        ended=ended,
        address=arguments.host,
        renew=arguments.renew,
    )
    supervisor.check()
    gateway = _gateway(arguments, ports, event=event)
    if gateway is not None:
        status.watch_gateway(lambda: gateway.is_ready)
    raise_open_files()
    with (
        gateway.kept() if gateway is not None else nullcontext(),
        offered_key(ports.status) as key,
        endpoint(
            ports.status,
            status=status,
            reload=supervisor.ask_for_reload,
            gateway_renewed=lambda: gateway.renewed if gateway is not None else None,
            key=key,
            address=arguments.host,
        ),
    ):
        supervisor.run()


def _gateway(arguments: argparse.Namespace, ports: Ports, *, event: Callable[..., None]) -> "Gateway | None":
    """The checked gateway of --gateway; raises SlipwayError before anything is served."""
    if arguments.gateway is None:
        return None
    from slipway.operations.gateway.plan import GatewayPlan, ServedRepository
    from slipway.operations.gateway.process import Gateway

    if arguments.host not in (HOST, "0.0.0.0"):
        raise ServingError(
            f"--gateway asks the server on {HOST}, and --host {arguments.host} has it listen elsewhere; give --host "
            f"{HOST} or 0.0.0.0, or leave --gateway out"
        )
    plan = GatewayPlan.open(arguments.gateway, served=ServedRepository(arguments.repository, ports))
    plan.check()
    return Gateway(plan, event=event)


@parsed
def _repository(text: str) -> Path | LayoutReference | RegistryReference:
    if text.startswith(OCI_LAYOUT):
        return LayoutReference.parse(text.removeprefix(OCI_LAYOUT))
    return RegistryReference.parse(text) if text.startswith(OCI) else Path(text)


def _host(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(HOST if text == "localhost" else text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid address {text!r}: give an IPv4 address, such as {HOST}") from None


def _log(text: str) -> Path:
    path = Path(text)
    if path.exists() and not (path.is_file() and (not path.stat().st_size or "log" in path.name.lower())):
        raise argparse.ArgumentTypeError(
            f"{text} exists, and is not a file with log in its name; give another, for example {text}.log"
        )
    return path


def _line(event: str, message: str, **fields: Any) -> str:
    """The event as text for a terminal, otherwise as JSON for a log collector."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return message if sys.stderr.isatty() else json.dumps({"time": now, "event": event, "message": message, **fields})


def _say(event: str, said: str) -> None:
    print(_line(event, said), file=sys.stderr, flush=True)


def notice(said: str) -> None:
    """Print a message about the environment as an event."""
    _say("environment", said)


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="slipway serve", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add(
        "repository",
        type=_repository,
        metavar="REPOSITORY",
        help="folder that slipway assemble wrote, or an image: oci-layout:FOLDER[:TAG] or oci://REGISTRY/NAME:TAG",
    )
    for name, default in vars(Ports()).items():
        add(f"--{name}-port", type=port, default=default, help=f"port of {SPOKEN[name]}")
    add(
        "--host",
        type=_host,
        default=HOST,
        help="address to listen on; another only in an image, see below",
    )
    add(
        "--gateway",
        type=Path,
        metavar="FILE",
        help="settings of a gateway to run in front, for other machines; see slipway gateway --help",
    )
    add("--timeout-s", type=seconds, default=120.0, help="seconds to become ready")
    add("--log", type=_log, help="file for the server's log; the previous log goes to .previous")
    add("--key", type=Path, metavar="PUBLIC", help="public key that must have signed the image that is served")
    add("--plain-http", action="store_true", help="ask the registry of oci:// without TLS")
    add_json(parser, help="print one JSON line on stdout when ready")
    return parser


def _leave_out_ignored_variables() -> None:
    """Start this process again without them: gRPC has read them by now."""
    ignored = ignored_variables()
    if ignored:
        _say("ignored", f"ignored here and by the server: {', '.join(ignored)}")
        kept = {name: value for name, value in os.environ.items() if name not in ignored}
        os.execve(sys.executable, sys.orig_argv, kept)
