"""The targets of Prometheus: the metrics of each process that the settings of a gateway name."""

from collections.abc import Sequence
from dataclasses import dataclass

from slipway.operations.gateway.access_logs import SCOPE
from slipway.operations.gateway.routes import Node
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.monitoring.alerts import MonitoredPart
from slipway.serving.ports import HOST

SCRAPE, SCRAPE_TRITON = "2s", "10s"
"""Time between two scrapes. Alerts must be at the webhook within 15 s; nothing waits for tritonserver's counters."""
SHOWN = (
    rf"^({SCOPE}\.|cluster\.(stable|candidate)_(grpc|http)\.membership_healthy|rate\.|http\.gateway\.tap\."
    r"|server\.days_until)"
)
"""The names, in Envoy's words, of its metrics that the rules and the dashboard read, instead of 200 KB a scrape."""
ARM = "arm"


@dataclass(frozen=True)
class ScrapeTarget:
    """A port with metrics, and the part of the settings that it belongs to."""

    job: str
    part: MonitoredPart
    port: int
    arm: str | None = None
    """`stable` or `candidate`, for their server and its supervisor."""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"


def targets(settings: GatewaySettings) -> Sequence[ScrapeTarget]:
    """Every target of these settings."""
    found = [ScrapeTarget("slipway-gateway", "gateway", settings.metrics_port)]
    if settings.observe is not None:
        found.append(ScrapeTarget("slipway-journal", "journal", settings.observe.metrics_port))
    if settings.watch is not None:
        found.append(ScrapeTarget("slipway-watch", "watch", settings.watch.metrics_port))
    arms = {"stable": settings.stable, "candidate": settings.candidate}
    for arm, server in arms.items():
        if server is not None:
            part: MonitoredPart = "candidate" if arm == "candidate" else "server"
            found.append(ScrapeTarget("slipway-server", part, server.status, arm))
            found.append(ScrapeTarget("slipway-triton", part, server.metrics_port, arm))
    return found


def parts(settings: GatewaySettings) -> set[MonitoredPart]:
    """The parts that the settings have."""
    return {target.part for target in targets(settings)}


def left_out(settings: GatewaySettings) -> list[str]:
    """Return a sentence on each process that is not monitored, with the setting that is missing for it."""
    missing: dict[MonitoredPart, str] = {
        "journal": "observe: is not in the settings, so the rules and panels of the journal are left out",
        "watch": "watch: is not in the settings, so the rules and panels of drift, accuracy and labels are left out",
        "candidate": "candidate: is not in the settings, so the rules and panels of a candidate are left out",
    }
    there = parts(settings)
    return [sentence for part, sentence in missing.items() if part not in there]


def scrape_configurations(settings: GatewaySettings) -> list[Node]:
    """Prometheus' `scrape_configs`."""
    found: list[Node] = []
    every = targets(settings)
    for job in dict.fromkeys(target.job for target in every):
        own = [target for target in every if target.job == job]
        static: Node = [
            {"targets": [target.address], **({"labels": {ARM: target.arm}} if target.arm else {})} for target in own
        ]
        config: dict[str, Node] = {"job_name": job, "static_configs": static}
        if job == "slipway-gateway":
            config |= {"metrics_path": "/stats/prometheus", "params": {"filter": [SHOWN]}}
        if job == "slipway-triton":
            config["scrape_interval"] = SCRAPE_TRITON
        found.append(config)
    return found
