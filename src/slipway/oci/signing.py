"""Signs the manifest of an image with a key, and verifies it, by OpenSSF's `model-signing`.

The manifest names every layer by its SHA-256, so its signature covers every byte of the repository. A signature is an
artefact of the image in the layout: a Sigstore bundle, which `model_signing verify key` reads too.
"""

import tempfile
from pathlib import Path

from slipway.contract import OciImageError, SpecError, StorageError
from slipway.errors import requiring
from slipway.oci.artefacts import SBOM, SIGNATURE, of_type
from slipway.oci.documents import Descriptor
from slipway.oci.layout import ImageLayout
from slipway.system.text import command

with requiring("model-signing", extra="ship"):
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from model_signing import signing, verifying

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def sign(layout: ImageLayout, image: Descriptor, *, key: Path) -> int:
    """Sign an image and its SBOMs where this key has not; returns the number of new signatures.

    Args:
        layout: opened for writing.
        key: private key in PEM.

    Raises:
        SpecError: the key cannot be used.
    """
    public, made = public_half(private_key(key)), 0
    with tempfile.TemporaryDirectory(prefix="slipway-sign-") as folder:
        half, written = Path(folder, "public.pem"), Path(folder, "signature")
        half.write_bytes(public)
        for subject in (image, *_sboms(layout, image)):
            if not _is_signed(layout, subject, half):
                signing.Config().use_elliptic_key_signer(private_key=key).sign(layout.path(subject), written)
                layout.attach(subject, written.read_bytes(), SIGNATURE)
                made += 1
    return made


def verify_signatures(layout: ImageLayout, image: Descriptor, *, key: Path) -> int:
    """Check that the owner of a key signed an image and each of its SBOMs; returns the number of signed manifests.

    Args:
        key: public key in PEM.

    Raises:
        OciImageError: one is not signed, or by other keys only.
        SpecError: the key cannot be used.
    """
    check_public(key)
    subjects = [("the image", image), *(("the SBOM", sbom) for sbom in _sboms(layout, image))]
    for what, subject in subjects:
        layout.read(subject, what=what)
        if not _is_signed(layout, subject, key):
            others = len(of_type(layout, subject, SIGNATURE))
            said = f"none of its {others} signatures is by the owner of {key}" if others else "it is not signed"
            raise OciImageError(
                f"{layout.folder}: {what} {subject.digest} is not trusted: {said}; give the key of its owner, or have "
                "it signed (slipway image sign)"
            )
    return len(subjects)


def _sboms(layout: ImageLayout, image: Descriptor) -> list[Descriptor]:
    return [descriptor for descriptor, _ in of_type(layout, image, SBOM)]


def _is_signed(layout: ImageLayout, subject: Descriptor, key: Path) -> bool:
    """Whether a signature of `subject` verifies with a public key."""
    config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    with tempfile.TemporaryDirectory(prefix="slipway-verify-") as folder:
        # Copies whose digests were checked: the files of a layout may change between two looks.
        signed, signature = Path(folder, "manifest"), Path(folder, "signature")
        signed.write_bytes(layout.read(subject, what="what was signed"))
        for _, blob in of_type(layout, subject, SIGNATURE):
            signature.write_bytes(layout.read_artefact(blob, what="a signature"))
            try:
                config.verify(signed, signature)
            except Exception:  # foreign data: whatever the parsers of the library raise
                continue
            return True
    return False


def private_key(key: Path) -> ec.EllipticCurvePrivateKey:
    """The private key of a file; raises SpecError if it cannot be used, StorageError if it cannot be read."""
    data = _read(key)
    try:
        private = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise SpecError(
            f"{key}: encrypted; decrypt it first: {command('openssl ec -in', key, '-out', 'PLAIN')}"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise SpecError(f"{key}: not a private key in PEM; {_remedy()}") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name not in CURVES:
        raise SpecError(f"{key}: not of a curve that is supported; {_remedy()}")
    return private


def public_half(private: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key of a private one, in PEM."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(encoding, form)


def check_public(key: Path) -> None:
    """Raises SpecError if signatures cannot be verified with a file's key, StorageError if it cannot be read."""
    data = _read(key)
    try:
        public = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        what = "a private key; give its public half" if b"PRIVATE KEY" in data else f"not a public key; {_remedy()}"
        raise SpecError(f"{key}: {what}") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in CURVES:
        raise SpecError(f"{key}: not of a curve that is supported; {_remedy()}")


def _remedy() -> str:
    return f"give one in PEM, of one of the curves {', '.join(CURVES.values())} (docs/oci-image.md says how to make it)"


def _read(key: Path) -> bytes:
    try:
        return key.read_bytes()
    except OSError as error:
        raise StorageError(f"{key}: cannot be read: {error.strerror}; give the file of a key") from None
