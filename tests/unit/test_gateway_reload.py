"""What a reload of a gateway takes up, and refuses: keys, a certificate and its end, a server that is not there."""

import ipaddress
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from slipway.contract import ServingError, SpecError
from slipway.operations.gateway.certificate import WARN_DAYS, Certificate
from slipway.operations.gateway.changes import changes, contents
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.process import Gateway
from slipway.operations.gateway.settings import Tls, read_settings
from slipway.operations.monitoring.alerts import all_alerts
from slipway.operations.rendering.secret_files import write_secrets
from slipway.system.yaml_json import dump_yaml, read_plain
from tests.support.gateways import KEYS, free_beside, needs_envoy, write_gateway, write_key
from tests.support.scripts import run_here

EXAMPLE = Path(__file__).parents[2] / "model_repository/example"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def made(folder: Path, name: str, *, begins: datetime = NOW - DAY, ends: datetime = NOW + 90 * DAY) -> Tls:
    """A certificate for a name and an address, and its key."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    hosts = [x509.DNSName("colours.example"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), begins, ends)
    signed = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=True).sign(key, hashes.SHA256())
    certificate, secret = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    write_key(
        secret,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )
    return Tls(certificate=str(certificate), key=str(secret))


def weak(folder: Path) -> Tls:
    """A certificate and its key, of a length that OpenSSL refuses."""
    certificate, key = folder / "weak.pem", folder / "weak.key"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=a", "-keyout", key]
    subprocess.run([*words, "-out", certificate], check=True, capture_output=True)
    return Tls(certificate=str(certificate), key=str(key))


def read(tls: Tls) -> Certificate:
    return Certificate.read(tls, source=Path("gateway.yaml"))


def test_it_says_whose_it_is_and_warns_before_its_end(tmp_path: Path) -> None:
    found = read(made(tmp_path, "a"))
    assert str(found) == f"a certificate for colours.example, 10.0.0.1 until {found.ends:%Y-%m-%d %H:%M} UTC"
    assert found.warning(NOW) is None
    assert found.warning(found.ends - (WARN_DAYS + 1) * DAY) is None
    assert f"a.pem ends at {found.ends:%Y-%m-%d %H:%M} UTC; give" in str(found.warning(found.ends - 1.5 * DAY))
    assert "a.pem ended at " in str(found.problem(found.ends))
    assert "look at the clock" in str(found.problem(found.begins - DAY))
    assert found.warning(found.ends) == found.problem(found.ends)


@pytest.mark.parametrize("ends", [NOW + 5 * DAY, NOW - DAY])
def test_an_issuer_that_ends_first_is_warned_of_and_no_problem(tmp_path: Path, ends: datetime) -> None:
    tls, issuer = made(tmp_path, "a"), made(tmp_path, "b", begins=NOW - 9 * DAY, ends=ends)
    chain = Path(tls.certificate)
    chain.write_text(chain.read_text() + Path(issuer.certificate).read_text())
    found = read(tls)
    assert found.problem(NOW) is None
    assert f"a.pem holds an issuer's certificate that ends at {ends:%Y-%m-%d %H:%M} UTC" in str(found.warning(NOW))
    assert "ended at" in str(found.problem(found.ends))


def test_the_alert_has_the_same_days() -> None:
    (alert,) = [one for one in all_alerts() if one.alert == "SlipwayCertificateEnds"]
    assert alert.expr.endswith(f"< {WARN_DAYS}")


def test_files_that_do_not_fit_are_named_with_what_to_change(tmp_path: Path) -> None:
    one, other = made(tmp_path, "a"), made(tmp_path, "b")
    with pytest.raises(SpecError, match=r"tls\.key: .*b\.key is not the key of .*a\.pem; name the two"):
        read(Tls(certificate=one.certificate, key=other.key))
    with pytest.raises(SpecError, match=r"b\.pem must hold the private key of .*a\.pem, in PEM, without a password"):
        read(Tls(certificate=one.certificate, key=other.certificate))
    locked = ["openssl", "ec", "-in", one.key, "-aes128", "-passout", "pass:x", "-out", str(tmp_path / "locked.key")]
    subprocess.run(locked, check=True, capture_output=True)
    with pytest.raises(SpecError, match=r"locked\.key must hold .*without a password"):
        read(Tls(certificate=one.certificate, key=str(tmp_path / "locked.key")))
    write_key(tmp_path / "empty.key", "")
    with pytest.raises(SpecError, match=r"empty\.key must hold"):
        read(Tls(certificate=one.certificate, key=str(tmp_path / "empty.key")))
    text = Path(other.certificate).read_text()
    Path(other.certificate).write_text(text[: len(text) // 2])
    with pytest.raises(SpecError, match=r"tls\.certificate: .*b\.pem is damaged or cut"):
        read(other)
    Path(other.certificate).unlink()
    with pytest.raises(SpecError, match=r"tls\.certificate: .*b\.pem cannot be read: No such file"):
        read(other)
    with pytest.raises(SpecError, match=r"weak\.key must hold .*; the reason: EE_KEY_TOO_SMALL"):
        read(weak(tmp_path))


def test_a_reload_says_what_was_taken_up_and_withdrawn(tmp_path: Path) -> None:
    path = write_gateway(tmp_path, repository=str(EXAMPLE))

    def now(**given: Any) -> dict[str, str]:
        path.write_text(dump_yaml({**read_plain(path), **given}))
        return contents(read_settings(path))

    before = now()
    assert changes(before, now()) == "found nothing new"
    write_key(tmp_path / "new.key", "0123456789abcdef")
    pets = {"key_file": "new.key", "former_key_file": "pets.key", "per_second": 10_000}
    rotated = now(teams={"pets": pets, "cars": {"key_file": "cars.key", "per_second": 10_000}})
    assert changes(before, rotated) == "took up key of pets, former key of pets"
    del pets["former_key_file"]
    ended = now(teams={"pets": {**pets, "per_second": 5}}, timeout_s=3)
    assert changes(rotated, ended) == (
        "took up timeout_s, rate of pets and withdrew former key of pets, rate of cars, key of cars"
    )
    write_key(tmp_path / "new.key", "fedcba9876543210")
    made(tmp_path / "tls", "a")
    (tmp_path / "tls/a.pem").rename(tmp_path / "tls/certificate.pem")
    said = changes(ended, now())
    assert said == "took up key of pets, certificate"
    assert not any(key in str(ended) for key in KEYS.values())


@needs_envoy
def test_a_stable_server_that_nobody_reaches_gets_no_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = write_gateway(tmp_path, tls=False, repository=str(EXAMPLE))
    gateway = Gateway(GatewayPlan.open(path), event=lambda *_, **__: None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        silent = free_beside(port)
        stable = {"grpc": port, "http": silent.http, "status": silent.grpc}
        path.write_text(dump_yaml({**read_plain(path), "stable": stable}))
        with pytest.raises(
            ServingError, match=rf"stable\.http: 127\.0\.0\.1:{silent.http} cannot be reached: Connection"
        ):
            gateway.reload()
    assert gateway.plan.settings.stable.grpc != port


@needs_envoy
def test_one_that_clients_refuse_replaces_none_but_keeps_no_key_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = write_gateway(tmp_path, repository=str(EXAMPLE))

    def write(tls: Tls) -> None:
        path.write_text(dump_yaml({**read_plain(path), "tls": vars(tls)}))

    said: list[tuple[str, str]] = []
    soon, over = made(tmp_path, "soon", ends=NOW + 3 * DAY), made(tmp_path, "over", ends=NOW - DAY / 2)
    gateway = Gateway(GatewayPlan.open(path), event=lambda name, message, **_: said.append((name, message)))
    write(soon)
    assert f"soon.pem ends at {NOW + 3 * DAY:%Y-%m-%d} " in gateway.reload()
    assert said[-1][0] == "certificate_ends"
    write(over)
    with pytest.raises(SpecError, match=r"over\.pem ended at .*, and clients refuse it; give a new one"):
        gateway.reload()
    done = run_here("gateway", "--check", path, cwd=tmp_path, check=False)
    assert (done.returncode, "over.pem ended at" in done.stderr) == (1, True)
    with pytest.raises(SpecError, match=r"over\.pem ended at"):
        write_secrets(path, tmp_path / "secrets")
    assert not (tmp_path / "secrets").exists()
    # The one in force has run out meanwhile: a stolen key can still be withdrawn.
    gateway = Gateway(GatewayPlan.open(path), event=lambda name, message, **_: said.append((name, message)))
    gateway._take_up(gateway.plan)
    write_key(tmp_path / "pets.key", "0123456789abcdef")
    assert gateway.reload().startswith("took up key of pets; ")
    assert "over.pem ended at" in said[-1][1]
