"""The gateway's files for a container: the configuration of one box, but for addresses, routes and secrets."""

from collections.abc import Sequence
from pathlib import Path

from slipway.contract import SpecError
from slipway.operations.gateway.configuration import mounted_bootstrap
from slipway.operations.gateway.listener import certificate_resource
from slipway.operations.gateway.placement import Mounted, Placement
from slipway.operations.gateway.routes import ROUTES, Traffic, resource_file, route_configuration
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.rendering.files import MOST_CONFIG_BYTES, Document

ROOT = Path("/etc/slipway")
CONFIGURATION, ROUTE_FOLDER, KEY_FOLDER, TLS = (ROOT / name for name in ("gateway", "routes", "keys", "tls"))
BOOTSTRAP, CERTIFICATE_FILE, ROUTE_FILE = "bootstrap.yaml", "certificate.yaml", f"{ROUTES}.yaml"


def ready_path(vital: Sequence[str]) -> str:
    """Return the supervisor's path that says whether a server gets requests: it asks for these classifiers, or for all
    of them if none is named."""
    if not vital:
        return "/ready"
    return f"/ready/{vital[0]}" if len(vital) == 1 else f"/ready?only={','.join(vital)}"


def placement(vital: Sequence[str] = (), *, stable: str = "stable", candidate: str = "candidate") -> Placement:
    """Return the names of the servers and the paths of the files as a gateway's container sees them."""
    mounted = Mounted(routes=ROUTE_FOLDER, keys=KEY_FOLDER, certificate=CONFIGURATION / CERTIFICATE_FILE)
    return Placement(metrics="0.0.0.0", stable=stable, candidate=candidate, ready=ready_path(vital), mounted=mounted)


def gateway_files(
    settings: GatewaySettings, models: tuple[str, ...], *, vital: Sequence[str] = (), weight_percent: int = 0
) -> dict[str, str]:
    """The configuration by file name: without a key and without a certificate.

    Args:
        vital: the classifiers that alone decide whether a server gets requests.

    Raises:
        SpecError: it is larger than a ConfigMap may be.
    """
    boot = Document(
        mounted_bootstrap(settings, models=models, placement=placement(vital)),
        about="Envoy's configuration, as slipway gateway makes it on one box. Not here: keys and certificate, which\n"
        "are in Secrets, and the candidate's share, which is in routes.yaml.",
        reasons={
            "config_discovery:": "The teams' keys: Envoy reads them from a Secret, and refuses every request before.",
            "tls_certificate_sds_secret_configs:": "The certificate: Envoy takes up a renewed one by itself.",
        },
    )
    certificate = Document(
        certificate_resource(TLS / "tls.crt", TLS / "tls.key"), about="Where the certificate and its key are mounted."
    )
    traffic = Traffic(weight_percent=weight_percent)
    routes = Document(
        resource_file(ROUTES, [route_configuration(settings, traffic)]),
        about="The candidate's share. Envoy takes up a change of this file without a restart.",
    )
    files = {BOOTSTRAP: boot.text(), CERTIFICATE_FILE: certificate.text(), ROUTE_FILE: routes.text()}
    for name, text in files.items():
        if len(text.encode()) > MOST_CONFIG_BYTES:
            raise SpecError(
                f"{name}: {len(text.encode()):,} bytes, and a ConfigMap holds {MOST_CONFIG_BYTES:,}; serve fewer "
                f"classifiers ({len(models):,} models) from one repository"
            )
    return files
