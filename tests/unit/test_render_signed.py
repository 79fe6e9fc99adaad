"""`slipway render kubernetes --key`: init containers verify who signed a repository before a server sees it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from slipway.contract import SlipwayError
from slipway.oci.signing import sign
from slipway.operations.rendering.check import check
from tests.support.oci_images import EXAMPLE, built
from tests.support.registries import small_registry
from tests.support.rendered import BOTH, CLUSTER, ENVOY, render, settings
from tests.support.scripts import run_here
from tests.support.signing_keys import keys
from tests.support.validators import documents, faults, kustomized, require_validators


def pods(out: Path) -> dict[str, Any]:
    objects = documents(kustomized(out / "overlays/candidate"))
    found = {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment"}
    return {arm: found[arm] for arm in ("stable", "candidate")}


def test_every_pod_verifies_the_signature_and_every_validator_accepts_it(tmp_path: Path) -> None:
    require_validators()
    secret, public = keys(tmp_path)
    out = tmp_path / "out"
    render("kubernetes", settings(tmp_path / "settings"), out, *BOTH, "--key", public)
    text = kustomized(out / "overlays/candidate")
    assert faults(documents(text), ["1.35", "1.37"]) == []
    assert check(text, source="signed") == []
    for pod in pods(out).values():
        for container in pod["initContainers"]:
            assert container["args"][-2:] == ["--key", "/trusted/public.pem"]
            assert {"name": "trusted", "mountPath": "/trusted", "readOnly": True} in container["volumeMounts"]
        assert {"name": "trusted", "configMap": {"name": "signing-key"}} in pod["volumes"]
    written = yaml.safe_load((out / "components/init-container/key.yaml").read_text())
    assert written["data"] == {"public.pem": public.read_text()}
    with pytest.raises(SlipwayError, match=r"team\.pem: a private key; give its public half"):
        render("kubernetes", settings(tmp_path / "again"), out, *BOTH, "--key", secret)
    assert secret.read_text() not in text


def test_a_key_that_no_signature_can_be_of_is_refused_before_a_pod_needs_it(tmp_path: Path) -> None:
    public = tmp_path / "rsa.pub.pem"
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    public.write_bytes(numbers.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(SlipwayError, match=r"rsa\.pub\.pem: not of a curve that is supported"):
        render("kubernetes", settings(tmp_path / "settings"), tmp_path / "out", *BOTH, "--key", public)
    assert not (tmp_path / "out").exists()


def test_what_the_init_containers_run_takes_the_owner_s_image_and_no_other(tmp_path: Path) -> None:
    secret, public = keys(tmp_path)
    stranger, _ = keys(tmp_path, "stranger")
    layout, image = built(tmp_path / "images")
    sign(layout, image, key=stranger)
    with small_registry() as registry:
        where = f"{registry.host}/team/colours"
        words = ("--image", f"{where}@{image.digest}", *CLUSTER[2:], "--gateway-image", ENVOY, "--key", public)
        render("kubernetes", settings(tmp_path / "settings"), tmp_path / "out", *words)
        (patch,) = yaml.safe_load((tmp_path / "out/components/init-container/kustomization.yaml").read_text())[
            "patches"
        ]
        added = {one["path"].rpartition("/")[2]: one["value"] for one in yaml.safe_load(patch["patch"])}
        mounted = {
            "/trusted/": f"{tmp_path}/trusted/",
            "/fetched/": f"{tmp_path}/fetched/",
            "/models/": f"{tmp_path}/models/",
        }
        (tmp_path / "trusted").mkdir()
        key = yaml.safe_load((tmp_path / "out/components/init-container/key.yaml").read_text())
        (tmp_path / "trusted/public.pem").write_text(key["data"]["public.pem"])

        def run(container: dict[str, Any]) -> tuple[int, str]:
            here = [_replaced(word, mounted) for word in container["args"]]
            done = run_here(*here, cwd=tmp_path, check=False)
            return done.returncode, done.stderr

        pull, unpack = added["initContainers"]
        run_here("image", "push", "images:v1", f"{where}:v1", cwd=tmp_path)
        code, said = run(pull)
        assert (code, "none of its 1 signatures is by the owner of" in said) == (1, True), said
        sign(layout, image, key=secret)
        run_here("image", "push", "images:v1", f"{where}:v1", cwd=tmp_path)
        assert [run(one) for one in (pull, unpack)] == [(0, "")] * 2
    served = tmp_path / "models/repository/manifest.json"
    assert served.read_bytes() == (EXAMPLE / "manifest.json").read_bytes()


def _replaced(word: str, places: dict[str, str]) -> str:
    for there, here in places.items():
        if word.startswith(there):
            return word.replace(there, here, 1)
    return word
