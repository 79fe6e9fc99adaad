"""A compose file for one box: servers, gateway and Prometheus, with the settings of `slipway container serve`."""

from collections.abc import Mapping

from slipway.operations.gateway.routes import Node
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.monitoring.scraped import ARM, SCRAPE, SCRAPE_TRITON, SHOWN
from slipway.operations.rendering.envoy import (
    BOOTSTRAP,
    CERTIFICATE_FILE,
    CONFIGURATION,
    KEY_FOLDER,
    ROUTE_FILE,
    ROUTE_FOLDER,
    TLS,
    gateway_files,
)
from slipway.operations.rendering.files import Document, yaml_file
from slipway.operations.rendering.observed import rule_groups
from slipway.operations.rendering.plan import ServerNeeds
from slipway.operations.rendering.pods import CANDIDATE, GATEWAY, STABLE
from slipway.serving.container import INNER_PORTS, MODELS, TRITON_USER, ULIMITS
from slipway.system.text import command

KIND = "compose"
PROMETHEUS_IMAGE = "prom/prometheus:v3.5.0"
USER = f"${{SLIPWAY_USER:-{TRITON_USER}}}"


def hardened() -> dict[str, Node]:
    """Return the hardening that every service has."""
    return {
        "logging": {"driver": "local"},
        "init": True,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
    }


def server_service(server: ServerNeeds, *, image: str, repositories: str, repository: str) -> dict[str, Node]:
    """The service of one server, on a folder of repositories."""
    words = ["serve", f"{MODELS}/{repository}", "--host", "0.0.0.0", "--timeout-s", str(server.start_s)]
    devices: Node = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    gpu: dict[str, Node] = {"deploy": {"resources": {"reservations": {"devices": devices}}}}
    return {
        **hardened(),
        "user": USER,
        "image": image,
        **({} if "@" in image else {"pull_policy": "never"}),
        "command": words,
        "mem_limit": 2 * server.memory_bytes,
        "tmpfs": [f"/tmp:size={server.tmp_bytes}"],
        "shm_size": 2 * server.shm_bytes,
        "ulimits": dict(ULIMITS),
        "volumes": [{"type": "bind", "source": repositories, "target": MODELS, "read_only": True}],
        "networks": ["servers"],
        **(gpu if server.lane.needs_gpu else {}),
    }


def compose_files(
    settings: GatewaySettings,
    server: ServerNeeds,
    *,
    image: str,
    gateway_image: str,
    repositories: str,
    repository: str,
    candidate: str | None,
    candidate_server: ServerNeeds | None = None,
    weight_percent: int,
    published: str,
) -> dict[str, str]:
    """Every file by its path; equal input gives equal bytes.

    Args:
        repositories: the folder above the repositories, on the machine that serves.
        repository: the stable repository's name in it.
        candidate: the candidate's, if there is one.
        published: the address of this machine under which clients reach the gateway.
    """
    repositories = _literal(repositories)
    arms = {STABLE: _literal(repository)} | ({CANDIDATE: _literal(candidate)} if candidate else {})
    needed = {STABLE: server, CANDIDATE: candidate_server or server}
    services: dict[str, Node] = {
        arm: server_service(needed[arm], image=image, repositories=repositories, repository=name)
        for arm, name in arms.items()
    }
    services[GATEWAY] = _gateway(settings, gateway_image, published=published)
    services["prometheus"] = _prometheus()
    node: Node = {
        "name": "slipway",
        "services": services,
        "volumes": {"prometheus": {}},
        "networks": {"servers": {"internal": True}, "outside": {}},
    }
    compose = Document(
        node,
        about="A gateway and its servers on one box. docs/containers.md explains the settings of a server.\n"
        "Folders are mounted, and not files: what takes the place of a mounted file is not seen.",
        reasons={
            "shm_size:": "Twice, and so is mem_limit: a reload has the old and the new steps side by side.",
            "internal:": "Servers reach nothing but the gateway and Prometheus.",
        },
    )
    rendered = gateway_files(settings, server.models, weight_percent=weight_percent)
    return {
        "compose.yaml": compose.text(),
        f"gateway/{BOOTSTRAP}": rendered[BOOTSTRAP],
        f"gateway/{CERTIFICATE_FILE}": rendered[CERTIFICATE_FILE],
        f"routes/{ROUTE_FILE}": rendered[ROUTE_FILE],
        "prometheus/prometheus.yml": _scraped(settings, list(arms)),
        "prometheus/rules.yml": yaml_file(Document({"groups": rule_groups(settings, candidate=candidate is not None)})),
        "README.md": _readme(settings.file.name),
    }


