"""Objects of Kubernetes as the rules read them: the fields that rules look at, whatever else is there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slipway.contract import SpecError
from slipway.system.text import shown

Labels: TypeAlias = dict[str, str]
KSERVE_MOUNT = "/mnt/models"
"""Path at which KServe mounts `storageUri`."""
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
T = TypeVar("T", bound="ManifestPart")


class ManifestPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class Port(ManifestPart):
    name: str | None = None
    number: int | None = Field(default=None, alias="containerPort")


class HttpGet(ManifestPart):
    path: str = "/"
    port: int | str


class Exec(ManifestPart):
    command: tuple[str, ...] = ()


class TcpSocket(ManifestPart):
    port: int | str


class Probe(ManifestPart):
    http: HttpGet | None = Field(default=None, alias="httpGet")
    tcp: TcpSocket | None = Field(default=None, alias="tcpSocket")
    command: Exec | None = Field(default=None, alias="exec")

    @property
    def port(self) -> int | str | None:
        asked = self.http or self.tcp
        return asked.port if asked else None


class Resources(ManifestPart):
    requests: dict[str, str | int | float] = Field(default={})
    limits: dict[str, str | int | float] = Field(default={})


class Capabilities(ManifestPart):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class Seccomp(ManifestPart):
    type: str = ""


class Rights(ManifestPart):
    """The security context of a pod or a container."""

    run_as_non_root: bool | None = Field(default=None, alias="runAsNonRoot")
    run_as_user: int | None = Field(default=None, alias="runAsUser")
    read_only_root: bool | None = Field(default=None, alias="readOnlyRootFilesystem")
    escalation: bool | None = Field(default=None, alias="allowPrivilegeEscalation")
    privileged: bool | None = None
    seccomp: Seccomp | None = Field(default=None, alias="seccompProfile")
    capabilities: Capabilities = Capabilities()


class Mount(ManifestPart):
    name: str
    path: str = Field(alias="mountPath")


class Variable(ManifestPart):
    name: str
    value: str | None = None


class Container(ManifestPart):
    name: str
    image: str = ""
    args: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    env: tuple[Variable, ...] = ()
    resources: Resources = Resources()
    rights: Rights = Field(default=Rights(), alias="securityContext")
    mounts: tuple[Mount, ...] = Field(default=(), alias="volumeMounts")
    startup: Probe | None = Field(default=None, alias="startupProbe")
    readiness: Probe | None = Field(default=None, alias="readinessProbe")
    liveness: Probe | None = Field(default=None, alias="livenessProbe")

    @property
    def probes(self) -> dict[str, Probe | None]:
        return {"startupProbe": self.startup, "readinessProbe": self.readiness, "livenessProbe": self.liveness}

    def has_port(self, port: int | str) -> bool:
        return any(port in (one.name, one.number) for one in self.ports)


class ImageVolume(ManifestPart):
    reference: str = ""


class ConfigMapVolume(ManifestPart):
    name: str = ""


class EmptyDir(ManifestPart):
    medium: str = ""
    size_limit: str | int | None = Field(default=None, alias="sizeLimit")


class Volume(ManifestPart):
    name: str
    image: ImageVolume | None = None
    config_map: ConfigMapVolume | None = Field(default=None, alias="configMap")
    empty_dir: EmptyDir | None = Field(default=None, alias="emptyDir")
    host_path: dict[str, Any] | None = Field(default=None, alias="hostPath")


class Pod(ManifestPart):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = Field(default=(), alias="initContainers")
    volumes: tuple[Volume, ...] = ()
    rights: Rights = Field(default=Rights(), alias="securityContext")
    token: bool | None = Field(default=None, alias="automountServiceAccountToken")
    host_network: bool = Field(default=False, alias="hostNetwork")
    host_pid: bool = Field(default=False, alias="hostPID")
    host_ipc: bool = Field(default=False, alias="hostIPC")

    @property
    def all_containers(self) -> tuple[Container, ...]:
        return (*self.init_containers, *self.containers)


class Metadata(ManifestPart):
    name: str
    namespace: str | None = None
    labels: Labels = Field(default={})
    annotations: Labels = Field(default={})


class Selector(ManifestPart):
    match_labels: Labels = Field(default={}, alias="matchLabels")

    def selects(self, labels: Mapping[str, str]) -> bool:
        return self.match_labels.items() <= labels.items()


class Template(ManifestPart):
    metadata: "TemplateMetadata"
    spec: Pod


class TemplateMetadata(ManifestPart):
    labels: Labels = Field(default={})


class Workload(ManifestPart):
    """The spec of a Deployment."""

    selector: Selector
    template: Template


class ModelSpec(ManifestPart):
    runtime: str = ""
    storage_uri: str = Field(default="", alias="storageUri")


class Predictor(ManifestPart):
    """The part of an InferenceService from which KServe makes a Deployment."""

    name: str = ""
    labels: Labels = Field(default={})
    model: ModelSpec = ModelSpec()
    rights: Rights = Field(default=Rights(), alias="securityContext")
    token: bool | None = Field(default=None, alias="automountServiceAccountToken")


class Canary(ManifestPart):
    predictor: Predictor = Predictor()
    percent: int = Field(default=0, alias="trafficPercent")


class InferenceService(ManifestPart):
    """The spec of an InferenceService."""

    predictor: Predictor
    canary: tuple[Canary, ...] = ()


class ServicePort(ManifestPart):
    name: str | None = None
    port: int
    target: int | str | None = Field(default=None, alias="targetPort")


class Service(ManifestPart):
    """The spec of a Service."""

    selector: Labels = Field(default={})
    ports: tuple[ServicePort, ...] = ()


class Object(ManifestPart):
    """Any object."""

    api_version: str = Field(alias="apiVersion")
    kind: str
    metadata: Metadata
    spec: dict[str, Any] = Field(default={})
    data: dict[str, str] = Field(default={})
    string_data: dict[str, str] = Field(default={}, alias="stringData")

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.metadata.name}"


WANTED = "the folder of slipway render kubernetes or kserve, or the file that kubectl kustomize printed"
"""Input of `slipway render check`, in words."""


@dataclass(frozen=True)
class Deployed:
    """A Deployment's name and its pods."""

    title: str
    name: str
    selector: Selector
    labels: Labels
    pod: Pod


