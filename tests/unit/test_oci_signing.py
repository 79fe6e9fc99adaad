"""Who built an image, and what it needs: signatures and SBOMs beside it, which verify or say why not."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from model_signing import verifying

from slipway.contract import Lane, OciImageError, SpecError, StorageError
from slipway.oci.artefacts import SBOM, SIGNATURE, of_type
from slipway.oci.documents import Descriptor
from slipway.oci.layout import ImageLayout
from slipway.oci.sbom import Lock, sbom
from slipway.oci.signing import sign, verify_signatures
from slipway.oci.verify import verify
from tests.support.damage import flip_byte
from tests.support.oci_images import EXAMPLE, Built, built, with_manifest
from tests.support.scripts import ROOT, run_here
from tests.support.signing_keys import PEM, PKCS8, PLAIN, keys
from tests.support.validators import bill_faults

LOCK = ROOT / "build/images/cpu/requirements.lock"


@pytest.fixture
def example(tmp_path: Path) -> Built:
    return built(tmp_path / "images")


def _with_sbom(layout: ImageLayout, image: Descriptor) -> Descriptor:
    verified = verify(layout, image)
    return layout.attach(image, sbom(image, verified.manifest, verified.lane, Lock.read(LOCK)), SBOM)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_is_signed_verifies_and_nothing_is_signed_twice(
    tmp_path: Path, example: Built, curve: ec.EllipticCurve
) -> None:
    secret, public = keys(tmp_path, curve=curve)
    _with_sbom(*example)
    assert sign(*example, key=secret) == 2
    assert sign(*example, key=secret) == 0
    assert verify_signatures(*example, key=public) == 2
    assert verify(*example).files == 44


def test_the_sbom_is_one_by_the_strict_schema(example: Built) -> None:
    layout, image = example
    _with_sbom(layout, image)
    ((_, bill),) = of_type(layout, image, SBOM)
    assert bill_faults(layout.read_artefact(bill, what="a bill").decode()) == []


def test_model_signing_itself_verifies_the_signature(tmp_path: Path, example: Built) -> None:
    layout, image = example
    secret, public = keys(tmp_path)
    sign(layout, image, key=secret)
    ((_, signature),) = of_type(layout, image, SIGNATURE)
    config = verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.verify(layout.path(image), layout.path(signature))


def test_an_image_that_nobody_or_somebody_else_signed_is_refused(tmp_path: Path, example: Built) -> None:
    layout, image = example
    secret, public = keys(tmp_path)
    other, _ = keys(tmp_path, "other")
    with pytest.raises(OciImageError, match="is not trusted: it is not signed"):
        verify_signatures(layout, image, key=public)
    sign(layout, image, key=other)
    with pytest.raises(OciImageError, match="none of its 1 signatures is by the owner of"):
        verify_signatures(layout, image, key=public)
    sign(layout, image, key=secret)
    assert verify_signatures(layout, image, key=public) == 1, "several may sign"


def test_an_sbom_that_came_after_the_signature_is_refused(tmp_path: Path, example: Built) -> None:
    secret, public = keys(tmp_path)
    sign(*example, key=secret)
    added = _with_sbom(*example)
    with pytest.raises(OciImageError, match=f"the SBOM {added.digest} is not trusted: it is not signed"):
        verify_signatures(*example, key=public)


def test_an_sbom_that_was_dropped_is_said_to_be_missing(tmp_path: Path, example: Built) -> None:
    layout, image = example
    secret, public = keys(tmp_path)
    bill = _with_sbom(layout, image)
    sign(layout, image, key=secret)
    assert verify(layout, image).sboms == 1
    kept = [one for one in layout.index.manifests if one.digest != bill.digest]
    layout._replace_index(kept)
    done = run_here("image", "verify", layout.folder, "--key", public, "--json", cwd=tmp_path)
    assert "no SBOM is beside it" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["sboms"] == 0


def test_the_signature_of_another_image_does_not_count(tmp_path: Path, example: Built) -> None:
    layout, image = example
    secret, public = keys(tmp_path)
    sign(layout, image, key=secret)
    ((_, signature),) = of_type(layout, image, SIGNATURE)
    other = with_manifest(layout, layout.manifest(image).model_copy(update={"annotations": {"slipway.lane": "gpu"}}))
    layout.attach(other, layout.read(signature, what="a signature"), SIGNATURE)
    with pytest.raises(OciImageError, match="none of its 1 signatures"):
        verify_signatures(layout, other, key=public)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"\xff", b'{"dsseEnvelope": {"payload": 1}}', b"[" * 5000])
def test_a_signature_that_is_junk_does_not_count(tmp_path: Path, example: Built, junk: bytes) -> None:
    layout, image = example
    layout.attach(image, junk, SIGNATURE)
    with pytest.raises(OciImageError, match="none of its 1 signatures"):
        verify_signatures(layout, image, key=keys(tmp_path)[1])


def test_a_flipped_byte_of_an_artefact_is_named(tmp_path: Path, example: Built) -> None:
    layout, image = example
    secret, public = keys(tmp_path)
    bill = _with_sbom(layout, image)
    sign(layout, image, key=secret)
    parts = [bill, *layout.manifest(bill).blobs]
    for descriptor, blob in of_type(layout, image, SIGNATURE):
        parts += [descriptor, blob]
    for part in parts:
        path = layout.path(part)
        data = path.read_bytes()
        flip_byte(path, -1)
        with pytest.raises(OciImageError, match=path.name):
            verify(layout, image)
        with pytest.raises(OciImageError):
            verify_signatures(layout, image, key=public) and verify(layout, image)
        path.write_bytes(data)
    assert verify_signatures(layout, image, key=public) == 2


def test_a_key_that_cannot_be_used_is_said(tmp_path: Path, example: Built) -> None:
    secret, public = keys(tmp_path)
    encrypted, edwards, text = tmp_path / "encrypted.pem", tmp_path / "edwards.pem", tmp_path / "text.pem"
    locked = serialization.BestAvailableEncryption(b"word")
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted.write_bytes(key.private_bytes(PEM, PKCS8, locked))
    edwards.write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, PLAIN))
    text.write_text("secret")
    for given, words in (
        (encrypted, f"decrypt it first: openssl ec -in {encrypted} -out PLAIN"),
        (edwards, "not of a curve"),
        (text, "not a private key"),
        (public, "not a private key"),
    ):
        with pytest.raises(SpecError, match=words):
            sign(*example, key=given)
    for given, words in ((secret, "give its public half"), (text, "not a public key")):
        with pytest.raises(SpecError, match=words):
            verify_signatures(*example, key=given)
    with pytest.raises(StorageError, match="cannot be read"):
        sign(*example, key=tmp_path / "nowhere.pem")


def test_an_sbom_lists_the_models_and_the_lane_s_packages_in_equal_bytes(example: Built) -> None:
    layout, image = example
    manifest, lane, lock = layout.manifest(image), Lane.read(EXAMPLE / "lane.json"), Lock.read(LOCK)
    data = sbom(image, manifest, lane, lock)
    assert data == sbom(image, manifest, lane, lock)
    bill = json.loads(data)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == image.digest
    found = {one["name"]: (one["version"], one["type"]) for one in bill["components"]}
    assert found["colours"] == (lane.classifiers["colours"], "machine-learning-model")
    assert found["numpy"] == (dict(lock.packages)["numpy"], "library")
    assert {"slipway", "openvino"} <= found.keys()
    assert len(found) == len(lock.packages) + 2
    gpu = lane.model_copy(update={"lane": "gpu", "release": "26.06", "tensorrt": "10.16"})
    extra = {one["name"]: one["version"] for one in json.loads(sbom(image, manifest, gpu, lock))["components"]}
    assert (extra["tritonserver"], extra["tensorrt"]) == ("26.06", "10.16")


def test_a_lock_that_pins_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("numpy>=1\n")
    with pytest.raises(SpecError, match="pins no package"):
        Lock.read(tmp_path / "lock")
    with pytest.raises(StorageError, match="give the lane's lock file with --lock"):
        Lock.read(tmp_path / "absent")


def test_the_verbs_build_list_sign_and_verify(tmp_path: Path) -> None:
    secret, public = keys(tmp_path)
    run_here("image", "build", EXAMPLE, "images:v1", cwd=tmp_path)
    run_here("image", "sbom", "images:v1", "--lock", LOCK, cwd=tmp_path)
    run_here("image", "sign", "images:v1", "--key", secret, cwd=tmp_path)
    done = run_here("image", "verify", "images", "--key", public, "--lane", "cpu", "--json", cwd=tmp_path)
    assert "44 files in 4 layers are as they were built" in done.stdout
    assert "signed by the owner of" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["signed"] == 2
    done = run_here("image", "verify", "images", cwd=tmp_path)
    assert "no signature was verified, only hashes" in done.stdout
    run_here("image", "unpack", "images", "here", "--key", public, cwd=tmp_path)
    assert (tmp_path / "here/lane.json").read_bytes() == (EXAMPLE / "lane.json").read_bytes()
