"""Images pushed to a registry and pulled again: the fixtures and calls of their tests."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.oci.artefacts import SBOM
from slipway.oci.documents import Descriptor
from slipway.oci.layout import ImageLayout
from slipway.oci.reference import RegistryReference
from slipway.oci.registry import Registry
from slipway.oci.transfer import Moved, pull, push
from tests.support.oci_images import Built, built
from tests.support.registries import Stored, small_registry


@pytest.fixture
def example(tmp_path: Path) -> Built:
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


def pushed(layout: ImageLayout, image: Descriptor, host: str, *, tag: str = "v1") -> Moved:
    target = RegistryReference.parse(f"{host}/team/colours:{tag}")
    return push(layout, image, target, Registry(target), progress=lambda _: None)


def pulled(host: str, folder: Path, *, name: str = "team/colours:v1", **options: Any) -> Moved:
    source = RegistryReference.parse(f"{host}/{name}")
    with ImageLayout.writing(folder) as layout:
        return pull(Registry(source), source, layout, tag="v1", progress=lambda _: None, **options)