@dataclass(frozen=True)
class Objects:
    """The objects that are applied together."""

    source: str
    all: tuple[Object, ...]

    @classmethod
    def parse(cls, text: str, *, source: str) -> Self:
        """Read YAML with one or more documents; raises SpecError if one is not an object of Kubernetes."""
        try:
            read = [document for document in yaml.load_all(text, Loader=LOADER) if document]
        except yaml.YAMLError as error:
            raise SpecError(f"{source}: not YAML: {' '.join(str(error).split())}; give {WANTED}") from None
        return cls.of_documents(read, source=source)

    @classmethod
    def of_documents(cls, documents: Iterable[Any], *, source: str) -> Self:
        """Read plain documents; raises SpecError if one is not an object of Kubernetes."""
        documents = tuple(documents)
        if other := [one for one in documents if not isinstance(one, dict)]:
            raise SpecError(
                f"{source}: a document is {shown(repr(other[0])[:60])}, which is not an object; give {WANTED}"
            )
        try:
            return cls(source, tuple(Object.model_validate(document) for document in documents))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "a document"
            raise SpecError(f"{source}: not objects of Kubernetes ({where}: {first['msg']}); give {WANTED}") from None

    def of(self, *kinds: str) -> Iterator[Object]:
        return (one for one in self.all if one.kind in kinds)

    @cached_property
    def deployed(self) -> tuple[Deployed, ...]:
        """Every Deployment; raises SpecError if one has no pods."""
        own = [self._deployed(one) for one in self.of("Deployment")]
        return (*own, *(made for one in self.of("InferenceService") for made in self._of_kserve(one)))

    def _of_kserve(self, one: Object) -> Iterator[Deployed]:
        """The pods that KServe makes: those of the runtime, with what `storageUri` names mounted."""
        runtimes = {runtime.metadata.name: self.read(runtime, Pod) for runtime in self.of("ServingRuntime")}
        spec = self.read(one, InferenceService)
        for predictor in (spec.predictor, *(canary.predictor for canary in spec.canary)):
            runtime = runtimes.get(predictor.model.runtime, Pod())
            kept = Volume(name="storage", image=ImageVolume(reference=predictor.model.storage_uri))
            mount = Mount(name="storage", path=KSERVE_MOUNT)
            containers = tuple(
                container.model_copy(update={"mounts": (*container.mounts, mount)}) for container in runtime.containers
            )
            changes = {"containers": containers, "volumes": (*runtime.volumes, kept), "rights": predictor.rights}
            pod = runtime.model_copy(update={**changes, "token": predictor.token})
            title = f"{one.title}/{predictor.name}"
            yield Deployed(title, title, Selector(matchLabels=predictor.labels), predictor.labels, pod)

    def _deployed(self, one: Object) -> Deployed:
        spec = self.read(one, Workload)
        return Deployed(one.title, one.metadata.name, spec.selector, spec.template.metadata.labels, spec.template.spec)

    @cached_property
    def services(self) -> dict[str, Service]:
        return {one.metadata.name: self.read(one, Service) for one in self.of("Service")}

    def read(self, one: Object, kind: type[T]) -> T:
        """The spec of an object; raises SpecError if it is not of that form."""
        try:
            return kind.model_validate(one.spec)
        except ValidationError as error:
            said = " ".join(str(error).split())[:300]
            raise SpecError(f"{self.source}: {one.title}: {said}") from None
