"""Write the files of other tools from the settings of a gateway: deployments, and monitoring by Prometheus."""

import argparse
from pathlib import Path

from slipway.cli.render_deployments import add_deployments
from slipway.system.arguments import add_action
from slipway.system.json_line import add_json, print_json, verb_parser

ALERTMANAGER = "127.0.0.1:9093"
EPILOG = """example:
  slipway render monitoring gateway.yaml monitoring --webhook http://127.0.0.1:9000/alerts
  promtool test rules monitoring/rules_test.yml
  prometheus --config.file monitoring/prometheus.yml --storage.tsdb.path prometheus-data
  alertmanager --config.file monitoring/alertmanager.yml --storage.path alertmanager-data
  slipway render systemd gateway.yaml units --settings-at /etc/slipway/gateway.yaml
  slipway render compose gateway.yaml box --gateway-image registry.example/envoy@sha256:DIGEST
  slipway render kubernetes gateway.yaml cluster --image registry.example/team/colours@sha256:DIGEST \\
    --server-image registry.example/slipway-cpu@sha256:DIGEST --gateway-image registry.example/envoy@sha256:DIGEST
  slipway render check cluster

monitoring writes prometheus.yml (targets: gateway, journal, watch, supervisors and tritonservers of gateway.yaml),
rules.yml (alerts, each with a section of docs/runbook.md), rules_test.yml (tests of every alert), alertmanager.yml and
grafana.json (a dashboard to import). If gateway.yaml lacks a part, such as watch:, the command says what it left out.
The other actions write deployments: docs/deploy.md.

OUT is replaced whole, if it has no other files; the same settings give the same bytes (docs/monitoring.md)."""


def main(arguments: argparse.Namespace) -> None:
    arguments.run(arguments)


def monitoring(arguments: argparse.Namespace) -> None:
    from slipway.operations.gateway.settings import read_settings  # not at the top: --help needs no library
    from slipway.operations.monitoring import render

    settings = read_settings(arguments.settings)
    rendered = render.render(
        settings, webhook=arguments.webhook, watchdog=arguments.watchdog, alertmanager=arguments.alertmanager
    )
    render.write(rendered, arguments.out)
    print(f"{arguments.out}: {', '.join(rendered.files)}; {len(rendered.alerts)} alerts")
    for sentence in rendered.left_out:
        print(f"  {sentence}")
    result = {"files": [str(arguments.out / name) for name in rendered.files], "alerts": rendered.alerts}
    print_json(arguments, {**result, "left_out": list(rendered.left_out)})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    kinds = parser.add_subparsers(prog="slipway render", required=True, metavar="KIND")
    command = add_action(kinds, "monitoring", "write the files of Prometheus, Alertmanager and Grafana")
    command.add_argument("settings", type=Path, metavar="FILE", help="the gateway's settings")
    command.add_argument("out", type=Path, metavar="OUT", help="folder to write; it may hold what was written before")
    command.add_argument("--webhook", metavar="URL", help="URL to which Alertmanager posts alerts; default: none")
    command.add_argument(
        "--watchdog",
        metavar="URL",
        help="URL of a service that expects a message each minute, and tells when none comes; default: none",
    )
    command.add_argument(
        "--alertmanager",
        metavar="HOST:PORT",
        default=ALERTMANAGER,
        help="address of Alertmanager for Prometheus",
    )
    command.set_defaults(run=monitoring)
    add_json(command)
    add_deployments(kinds)
    return parser
