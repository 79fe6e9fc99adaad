"""The software bill of materials of an image, in CycloneDX's JSON: the served models, and the needs of the lane.

It has no time and no random number: the same image and lock give the same bytes.
"""

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from slipway.contract import Lane, SpecError, StorageError
from slipway.errors import requiring
from slipway.oci.documents import VERSION, Descriptor, ImageManifest
from slipway.system.files import sha256_bytes

with requiring("cyclonedx-python-lib", extra="ship"):
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class Lock(NamedTuple):
    """The packages of a lane, as its lock file pins them."""

    packages: tuple[tuple[str, str], ...]
    sha256: str

    @classmethod
    def read(cls, path: Path) -> "Lock":
        """Raises SpecError: it pins nothing; StorageError: it cannot be read."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "not text"
            raise StorageError(
                f"{path}: cannot be read ({said}); give the lane's lock file with --lock, in a clone "
                "build/images/LANE/requirements.lock"
            ) from None
        packages = tuple(sorted(set(_PINNED.findall(text))))
        if not packages:
            raise SpecError(f"{path}: pins no package; give a file with lines such as numpy==1.26.4")
        return cls(packages, sha256_bytes(text.encode()))


def sbom(image: Descriptor, manifest: ImageManifest, lane: Lane, lock: Lock) -> bytes:
    """The SBOM of an image."""
    about = component(
        ComponentType.CONTAINER,
        "slipway-model-repository",
        image.digest,
        bom_ref=image.digest,
        properties={"slipway:lane": lane.lane, "slipway:lock": lock.sha256},
    )
    return document({about: list(_components(manifest, lane, lock))}, serial=f"{image.digest} {lock.sha256}")


def document(needs: Mapping[Component, Sequence[Component]], *, serial: str) -> bytes:
    """A bill in CycloneDX's JSON, without a time.

    Args:
        needs: what each component needs; the first one is the subject.
        serial: text that its number is made of.
    """
    about = next(iter(needs))
    parts = {part for needed in needs.values() for part in needed} | needs.keys()
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, serial),
        components=parts - {about},
        metadata=BomMetaData(component=about, timestamp=_NO_TIME),
    )
    for one, needed in needs.items():
        bom.register_dependency(one, needed)
    return JsonV1Dot6(bom).output_as_string(indent=1).encode()


def _components(manifest: ImageManifest, lane: Lane, lock: Lock) -> Iterator[Component]:
    for name, bundle in sorted(lane.classifiers.items()):
        yield component(ComponentType.MACHINE_LEARNING_MODEL, name, bundle)
    yield package("slipway", manifest.annotation(VERSION))
    # In NVIDIA's image, beside the packages of the lock.
    brought = {"tritonserver": lane.release, **lane.libraries} if lane.lane == "gpu" else {}
    for name, version in sorted(brought.items()):
        if version is not None:
            yield component(ComponentType.APPLICATION, name, version)
    for name, version in lock.packages:
        yield package(name, version)


def component(
    kind: ComponentType,
    name: str,
    version: str,
    *,
    bom_ref: str = "",
    properties: Mapping[str, str] = MappingProxyType({}),
) -> Component:
    return Component(
        type=kind,
        name=name,
        version=version,
        bom_ref=bom_ref or f"{kind.value}:{name}@{version}",
        properties=[Property(name=key, value=value) for key, value in properties.items()],
    )


def package(name: str, version: str, *, properties: Mapping[str, str] = MappingProxyType({})) -> Component:
    """A package of the Python package index."""
    purl = PackageURL("pypi", name=name, version=version)
    made = component(ComponentType.LIBRARY, name, version, bom_ref=str(purl), properties=properties)
    made.purl = purl
    return made
