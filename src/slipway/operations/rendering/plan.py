"""Plans of the deployments to render, checked as a whole before a file is written."""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Self

from slipway.contract import Lane, SpecError
from slipway.oci.reference import OCI, RegistryReference
from slipway.operations.gateway.configuration import check_budgets
from slipway.operations.gateway.listener import public_models
from slipway.operations.gateway.settings import GatewaySettings, ServerPorts, read_settings
from slipway.serving.container import FALLBACK_START_S, shm_bytes, tmp_bytes
from slipway.serving.contents import Contents
from slipway.system.text import few

MIB = 2**20
KUBERNETES = tuple(f"1.{minor}" for minor in range(30, 38))
"""Versions of Kubernetes whose schemas the rendered files are checked against."""
IMAGE_VOLUMES = "1.35"
"""The first version in which image volumes are on by default."""
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST_PART = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MIG = re.compile(r"[1-7]g\.[0-9]{1,3}gb(\.me)?")
MOST_PODS = 10_000
"""Pods that a deployment is written for at most; a cluster of Kubernetes has up to 5,000 machines."""
SERVER_BYTES, CUDA_BYTES, STUB_BYTES = 512 * MIB, 2048 * MIB, 192 * MIB
"""Memory of a server, of its CUDA libraries, and of a Python step; a step with OpenVINO took 100 MiB."""


def image_reference(text: str, *, what: str) -> str:
    """`text`, if it names an image by its digest; raises SpecError otherwise."""
    if text.startswith(OCI):
        raise SpecError(f"{what}: {text!r}: leave out {OCI}, which is for slipway serve alone")
    if "@" not in text:
        raise SpecError(
            f"{what}: {text!r} does not name an image by its digest; write REGISTRY/NAME@sha256:<64 hexadecimal "
            "digits>: a tag may name another image tomorrow"
        )
    try:
        RegistryReference.parse(text)
    except SpecError as error:
        raise SpecError(f"{what}: {error}") from None
    return text


def dns_label(text: str, *, what: str) -> str:
    """`text`, if Kubernetes takes it as a name; raises SpecError otherwise."""
    if not _LABEL.fullmatch(text):
        raise SpecError(
            f"{what}: {text!r} is not a DNS label; use 1 to 63 characters of a-z, 0-9 and -, with a letter first, and "
            "no - at the end"
        )
    return text


def absolute_path(text: str, *, what: str) -> str:
    """`text`, if it is a path from the root on of the machine that serves; raises SpecError otherwise."""
    if not PurePosixPath(text).is_absolute():
        raise SpecError(f"{what}: {text!r}: give an absolute path, as it is on the machine that serves")
    return text


def host_name(text: str, *, what: str) -> str:
    """`text`, if a route of Kubernetes takes it as a host; raises SpecError otherwise."""
    parts = text.split(".")
    if len(text) > 253 or not all(map(_HOST_PART.fullmatch, parts)) or parts[-1].isdecimal():
        raise SpecError(
            f"{what}: {text!r} is not the name of a host; give one such as models.example: parts of a-z, 0-9 and -, "
            "up to 63 characters each, with dots between them, and no address or port"
        )
    return text


def kubernetes_version(text: str) -> str:
    """`text`, if it is a known version; raises SpecError otherwise."""
    version = text.removeprefix("v")
    if version not in KUBERNETES:
        raise SpecError(
            f"Kubernetes {text}: not a version that this release knows; it knows {KUBERNETES[0]} to {KUBERNETES[-1]} "
            "(write major.minor, such as 1.35)"
        )
    return version


def image_volumes(version: str) -> bool:
    """Whether a cluster of this version mounts images as volumes by default."""
    return KUBERNETES.index(version) >= KUBERNETES.index(IMAGE_VOLUMES)


@dataclass(frozen=True)
class Images:
    """The images of a deployment, each by its digest."""

    repository: str
    """The repository, which `slipway image` makes."""
    server: str
    """The lane's image of build/images."""
    gateway: str | None = None
    """Envoy."""
    candidate: str | None = None
    """The candidate's repository."""

    def checked(self) -> Self:
        """Raises SpecError if one is not named by a digest, or both repositories are the same."""
        options = {
            "--image": self.repository,
            "--server-image": self.server,
            "--gateway-image": self.gateway,
            "--candidate-image": self.candidate,
        }
        for what, given in options.items():
            if given is not None:
                image_reference(given, what=what)
        if self.candidate == self.repository:
            raise SpecError(f"--candidate-image: {self.candidate} is that of --image too; give the new repository's")
        return self