def _literal(text: str) -> str:
    """The text as compose takes it, without a variable in it."""
    return text.replace("$", "$$")


def _gateway(settings: GatewaySettings, image: str, *, published: str) -> Mapping[str, Node]:
    folders = [
        ("./gateway", CONFIGURATION),
        ("./routes", ROUTE_FOLDER),
        ("../secrets", KEY_FOLDER),
        ("../secrets", TLS),
    ]
    port = settings.host_port[1]
    metrics = settings.metrics_port
    return {
        **hardened(),
        "user": USER,
        "image": image,
        "entrypoint": ["envoy"],
        "command": [
            *("--config-path", f"{CONFIGURATION}/{BOOTSTRAP}", "--concurrency", str(settings.workers)),
            *("--log-level", "warning", "--disable-hot-restart"),
        ],
        "mem_limit": "1g",
        "ports": [f"{published}:{port}:{port}", f"127.0.0.1:{metrics}:{metrics}"],
        "volumes": [
            {"type": "bind", "source": source, "target": str(target), "read_only": True} for source, target in folders
        ],
        "networks": ["servers", "outside"],
    }


def _prometheus() -> Mapping[str, Node]:
    return {
        **hardened(),
        "image": PROMETHEUS_IMAGE,
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=30d",
        ],
        "mem_limit": "2g",
        "ports": ["127.0.0.1:9090:9090"],
        "volumes": [
            {"type": "bind", "source": "./prometheus", "target": "/etc/prometheus", "read_only": True},
            "prometheus:/prometheus",
        ],
        "networks": ["servers", "outside"],
    }


def _scraped(settings: GatewaySettings, arms: list[str]) -> str:
    def static(port: int) -> Node:
        return [{"targets": [f"{arm}:{port}"], "labels": {ARM: arm}} for arm in arms]

    jobs: list[Node] = [
        {
            "job_name": "slipway-gateway",
            "metrics_path": "/stats/prometheus",
            "params": {"filter": [SHOWN]},
            "static_configs": [{"targets": [f"{GATEWAY}:{settings.metrics_port}"]}],
        },
        {"job_name": "slipway-server", "static_configs": static(INNER_PORTS["status"])},
        {
            "job_name": "slipway-triton",
            "scrape_interval": SCRAPE_TRITON,
            "static_configs": static(INNER_PORTS["metrics"]),
        },
    ]
    times: Node = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    node: Node = {"global": times, "rule_files": ["rules.yml"], "scrape_configs": jobs}
    return Document(node, about="The jobs of slipway render monitoring, by the names of the services.").text()


def _readme(settings: str) -> str:
    """The README, with the name of the user's settings."""
    secrets = command("slipway render secrets", f"../{settings}", "../secrets")
    return f"""# Slipway on one box, by compose

Written by `slipway render compose`; keep changes in a file of your own beside this folder
(`docker compose --file A --file B`).

In this folder, with `{settings}` beside it:

```bash
{secrets}  # keys.yaml, tls.crt, tls.key: readable by you alone
export SLIPWAY_USER=$(id -u):$(id -g)              # who may read them
docker compose up --detach
docker compose exec stable slipway reload          # after slipway assemble has rewritten the repository
```

The candidate's share is the weight in `routes/routes.yaml`: render with another
`--weight`, and start the gateway again.
New keys go into `../secrets` by a rename (`mv keys.new ../secrets/keys.yaml`).
"""
