"""Keys and certificates are changed under traffic: no request fails, and what was withdrawn is refused."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from slipway.operations.gateway.new_secrets import new_key, self_signed
from slipway.operations.gateway.settings import KEY_HEADER
from slipway.system.yaml_json import dump_yaml, read_plain
from tests.serving.conftest import EXAMPLE
from tests.support.asking import wait_until
from tests.support.gateways import KEYS, Asked, needs_envoy, running_gateway, write_gateway
from tests.support.v2_requests import IMAGE, RED, message

pytestmark = needs_envoy
BINARY = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
INFER = "/v2/models/colours/infer"


@pytest.fixture
def gateway(own_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with running_gateway(write_gateway(tmp_path / "gateway", ports=own_server.ports, repository=str(EXAMPLE))) as asked:
        yield asked


class Team:
    """Clients of both protocols that ask without a pause for the duration of a block, with the team's key."""

    def __init__(self, gateway: Asked, *, key: str, authorities: Path) -> None:
        self.key = key
        self.answers: list[str] = []
        """`ok`, or an error."""
        self._asked = dict.fromkeys((self._grpc, self._http), 0)
        self._gateway, self._authorities, self._over = gateway, authorities, threading.Event()
        self._pool = ThreadPoolExecutor(2)
        self._futures = [self._pool.submit(self._ask, one) for one in self._asked]

    def _ask(self, once: Callable[[], Callable[[], str]]) -> None:
        ask = once()
        while not self._over.is_set():
            self.answers.append(ask())
            self._asked[once] += 1
            time.sleep(0.005)

    def _grpc(self) -> Callable[[], str]:
        asked = Asked(self._gateway.gateway, self._authorities, [])
        stub, request = asked.stub(), message(IMAGE)

        def ask() -> str:
            try:
                stub.ModelInfer(request, metadata=[(KEY_HEADER, self.key)], timeout=10)
            except grpc.RpcError as error:
                return f"{error.code()}: {error.details()}"
            return "ok"

        return ask

    def _http(self) -> Callable[[], str]:
        asked = Asked(self._gateway.gateway, self._authorities, [])

        def ask() -> str:
            try:
                code, said, _ = asked.http("POST", INFER, RED, BINARY, key=self.key)
            except OSError as error:
                return str(error)
            return "ok" if code == 200 else f"{code}: {said!r}"

        return ask

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()

    def take(self, key: str) -> None:
        """Ask with another key from now on; returns when no request with the former one is under way."""
        self.key, before = key, {**self._asked}
        wait_until(lambda: all(self._asked[one] >= before[one] + 2 for one in before))

    def errors(self) -> list[str]:
        """The answers that are errors; raises what a client raised."""
        for future in self._futures:
            future.result()
        return [answer for answer in self.answers if answer != "ok"]


def served_certificate(gateway: Asked) -> str:
    return ssl.get_server_certificate(gateway.gateway.plan.settings.host_port, timeout=20)


def test_a_key_and_a_certificate_are_changed_and_no_request_fails(gateway: Asked) -> None:
    folder, settings_file = gateway.certificate.parents[1], gateway.gateway.plan.source
    new_certificate, _ = self_signed(folder / "tls-2027", hosts=["localhost", "127.0.0.1"])
    authorities = folder / "authorities.pem"
    authorities.write_text(gateway.certificate.read_text() + new_certificate.read_text())
    new_key(folder / "pets-2027.key")
    old, new = KEYS["pets"], (folder / "pets-2027.key").read_text().strip()

    def change(**changes: Any) -> None:
        settings_file.write_text(dump_yaml({**read_plain(settings_file), **changes}))
        gateway.gateway.reload()

    def allowed(key: str) -> bool:
        return gateway.http("POST", INFER, RED, BINARY, key=key)[0] == 200

    with Team(gateway, key=old, authorities=authorities) as team:
        wait_until(lambda: len(team.answers) > 20)
        assert not allowed(new)
        change(teams={"pets": {"key_file": "pets-2027.key", "former_key_file": "pets.key", "per_second": 10_000}})
        wait_until(lambda: allowed(new))
        assert allowed(old)
        team.take(new)
        change(
            teams={"pets": {"key_file": "pets-2027.key", "per_second": 10_000}},
            tls={"certificate": "tls-2027/certificate.pem", "key": "tls-2027/private-key.pem"},
        )
        wait_until(lambda: served_certificate(gateway) == new_certificate.read_text())
        gateway = Asked(gateway.gateway, new_certificate, gateway.said)
        code, said, _ = gateway.http("POST", INFER, RED, BINARY, key=old)
        assert (code, b"does not hold a team's key" in said) == (401, True)
        asked = len(team.answers)
        wait_until(lambda: len(team.answers) > asked + 20)
    assert team.errors() == []
