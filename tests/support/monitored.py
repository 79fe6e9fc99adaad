"""What `slipway render monitoring` makes of settings, with every optional part or with none."""

from pathlib import Path
from typing import Any

from slipway.operations.gateway.settings import GatewaySettings, read_settings
from slipway.operations.monitoring.render import Rendered, render
from tests.support.gateways import write_gateway

ALERTMANAGER = "127.0.0.1:9093"
WHOLE: dict[str, Any] = {
    "candidate": {"grpc": 8101, "http": 8100, "status": 8103},
    "observe": {},
    "watch": {},
    "budgets_ms": {"digits": 35, "pets": 35, "cars": 4.35, 'we$ird "na|me\\\n{{é}}': 47.3},
}


def settings(folder: Path, **changes: Any) -> GatewaySettings:
    return read_settings(write_gateway(folder, tls=False, **changes))


def rendered(folder: Path, **changes: Any) -> Rendered:
    urls = {"webhook": "http://127.0.0.1:9000/a?b=c", "watchdog": "http://127.0.0.1:9000/alive"}
    return render(settings(folder, **changes), **urls, alertmanager=ALERTMANAGER)
