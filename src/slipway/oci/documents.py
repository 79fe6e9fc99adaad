"""The JSON documents of an OCI image: index, manifest, configuration and descriptor.

Source: OCI Image Format Specification 1.1.
"""

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from slipway.contract import OciImageError, SpecError
from slipway.contract.typed_file import Contract
from slipway.system.files import sha256_bytes
from slipway.system.yaml_json import parse_json

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation of a descriptor in `index.json`: the tag."""
STEP, VERSION, LANE = "slipway.step", "slipway.version", "slipway.lane"
CLASSIFIERS, SEALED = "slipway.classifiers", "slipway.manifest"
MOST_BYTES = 4 << 20
"""Largest document that registries take."""
_REMEDY = "it was changed, or is not of an OCI image: build or pull the image into a new folder, or push it again"
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class OciDocument(Contract):
    """A document with the field names of the specification. Fields that Slipway does not read are ignored."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)

    def plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(self.model_dump_json(by_alias=True, exclude_none=True))
        return plain

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal documents give equal bytes."""
        return json.dumps(self.plain(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str) -> Self:
        """Raises OciImageError: the bytes are not such a document; names the field."""
        try:
            return cls.parse(parse_json(data.decode("utf-8"), source=source), source=source)
        except UnicodeDecodeError:
            raise OciImageError(f"{source}: not UTF-8 text; {_REMEDY}") from None
        except SpecError as error:
            raise OciImageError(f"{error}; {_REMEDY}") from None


class Descriptor(OciDocument):
    """Names a blob by its SHA-256."""

    media_type: str
    digest: Digest
    size: int = Field(ge=0)
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None

    @classmethod
    def of(cls, data: bytes, media_type: str, **fields: Any) -> Self:
        return cls(media_type=media_type, digest=f"sha256:{sha256_bytes(data)}", size=len(data), **fields)

    @property
    def hex(self) -> str:
        return self.digest.partition(":")[2]

    @property
    def tag(self) -> str | None:
        return (self.annotations or {}).get(REF_NAME)

    @property
    def step(self) -> str:
        """Name of the layer, as `build` gave it."""
        return (self.annotations or {}).get(STEP, "")

    def bare(self) -> Self:
        """Return this descriptor without annotations."""
        return self.model_copy(update={"annotations": None})


class ImageManifest(OciDocument):
    schema_version: Literal[2] = 2
    media_type: Literal["application/vnd.oci.image.manifest.v1+json"] = MANIFEST
    artifact_type: str | None = None
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    """The image that this artefact belongs to."""
    annotations: dict[str, str] | None = None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        return (self.config, *self.layers)

    def annotation(self, name: str) -> str:
        return (self.annotations or {}).get(name, "")


class Index(OciDocument):
    schema_version: Literal[2] = 2
    media_type: Literal["application/vnd.oci.image.index.v1+json"] = INDEX
    manifests: tuple[Descriptor, ...] = ()


class RootFs(OciDocument):
    type: Literal["layers"] = "layers"
    diff_ids: tuple[Digest, ...] = Field(alias="diff_ids")
    """SHA-256 of each layer before compression."""


class ImageConfig(OciDocument):
    """The configuration that a container runtime reads. It has no time, so that equal repositories give equal bytes."""

    architecture: str = "amd64"
    os: str = "linux"
    rootfs: RootFs
