"""Which hosts a registry is asked at, and with which credentials: what cannot be is said without a secret."""

import json
from pathlib import Path

import pytest

from slipway.contract import OciImageError, SpecError
from slipway.oci.credentials import find_credentials
from slipway.oci.documents import Descriptor
from slipway.oci.reference import RegistryReference
from slipway.oci.registry import Registry
from slipway.operations.gateway.new_secrets import self_signed
from slipway.serving import Ports
from tests.support import pushes as fixtures
from tests.support.oci_images import Built, built
from tests.support.pushes import log_in, pulled, pushed
from tests.support.registries import Stored, small_registry
from tests.support.scripts import run_here

example, registry, no_logins = fixtures.example, fixtures.registry, fixtures.no_logins


def test_what_docker_pushed_is_said_to_be_something_else(tmp_path: Path, example: Built, registry: Stored) -> None:
    registry.manifests["v1"] = (b"{}", "application/vnd.docker.distribution.manifest.v2+json")
    with pytest.raises(OciImageError, match="not the image of a model repository; give one that"):
        pulled(registry.host, tmp_path / "there")
    with pytest.raises(OciImageError, match="names something other than a model repository there"):
        pushed(*example, registry.host)


def test_addresses_that_nobody_can_ask_are_said(example: Built) -> None:
    with pytest.raises(OciImageError, match="cannot be reached"):
        pushed(*example, f"{'a' * 64}.example")
    with small_registry() as stored:
        stored.elsewhere = "http://[x"
        with pytest.raises(OciImageError, match="cannot be reached"):
            pushed(*example, stored.host)


def test_a_certificate_of_another_name_is_not_said_to_lack_an_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path / "tls", hosts=["registry.example"])
    with small_registry(certificate) as secure:
        client = Registry(RegistryReference.parse(f"{secure.host}/a:v1"))
        client._root = f"https://{secure.host}/v2/"
        with pytest.raises(OciImageError, match=r"its certificate is not trusted .*give the file of its authority"):
            client.check()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        client = Registry(RegistryReference.parse(f"{secure.host}/a:v1"))
        client._root = f"https://{secure.host}/v2/"
        with pytest.raises(OciImageError, match="call the registry by a name of its certificate"):
            client.check()


def test_credentials_stay_with_the_registry_that_they_are_of(example: Built, registry: Stored, no_logins: Path) -> None:
    log_in(no_logins, registry.host, "password")
    with small_registry() as other:
        other.token, registry.elsewhere = "secret", f"http://{other.host}"
        with pytest.raises(OciImageError, match="refuses user"):
            pushed(*example, registry.host)
    assert [asked.partition(" ")[0] for asked in other.asked] == ["PUT"], "and no token was asked for"


def test_a_registry_with_tls_cannot_send_anything_to_a_host_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Stored
) -> None:
    certificate = self_signed(tmp_path / "tls", hosts=["127.0.0.1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    blob = Descriptor.of(b"content", "application/octet-stream")
    with small_registry(certificate) as secure:
        client = Registry(RegistryReference.parse(f"{secure.host}/a:v1"))
        client._root = f"https://{secure.host}/v2/"
        for elsewhere in (f"http://{registry.host}", f"http://{secure.host}"):
            secure.elsewhere = elsewhere
            with pytest.raises(OciImageError, match=rf"sends us on to {elsewhere}/v2/up.*, which is not encrypted"):
                client.put_blob(blob, lambda: [b"content"])
            with pytest.raises(
                OciImageError, match=rf"sends us on to {elsewhere}/v2/a/blobs.*, which is not encrypted"
            ):
                list(client.blob(blob))
        secure.elsewhere = ""
        client.put_blob(blob, lambda: [b"content"])
        assert b"".join(client.blob(blob)) == b"content"
    assert registry.asked == []
    assert client._is_own(f"https://{secure.host}/v2/a")
    assert not client._is_own(f"http://{secure.host}/v2/a")


def test_a_host_that_is_no_registry_or_not_there_is_said(tmp_path: Path, registry: Stored) -> None:
    registry.fault = lambda _: 400
    with pytest.raises(OciImageError, match=r"answers 400 without TLS; if it speaks TLS, leave out --plain-http"):
        Registry(RegistryReference.parse(f"{registry.host}/a:v1")).check()
    registry.fault = lambda _: 404
    layout = "images"
    built(tmp_path / layout)
    nobody = f"127.0.0.1:{Ports.free().http}"
    for host, words in (
        (registry.host, "not a registry"),
        (nobody, "cannot be reached at http://127.0.0.1"),
        ("registry.invalid", "cannot be reached at https://registry.invalid/v2/"),
    ):
        for words_of_verb in (("push", layout, f"{host}/a:v1"), ("pull", f"{host}/a:v1", "there")):
            done = run_here("image", *words_of_verb, cwd=tmp_path, check=False)
            assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "there").exists()
    client = Registry(RegistryReference.parse(f"{registry.host}/a:v1"))
    client._root = f"https://{registry.host}/v2/"
    with pytest.raises(OciImageError, match=r"does not speak TLS .*a registry without it needs --plain-http"):
        client.check()


def test_credentials_of_other_tools_are_found(tmp_path: Path, no_logins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_credentials("a.example") is None
    log_in(no_logins, "a.example", "word")
    found = find_credentials("a.example")
    assert found is not None
    assert (found.user, found.password) == ("user", "word")
    assert find_credentials("b.example") is None
    no_logins.write_text('{"auths": {"a.example": {"auth": "not base64!"}}}')
    with pytest.raises(SpecError, match="is not Base64 of user:password"):
        find_credentials("a.example")
    (tmp_path / "docker-credential-test").write_text(
        '#!/bin/sh\nread host\n[ $host = a.example ] && echo \'{"ServerURL":"","Username":"helped","Secret":"x"}\'\n'
    )
    (tmp_path / "docker-credential-test").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    no_logins.write_text('{"credsStore": "test"}')
    helped = find_credentials("a.example")
    assert helped is not None
    assert helped.user == "helped"
    assert find_credentials("b.example") is None
    no_logins.write_text('{"credsStore": "absent"}')
    with pytest.raises(
        SpecError, match=r"docker-credential-absent: is not on PATH, .* for the login of a\.example; install it"
    ):
        find_credentials("a.example")


def test_a_login_that_cannot_be_used_is_said_without_its_secret(
    tmp_path: Path, no_logins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_logins.parent.mkdir()
    for logins, field in (
        ({"auths": {"a.example": "hunter2"}}, r"auths\.a\.example"),
        ({"auths": {"a.example": {"auth": ["hunter2"]}}}, r"auths\.a\.example\.auth"),
        (["hunter2"], "the whole"),
    ):
        no_logins.write_text(json.dumps(logins))
        with pytest.raises(SpecError, match=rf"config\.json: {field}: not as a login writes it") as caught:
            find_credentials("a.example")
        assert "hunter2" not in str(caught.value)
    helper = tmp_path / "docker-credential-test"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    no_logins.write_text('{"credsStore": "test"}')
    answers = ({"Secret": "hunter2"}, {"Username": "user", "Secret": ["hunter2"]})
    for answer, field in zip(answers, ("Username", "Secret"), strict=True):
        helper.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
        helper.chmod(0o755)
        with pytest.raises(SpecError, match=f"docker-credential-test: {field}: not as a login") as caught:
            find_credentials("a.example")
        assert "hunter2" not in str(caught.value)
    helper.write_text("""#!/bin/sh\necho '{"Username": "user", "Secret": "x", "Expires": 1}'\n""")
    found = find_credentials("a.example")
    assert found is not None, "an unknown field must be ignored"
