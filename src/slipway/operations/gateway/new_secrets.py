"""Makes what a gateway needs and nobody has at first: a key, and a certificate to try with."""

import ipaddress
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from slipway.contract import SpecError
from slipway.system.process import output_of
from slipway.system.targets import told

CERTIFICATE, PRIVATE_KEY = "certificate.pem", "private-key.pem"
DAYS = 90
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def new_key(path: Path) -> None:
    """Write a new random key of 256 bits, which only its owner may read.

    Raises:
        SpecError: the file exists.
        StorageError: it cannot be written.
    """
    if path.exists():
        raise SpecError(f"{path} exists, and somebody may use its key; give another name, or remove it first")
    with told(path), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def self_signed(folder: Path, *, hosts: Sequence[str]) -> tuple[Path, Path]:
    """Make a certificate for `hosts` (names or IP addresses) with openssl; returns it and its private key.

    Clients trust it only if they are given it. It is for trying out: it is valid for 90 days.

    Raises:
        SpecError: a host is not one, a file exists, or openssl is not installed or fails.
    """
    certificate, key = folder / CERTIFICATE, folder / PRIVATE_KEY
    for path in (certificate, key):
        if path.exists():
            raise SpecError(f"{path} exists; give another folder, or remove it first")
    openssl = shutil.which("openssl")
    if openssl is None:
        raise SpecError("openssl is not installed; install it (apt-get install openssl), or give your own certificate")
    names = ",".join(_alternative(host) for host in hosts)
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        key.touch(mode=0o600)
    made = output_of(
        [
            openssl,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", str(DAYS), "-subj", f"/CN={hosts[0]}", "-addext", f"subjectAltName={names}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ]
    )
    if made.returncode:
        for path in (certificate, key):  # the next try would be refused for them
            path.unlink(missing_ok=True)
        said = (made.stderr.strip() or "it says nothing").splitlines()[-1]
        raise SpecError(f"openssl could not make a certificate: {said}")
    return certificate, key


def _alternative(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        if not _HOST.fullmatch(host):
            raise SpecError(f"{host!r} is neither the name of a host nor an IP address") from None
        return f"DNS:{host}"