@dataclass(frozen=True)
class Gpu:
    """The GPU, or the MIG slice of one, of each pod."""

    resource: str
    """Name of the resource that NVIDIA's device plugin offers."""

    @classmethod
    def of(cls, mig: str | None) -> Self:
        """A whole GPU, or a slice of this profile; raises SpecError if it is not one."""
        if mig is None:
            return cls("nvidia.com/gpu")
        if not _MIG.fullmatch(mig):
            raise SpecError(f"--mig: {mig!r} is not a profile of MIG; write one such as 1g.10gb or 3g.40gb")
        return cls(f"nvidia.com/mig-{mig}")


@dataclass(frozen=True)
class ServerNeeds:
    """Resources that a server of the repository needs, on a machine with one GPU at most."""

    lane: Lane
    models: tuple[str, ...]
    """Names of the ensembles that clients may ask."""
    shm_bytes: int
    tmp_bytes: int
    memory_bytes: int
    """Largest memory use in bytes, shared memory included."""
    cores: int
    start_s: int
    """Longest time until every classifier answers."""

    @classmethod
    def of(cls, repository: Path) -> Self:
        """Read the repository; raises SlipwayError if it is not one, or is damaged."""
        contents = Contents.open(repository)
        lane, stubs = contents.lane, contents.stubs(gpus=1)
        # Of one repository: a new one is a new pod, and nothing is loaded beside it.
        shm = _round_up(shm_bytes(contents, loads=1, gpus=1), 64 * MIB)
        files = sum(path.stat().st_size for path in repository.rglob("*"))
        memory = SERVER_BYTES + stubs * STUB_BYTES + 2 * files + shm + (CUDA_BYTES if lane.needs_gpu else 0)
        return cls(
            lane,
            public_models(lane),
            shm_bytes=shm,
            tmp_bytes=_round_up(tmp_bytes(contents, repository), 64 * MIB),
            memory_bytes=_round_up(memory, 256 * MIB),
            cores=lane.cores or 2,
            start_s=FALLBACK_START_S if lane.fallback else 120 + 2 * stubs,
        )

    def or_larger(self, other: "ServerNeeds | None") -> "ServerNeeds":
        """This server with room for the other one too."""
        if other is None:
            return self
        sizes = ("shm_bytes", "tmp_bytes", "memory_bytes", "cores", "start_s")
        return replace(self, **{name: max(getattr(self, name), getattr(other, name)) for name in sizes})


@dataclass(frozen=True)
class ClusterPlan:
    """A gateway and the servers behind it, in a cluster."""

    settings: GatewaySettings
    server: ServerNeeds
    images: Images
    namespace: str
    kubernetes: str
    most_pods: int
    """Most pods of the stable release."""
    gpu: Gpu | None
    candidate_server: ServerNeeds | None = None
    """Resources of the candidate's server; without its repository, those of the stable one."""
    weight_percent: int = 0
    """Share of the requests that the candidate answers."""
    vital: tuple[str, ...] = ()
    """Classifiers that alone decide whether a pod gets requests; all of them if it is empty."""
    queue_ms: float = 10.0
    """Wait in the busiest queue at which pods are added."""
    monitoring: str = "monitoring"
    """Namespace of Prometheus."""
    public_key: str | None = None
    """Public key in PEM that must have signed the repositories' images; without it, digests alone are verified."""

    @property
    def fetches(self) -> bool:
        """Whether init containers fetch the repository: a kubelet that mounts an image verifies no signature."""
        return self.public_key is not None or not image_volumes(self.kubernetes)

    def checked(self) -> Self:
        """Raises SpecError if a part is wrong, or parts disagree."""
        self.images.checked()
        dns_label(self.namespace, what="--namespace")
        dns_label(self.monitoring, what="--monitoring-namespace")
        kubernetes_version(self.kubernetes)
        lane = self.server.lane
        if unknown := sorted({*self.vital} - lane.classifiers.keys()):
            raise SpecError(
                f"--vital: {few(unknown)}: the repository has no such classifier; it has "
                f"{few(sorted(lane.classifiers))}"
            )
        if self.gpu is not None and not lane.needs_gpu:
            raise SpecError("--gpus and --mig are for a gpu lane, and the repository is of the cpu lane; give --pods")
        if self.gpu is None and lane.needs_gpu:
            raise SpecError("--pods is for a cpu lane, and the repository is of the gpu lane; give --gpus or --mig")
        if others := [gpu for gpu in lane.gpus or () if gpu]:
            raise SpecError(
                f"the repository names GPU {', '.join(map(str, others))}, and a pod has one GPU, number 0; leave "
                "serving.gpu's GPUs out, and assemble it again"
            )
        if self.most_pods > MOST_PODS:
            raise SpecError(f"{self.most_pods:,} pods: give at most {MOST_PODS:,} (--pods or --gpus)")
        if self.weight_percent and self.images.candidate is None:
            raise SpecError(f"--weight {self.weight_percent} needs a candidate; give --candidate-image")
        return self


