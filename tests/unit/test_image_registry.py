"""Images to and from a registry: only what is missing moves, and what fails leaves nothing half done."""

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import ImageError, SpecError
from slipway.image.artefacts import SBOM
from slipway.image.build import build
from slipway.image.credentials import find_credentials
from slipway.image.documents import MOST_BYTES, Descriptor
from slipway.image.layout import Layout
from slipway.image.reference import LayoutReference, RegistryReference
from slipway.image.registry import Registry
from slipway.image.transfer import Moved, pull, push
from slipway.image.verify import verify
from slipway.operations.gateway.made import self_signed
from slipway.serving import Ports
from tests.support import registries
from tests.support.colours import contents
from tests.support.images import built, warmer
from tests.support.registries import Stored, docker_registry, small_registry
from tests.support.scripts import run_here

PASSWORD = "user:$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu"
"""A line of htpasswd: the user `user` with the password `password`, by bcrypt."""


@pytest.fixture
def example(tmp_path: Path) -> tuple[Layout, Descriptor]:
    layout, image = built(tmp_path / "images")
    layout.attach(layout.attach(image, b"a bill", SBOM), b"a bill of the bill", SBOM)
    return layout, image


@pytest.fixture
def registry() -> Iterator[Stored]:
    with small_registry() as stored:
        yield stored


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / "docker/config.json"


