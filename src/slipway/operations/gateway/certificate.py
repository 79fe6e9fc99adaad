"""The certificate that clients get: whether its key fits, whose it is, and when it ends."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from slipway.contract import SpecError
from slipway.errors import requiring
from slipway.operations.gateway.settings import Tls

with requiring("cryptography", extra="operate"):
    from cryptography import x509

WARN_DAYS = 14
"""Days before its end from which a certificate is warned of, as by the alert SlipwayCertificateEnds."""


@dataclass(frozen=True)
class Certificate:
    """The parts of a gateway's certificate that clients check."""

    path: str
    names: tuple[str, ...]
    """The hosts that it is for: names and IP addresses."""
    begins: datetime
    ends: datetime
    """End of the certificate itself, which comes first in the file."""
    issuer_ends: datetime | None
    """The first end of the issuers' certificates in the file; None if it has none."""

    @classmethod
    def read(cls, tls: Tls, *, source: Path) -> Self:
        """Read the certificate, and check that the private key belongs to it.

        Raises:
            SpecError: a file is damaged, the key has a password, or it is that of another certificate.
        """
        try:
            chain = x509.load_pem_x509_certificates(Path(tls.certificate).read_bytes())
            names = _names(chain[0])
        except OSError as error:
            raise SpecError(
                f"{source}: tls.certificate: {tls.certificate} cannot be read: {error.strerror}; name "
                "another, or change its permissions"
            ) from None
        except ValueError:
            raise SpecError(
                f"{source}: tls.certificate: {tls.certificate} is damaged or cut; take it from its authority again"
            ) from None
        _check_key(tls, source=source)
        leaf, *issuers = chain
        issuer_ends = min((one.not_valid_after_utc for one in issuers), default=None)
        return cls(tls.certificate, names, leaf.not_valid_before_utc, leaf.not_valid_after_utc, issuer_ends)

    def problem(self, now: datetime) -> str | None:
        """Return the reason why clients would refuse the certificate at this time; None if they accept it.

        The end of an issuer's certificate is not counted: clients may have another chain to an authority.
        """
        if now >= self.ends:
            return f"{self.path} ended at {_time(self.ends)}, and clients refuse it; give a new one (docs/keys.md)"
        if now < self.begins:
            return (
                f"{self.path} begins at {_time(self.begins)}, and clients refuse it until then; look at the clock of "
                "this machine, or give another"
            )
        return None

    def warning(self, now: datetime) -> str | None:
        """The problem, or a sentence if it or an issuer's ends within `WARN_DAYS` days, or an issuer's has ended."""
        if said := self.problem(now):
            return said
        soon = now + timedelta(days=WARN_DAYS)
        if self.ends < soon:
            return f"{self.path} ends at {_time(self.ends)}; give a new one (docs/keys.md)"
        if self.issuer_ends is not None and self.issuer_ends < soon:
            return (
                f"{self.path} holds an issuer's certificate that ends at {_time(self.issuer_ends)}; take the issuers' "
                "certificates from the authority again (docs/keys.md)"
            )
        return None

    def __str__(self) -> str:
        return f"a certificate for {', '.join(self.names) or 'no host'} until {_time(self.ends)}"


def _check_key(tls: Tls, *, source: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password=lambda: b"")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise SpecError(
                f"{source}: tls.key: {tls.key} is not the key of {tls.certificate}; name the two files that belong "
                "together"
            ) from None
        said = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise SpecError(
            f"{source}: tls.key: {tls.key} must hold the private key of {tls.certificate}, in PEM, without a password; "
            f"the reason: {said}"
        ) from None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(one.value) for one in found)


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