def public_key(path: Path) -> str:
    """The text of a public key in PEM; raises SpecError if it is not one, so that no private key gets into a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "not text"
        raise SpecError(f"--key: {path} cannot be read ({said}); give the public key that signed the image") from None
    if not text.startswith("-----BEGIN PUBLIC KEY-----") or "PRIVATE" in text:
        raise SpecError(f"--key: {path}: not a public key in PEM; openssl ec -in PRIVATE -pubout -out PUBLIC writes it")
    return text


def tls_settings(source: Path) -> GatewaySettings:
    """The settings of a gateway for other machines; raises SpecError if they are wrong or have no certificate."""
    settings = read_settings(source)
    if settings.tls is None:
        raise SpecError(
            f"{source}: tls: not given, and keys would travel in plain text; give certificate and key (slipway gateway "
            "--self-signed FOLDER makes some to try with)"
        )
    return settings


def repository_of(source: Path, settings: GatewaySettings, *, given: Path | None) -> Path:
    """The repository that was given, or else that of the settings; raises SpecError if there is none."""
    found = given or (Path(settings.repository) if settings.repository else None)
    if found is None:
        raise SpecError(f"{source}: repository: give the folder of the repository; its classifiers are public")
    return found


def cluster_settings(source: Path, settings: GatewaySettings, *, candidate: bool) -> GatewaySettings:
    """The settings as they are in a container, where each server has an address of its own.

    Raises:
        SpecError: they have a journal, which needs a disk beside the gateway.
    """
    if settings.observe is not None:
        raise SpecError(
            f"{source}: observe: the journal is a database on the gateway's own disk, and containers have none in "
            "common; give settings without observe, or run one box by slipway render systemd"
        )
    changes = {
        "listen": f"0.0.0.0:{settings.host_port[1]}",
        "stable": ServerPorts(),
        # The same ports: it is another machine. Their difference is a rule of one machine alone.
        "candidate": ServerPorts() if candidate else None,
        "access_log": "/dev/stdout" if settings.access_log else None,
    }
    return settings.model_copy(update=changes)


def check_models(source: Path, settings: GatewaySettings, server: ServerNeeds) -> None:
    """Raises SpecError if the settings have a budget of a classifier that is not served."""
    try:
        check_budgets(settings, server.models)
    except SpecError as error:
        raise SpecError(f"{source}: {error}") from None


def check_beside(
    repository: Path, candidate: Path | None, *, repositories: str | None, weight_percent: int = 0
) -> None:
    """Raises SpecError unless both can lie in one folder there, and the candidate takes the share that is asked for.

    Args:
        repositories: the folder that has both on the machine that serves; by default the one above them here.
    """
    if candidate is None:
        if weight_percent:
            raise SpecError(f"--weight {weight_percent} needs a candidate; give --candidate-repository")
        return
    here, other = repository.resolve(), candidate.resolve()
    if repositories is None and here.parent != other.parent:
        raise SpecError(
            f"{candidate}: not beside {repository}; both servers look into one folder: move it there, or give "
            "--repositories, the folder that has both on the machine that serves"
        )
    if here.name == other.name:
        raise SpecError(
            f"--candidate-repository: {candidate} has the name of the stable repository, and both lie in one folder on "
            "the machine that serves; give the repository to try, under another name"
        )


def check_candidate(server: ServerNeeds, folder: Path) -> None:
    """Raises SpecError if the candidate in `folder` cannot take the place of the stable release."""
    candidate = Contents.open(folder).lane
    if candidate.lane != server.lane.lane:
        raise SpecError(
            f"{folder}: of the {candidate.lane} lane, and the stable repository is of the {server.lane.lane} lane; "
            "assemble the candidate for the same lane"
        )
    if missing := sorted(set(server.models) - set(candidate.ensembles)):
        raise SpecError(
            f"{folder}: without {few(missing)}, which the stable repository serves, so a share of the requests would "
            "fail; assemble the candidate with them"
        )


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