def log_in(path: Path, host: str, password: str) -> None:
    path.parent.mkdir(exist_ok=True)
    auth = base64.b64encode(f"user:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}, "detachKeys": "ctrl-q"}))


def pushed(layout: Layout, image: Descriptor, host: str, *, tag: str = "v1") -> Moved:
    target = RegistryReference.parse(f"{host}/team/colours:{tag}")
    return push(layout, image, target, Registry(target), progress=lambda _: None)


def pulled(host: str, folder: Path, *, name: str = "team/colours:v1", **options: Any) -> Moved:
    source = RegistryReference.parse(f"{host}/{name}")
    with Layout.writing(folder) as layout:
        return pull(Registry(source), source, layout, tag="v1", progress=lambda _: None, **options)


def _round_trip(tmp_path: Path, layout: Layout, image: Descriptor, host: str) -> None:
    """Push, pull, push a second version, pull it: the layouts are equal, and what was there is not moved."""
    first = pushed(layout, image, host)
    whole = sum(path.stat().st_size for path in (layout.folder / "blobs/sha256").iterdir())
    # The two artefacts share the empty configuration.
    assert (first.moved_bytes, first.skipped_bytes) == (whole, 2)
    assert pulled(host, tmp_path / "there") == first
    assert contents(tmp_path / "there") == contents(layout.folder)
    nothing = pushed(layout, image, host)
    assert (nothing.moved_bytes, nothing.skipped_bytes) == (0, whole + 2)
    assert pulled(host, tmp_path / "there").moved_bytes == 0
    done = build(warmer(tmp_path), LayoutReference(layout.folder, "v2"))
    second = pushed(layout, done.image, host, tag="v2")
    new = [*done.written, done.manifest.config, done.image]
    assert (second.moved, second.moved_bytes) == (4, sum(part.size for part in new))
    assert [layer.step.partition("_")[0] for layer in done.written] == ["post", "rest"]
    assert pulled(host, tmp_path / "there", name="team/colours:v2") == second
    there = Layout.open(tmp_path / "there")
    assert verify(there, there.find(LayoutReference(there.folder, "v1"))).image.digest == done.image.digest


@pytest.mark.parametrize("lists_artefacts", [False, True], ids=["tag of artefacts", "API of artefacts"])
def test_only_what_is_missing_moves(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored, lists_artefacts: bool
) -> None:
    registry.lists_artefacts = lists_artefacts
    _round_trip(tmp_path, *example, registry.host)
    tags = {name for name in registry.manifests if ":" not in name and name.startswith("sha256-")}
    assert bool(tags) is not lists_artefacts


def test_docker_registry_takes_and_gives_it(tmp_path: Path, example: tuple[Layout, Descriptor]) -> None:
    with docker_registry(tmp_path) as host:
        _round_trip(tmp_path, *example, host)


def test_a_manifest_that_was_changed_in_the_storage_of_docker_registry_is_named(
    tmp_path: Path, example: tuple[Layout, Descriptor]
) -> None:
    layout, image = example
    with docker_registry(tmp_path) as host:
        pushed(layout, image, host)
        stored = tmp_path / f"registry/docker/registry/v2/blobs/sha256/{image.hex[:2]}/{image.hex}/data"
        stored.write_bytes(stored.read_bytes().replace(b'"slipway.lane":"cpu"', b'"slipway.lane":"gpu"'))
        with pytest.raises(ImageError, match=f"the manifest v1 is sha256:.*, and {image.digest} there; the registry's"):
            pulled(host, tmp_path / "there")


def test_docker_registry_asks_who(tmp_path: Path, example: tuple[Layout, Descriptor], no_logins: Path) -> None:
    with docker_registry(tmp_path, htpasswd=PASSWORD) as host:
        with pytest.raises(ImageError, match=r"refuses anonymous users for team/colours .*log in \(docker login"):
            pushed(*example, host)
        log_in(no_logins, host, "wrong")
        with pytest.raises(ImageError, match=r"refuses user user \(.*config\.json\)"):
            pushed(*example, host)
        log_in(no_logins, host, "password")
        assert pushed(*example, host).moved == 11
        assert pulled(host, tmp_path / "there").moved == 11


def test_a_token_is_asked_for_and_used(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored, no_logins: Path
) -> None:
    registry.token = "secret"
    with pytest.raises(ImageError, match="refuses anonymous users"):
        pushed(*example, registry.host)
    log_in(no_logins, registry.host, "wrong")
    with pytest.raises(ImageError, match="refuses user user"):
        pushed(*example, registry.host)
    log_in(no_logins, registry.host, "password")
    pushed(*example, registry.host)
    assert pulled(registry.host, tmp_path / "there").moved == 11
    assert sum("/token" in asked for asked in registry.asked) == 4, "one of each client"


@pytest.mark.parametrize("point", range(0, 40, 4))
@pytest.mark.parametrize("status", [0, 503])
def test_a_push_that_ends_anywhere_leaves_no_tag_and_the_next_one_completes_it(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored, point: int, status: int
) -> None:
    registry.fault = lambda _: status if len(registry.asked) == point + 1 else None
    with contextlib.suppress(ImageError):
        pushed(*example, registry.host)
        return  # it takes fewer requests
    registry.fault = lambda _: None
    with pytest.raises(
        ImageError, match=r"no such image: .* check name and tag; if its push was cut short, push it again"
    ):
        pulled(registry.host, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    pushed(*example, registry.host)
    pulled(registry.host, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(example[0].folder)


@pytest.mark.parametrize("point", range(0, 24, 4))
def test_a_pull_that_ends_anywhere_leaves_no_tag_and_the_next_one_completes_it(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored, point: int
) -> None:
    pushed(*example, registry.host)
    before = len(registry.asked)
    registry.fault = lambda _: 0 if len(registry.asked) == before + point + 1 else None
    with contextlib.suppress(ImageError):
        pulled(registry.host, tmp_path / "there")
        return
    if (tmp_path / "there").exists():
        assert all(one.tag is None for one in Layout.open(tmp_path / "there").index.manifests)
    pulled(registry.host, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(example[0].folder)


def test_what_a_registry_changed_or_lost_is_refused(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored
) -> None:
    layout, image = example
    pushed(layout, image, registry.host)
    layer = layout.manifest(image).layers[1]
    good, named = registry.blobs[layer.digest], rf"layer {layer.step} \({layer.digest}\)"
    for bad, words in (
        (good[:-1] + b"x", rf"{named}: its SHA-256 is [0-9a-f]+; the registry's copy is damaged: delete it there"),
        (good + b"x", f"{named}: it is longer than .*; the registry's copy is damaged"),
        (good[:-1], f"{named}: it ended 1 bytes early; pull again"),
        (None, f"{named} is not in the registry; push the image again"),
    ):
        registry.blobs.pop(layer.digest)
        registry.blobs |= {} if bad is None else {layer.digest: bad}
        with pytest.raises(ImageError, match=words):
            pulled(registry.host, tmp_path / "there")
        assert Layout.open(tmp_path / "there").index.manifests[0].tag is None
        registry.blobs[layer.digest] = good
    other, media_type = registry.manifests["v1"]
    registry.manifests[image.digest] = (other + b" ", media_type)
    with pytest.raises(ImageError, match=r"the registry gave sha256:[0-9a-f]+, which is another image"):
        pulled(registry.host, tmp_path / "there", name=f"team/colours@{image.digest}")


def test_a_push_of_a_changed_layer_names_its_file(example: tuple[Layout, Descriptor], registry: Stored) -> None:
    layout, image = example
    path = layout.path(layout.manifest(image).layers[1])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ImageError, match=f"{path.name}: layer post_[0-9a-f]+ was changed: .*; remove it, and build"):
        pushed(layout, image, registry.host)
    assert "v1" not in registry.manifests


def test_a_pull_replaces_what_was_changed_in_its_layout(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored
) -> None:
    pushed(*example, registry.host)
    pulled(registry.host, tmp_path / "there")
    for number, path in enumerate(sorted((tmp_path / "there/blobs/sha256").iterdir())):
        data = path.read_bytes()
        if number % 3:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        else:
            path.unlink()
            path.symlink_to(tmp_path / "elsewhere") if number else None
    (tmp_path / "elsewhere").write_bytes(b"")
    pulled(registry.host, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(example[0].folder)


def test_artefacts_that_are_too_large_or_too_many_are_refused_before_they_are_pulled(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, image = example
    huge = layout.attach(image, b" " * (MOST_BYTES + 1), SBOM)
    pushed(layout, image, registry.host)
    with pytest.raises(
        ImageError, match=f"4,194,305 bytes for a part of the artefact {huge.digest}; at most 4,194,304"
    ):
        pulled(registry.host, tmp_path / "there")
    registry.lists_artefacts = True
    monkeypatch.setattr(registries._Handler, "_artefacts", lambda *_: b" " * (MOST_BYTES + 1))
    with pytest.raises(ImageError, match="the list of artefacts is larger than 4,194,304 bytes"):
        pulled(registry.host, tmp_path / "there")


def test_what_docker_pushed_is_said_to_be_something_else(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored
) -> None:
    registry.manifests["v1"] = (b"{}", "application/vnd.docker.distribution.manifest.v2+json")
    with pytest.raises(ImageError, match="not the image of a model repository; give one that"):
        pulled(registry.host, tmp_path / "there")
    with pytest.raises(ImageError, match="names something other than a model repository there"):
        pushed(*example, registry.host)


def test_addresses_that_nobody_can_ask_are_said(example: tuple[Layout, Descriptor]) -> None:
    with pytest.raises(ImageError, match="cannot be reached"):
        pushed(*example, f"{'a' * 64}.example")
    with small_registry() as stored:
        stored.elsewhere = "http://[x"
        with pytest.raises(ImageError, match="cannot be reached"):
            pushed(*example, stored.host)


def test_a_certificate_of_another_name_is_not_said_to_lack_an_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path / "tls", hosts=["registry.example"])
    with small_registry(certificate) as secure:
        client = Registry(RegistryReference.parse(f"{secure.host}/a:v1"))
        client._root = f"https://{secure.host}/v2/"
        with pytest.raises(ImageError, match=r"its certificate is not trusted .*give the file of its authority"):
            client.check()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        client = Registry(RegistryReference.parse(f"{secure.host}/a:v1"))
        client._root = f"https://{secure.host}/v2/"
        with pytest.raises(ImageError, match="call the registry by a name of its certificate"):
            client.check()


def test_an_image_that_is_not_trusted_is_not_downloaded(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored
) -> None:
    pushed(*example, registry.host)

    def trust(_: Descriptor) -> None:
        raise ImageError("not by us")

    before = len(registry.asked)
    with pytest.raises(ImageError, match="not by us"):
        pulled(registry.host, tmp_path / "there", trust=trust)
    layers = {layer.digest for layer in example[0].manifest(example[1]).layers}
    assert not any(digest in asked for digest in layers for asked in registry.asked[before:])
    assert Layout.open(tmp_path / "there").index.manifests == ()


def test_a_tag_of_something_else_or_of_another_lane_is_not_taken(
    tmp_path: Path, example: tuple[Layout, Descriptor], registry: Stored
) -> None:
    pushed(*example, registry.host)
    data, media_type = registry.manifests["v1"]
    registry.manifests["v1"] = (data.replace(b'"slipway.lane":"cpu"', b'"slipway.lane":"gpu"'), media_type)
    with pytest.raises(ImageError, match="names an image of the gpu lane there, and this one is of the cpu lane"):
        pushed(*example, registry.host)
    with pytest.raises(ImageError, match="of the gpu lane, and the cpu lane is wanted"):
        pulled(registry.host, tmp_path / "there", lane="cpu")
    registry.manifests["v1"] = (data.replace(b"slipway.", b"another."), media_type)
    with pytest.raises(ImageError, match="names something other than a model repository there"):
        pushed(*example, registry.host)
    with pytest.raises(ImageError, match="not the image of a model repository"):
        pulled(registry.host, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_credentials_stay_with_the_registry_that_they_are_of(
    example: tuple[Layout, Descriptor], registry: Stored, no_logins: Path
) -> None:
    log_in(no_logins, registry.host, "password")
    with small_registry() as other:
        other.token, registry.elsewhere = "secret", f"http://{other.host}"
        with pytest.raises(ImageError, match="refuses user"):
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
            with pytest.raises(ImageError, match=rf"sends us on to {elsewhere}/v2/up.*, which is not encrypted"):
                client.put_blob(blob, lambda: [b"content"])
            with pytest.raises(ImageError, match=rf"sends us on to {elsewhere}/v2/a/blobs.*, which is not encrypted"):
                list(client.blob(blob))
        secure.elsewhere = ""
        client.put_blob(blob, lambda: [b"content"])
        assert b"".join(client.blob(blob)) == b"content"
    assert registry.asked == []
    assert client._is_own(f"https://{secure.host}/v2/a")
    assert not client._is_own(f"http://{secure.host}/v2/a")


def test_a_host_that_is_no_registry_or_not_there_is_said(tmp_path: Path, registry: Stored) -> None:
    registry.fault = lambda _: 400
    with pytest.raises(ImageError, match=r"answers 400 without TLS; if it speaks TLS, leave out --plain-http"):
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
    with pytest.raises(ImageError, match=r"does not speak TLS .*a registry without it needs --plain-http"):
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
    assert found is not None, "a field that we do not know is no error"
