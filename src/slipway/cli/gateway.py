"""Run Envoy in front of one or two servers: TLS, a key and a rate for each team, and inference only."""

import argparse
import signal
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.contract import SlipwayError, SpecError
from slipway.operations.gateway.new_secrets import new_key, self_signed
from slipway.serving.messages import Messages
from slipway.system.json_line import print_json, verb_parser
from slipway.system.process import told_to_end

if TYPE_CHECKING:
    from slipway.operations.gateway.plan import GatewayPlan
    from slipway.operations.gateway.process import Gateway

EPILOG = """example:
  slipway gateway --new-key pets.key
  slipway gateway --self-signed tls
  slipway gateway --check gateway.yaml
  slipway serve model_repository/example --gateway gateway.yaml
  curl --cacert tls/certificate.pem -H "slipway-key: $(cat pets.key)" https://localhost:8443/v2/health/ready

gateway.yaml:
  listen: 0.0.0.0:8443                 # gRPC and HTTP; without tls, 127.0.0.1 only
  tls: {certificate: tls/certificate.pem, key: tls/private-key.pem}
  teams:
    pets: {key_file: pets.key, per_second: 200, burst: 400}
  repository: model_repository/example # not with slipway serve --gateway
  stable: {grpc: 8001, http: 8000, status: 8003}     # nor this
  candidate: {grpc: 8101, http: 8100, status: 8103}  # a second slipway serve, if there is one
  budgets_ms: {colours: 35}            # an edge of the latency histograms; default: 50

A client sends its team's key in the header slipway-key. Clients may ask the ensembles of the repository for inference,
readiness, metadata and configuration. Everything else is refused, and so are the requests that end tritonserver 2.51
(docs/gateway.md). Latency, by classifier and server, is at http://127.0.0.1:8004/stats/prometheus.

Without --check the gateway runs until Ctrl-C, and Envoy is restarted when it ends; the servers run on their own. After
SIGUSR1 it reads FILE, the keys, the certificate and the repository's names again, without refusing a request.
slipway serve --gateway starts both, and stops both. The exit code is 1 if the settings are wrong, or Envoy does not
start."""


def main(arguments: argparse.Namespace) -> None:
    if arguments.new_key is not None:
        new_key(arguments.new_key)
        print(f"{arguments.new_key}: a new key, which only you may read; name it in teams as key_file")
        return print_json(arguments, {"key_file": str(arguments.new_key)})
    if arguments.self_signed is not None:
        certificate, key = self_signed(arguments.self_signed, hosts=arguments.host or ["localhost", "127.0.0.1"])
        print(f"{certificate}: a certificate to try with, valid for 90 days; clients must be given it (--cacert)")
        return print_json(arguments, {"certificate": str(certificate), "key": str(key)})
    from slipway.operations.gateway.plan import GatewayPlan  # not at the top: --help needs no library
    from slipway.operations.gateway.settings import default_budgets

    if arguments.settings is None:
        raise SpecError("give a file of settings, such as gateway.yaml; slipway gateway --help shows one")
    plan = GatewayPlan.open(arguments.settings)
    plan.check()
    if arguments.check:
        said = sentence(plan), "Envoy accepts its configuration", default_budgets(plan.settings, plan.models)
        print(f"{arguments.settings}: {'; '.join(filter(None, said))}")
        _check_certificate(plan)
        return print_json(arguments, described(plan))
    return _run(arguments, plan)


def _check_certificate(plan: "GatewayPlan") -> None:
    """Print whose certificate it is and until when; raises SpecError if clients refuse it."""
    certificate, now = plan.certificate(), datetime.now(UTC)
    if certificate is None:
        return
    if said := certificate.problem(now):
        raise SpecError(f"{plan.source}: tls.certificate: {said}")
    print(f"{plan.source}: tls.certificate: {certificate.warning(now) or certificate}")


def _run(arguments: argparse.Namespace, plan: "GatewayPlan") -> None:
    from slipway.operations.gateway.process import Gateway

    ended, again = told_to_end(), threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: again.set())
    with closing(Messages(sys.stderr.fileno())) as messages:  # a terminal that is gone must not end the gateway
        gateway = Gateway(plan, event=lambda _, message, **__: messages.say(message))
        with gateway.kept():
            print_json(arguments, described(plan))
            sys.stdout.flush()
            while not ended.wait(0.2):  # a signal is handled between two of these
                if again.is_set():
                    again.clear()
                    _reload(gateway, messages)


def _reload(gateway: "Gateway", messages: Messages) -> None:
    try:
        gateway.reload()
    except (SlipwayError, OSError) as error:
        messages.say(f"the gateway keeps its old settings: {error}")


def described(plan: "GatewayPlan") -> dict[str, Any]:
    from slipway.operations.gateway.routes import read_traffic

    settings, traffic, certificate = plan.settings, read_traffic(plan.settings), plan.certificate()
    return {
        "listen": settings.listen,
        "tls": settings.tls is not None,
        "certificate_ends": certificate.ends.isoformat() if certificate is not None else None,
        "metrics": f"127.0.0.1:{settings.metrics_port}/stats/prometheus",
        "teams": {name: team.per_second for name, team in settings.teams.items()},
        "models": len(plan.models),
        "candidate": settings.candidate is not None,
        "weight_percent": traffic.weight_percent,
        "mirror_percent": traffic.mirror_percent,
    }


def sentence(plan: "GatewayPlan") -> str:
    settings = plan.settings
    teams = ", ".join(f"{name} ({team.per_second}/s)" for name, team in settings.teams.items())
    servers = "two servers" if settings.candidate else "one server"
    tls = "with TLS" if settings.tls else "without TLS"
    return f"{settings.listen} {tls}, {len(plan.models)} models of {servers}, teams {teams}"


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("settings", type=Path, nargs="?", metavar="FILE", help="the gateway's settings, in YAML")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="check FILE, its keys and Envoy's configuration; start nothing"
    )
    what.add_argument("--new-key", type=Path, metavar="KEY_FILE", help="write a new random key for a team")
    what.add_argument("--self-signed", type=Path, metavar="FOLDER", help="make a certificate to try with, by openssl")
    parser.add_argument(
        "--host",
        action="append",
        metavar="NAME",
        help="with --self-signed: name or address of this host for clients; repeatable; default: localhost, 127.0.0.1",
    )
    return parser
