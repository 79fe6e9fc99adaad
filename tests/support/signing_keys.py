"""Keys that sign images."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


def keys(folder: Path, name: str = "team", *, curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    """A private and a public key, in files."""
    private = ec.generate_private_key(curve or ec.SECP256R1())
    secret, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    secret.write_bytes(private.private_bytes(PEM, PKCS8, PLAIN))
    public.write_bytes(private.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return secret, public
