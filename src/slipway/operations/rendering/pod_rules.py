"""Rules about a pod by itself: images, probes, resources, and rights."""

from collections.abc import Iterator

from slipway.operations.rendering.manifests import Container, Deployed, Objects, Pod
from slipway.operations.rendering.pods import COMPONENT, SERVER
from slipway.operations.rendering.sizes import bytes_of
from slipway.operations.rendering.violation import Violation

DIGEST = "@sha256:"
GPU = "nvidia.com/"


def pod_findings(objects: Objects) -> Iterator[Violation]:
    for one in objects.deployed:
        yield from _images(one)
        yield from _rights(one)
        yield from _volumes(one)
        yield from _memory(one)
        for container in one.pod.all_containers:
            yield from _resources(one, container)
        for container in one.pod.containers:
            yield from _probes(one, container)


def _images(one: Deployed) -> Iterator[Violation]:
    named = {container.name: container.image for container in one.pod.all_containers}
    named |= {f"volume {volume.name}": volume.image.reference for volume in one.pod.volumes if volume.image}
    for what, image in named.items():
        if DIGEST not in image:
            yield Violation("image-digest", one.title, f"{what}: {image!r} has no digest; a tag may change its image")


def _probes(one: Deployed, container: Container) -> Iterator[Violation]:
    for name, probe in container.probes.items():
        where = f"{container.name}: {name}"
        if probe is None:
            yield Violation("probe-missing", one.title, f"{where} is missing")
            continue
        if probe.port is not None and not container.has_port(probe.port):
            yield Violation("probe-port", one.title, f"{where}: no port {probe.port!r} in the container")
        if one.labels.get(COMPONENT) != SERVER:
            continue
        path = probe.http.path if probe.http else ""
        asked = " ".join(probe.command.command) if probe.command else ""
        if name != "livenessProbe" and not (path.startswith("/ready") or "/ready" in asked):
            yield Violation(
                "probe-answers",
                one.title,
                f"{where} asks {path or asked or 'a port'!r}; only the supervisor's /ready asks classifiers",
            )
        if name == "livenessProbe" and path.startswith("/ready"):
            yield Violation("probe-answers", one.title, f"{where} asks {path}; one broken classifier would end the pod")


def _resources(one: Deployed, container: Container) -> Iterator[Violation]:
    wanted = {"limits": container.resources.limits, "requests": container.resources.requests}
    for kind, given in wanted.items():
        if "memory" not in given:
            yield Violation("resources", one.title, f"{container.name}: {kind}.memory is missing")
    if "cpu" not in container.resources.requests:
        yield Violation("resources", one.title, f"{container.name}: requests.cpu is missing")
    gpus = {name: value for name, value in container.resources.limits.items() if name.startswith(GPU)}
    if (gpus and {str(value) for value in gpus.values()} != {"1"}) or len(gpus) > 1:
        yield Violation("one-gpu", one.title, f"{container.name}: {gpus}; a server uses one GPU or one slice")


def _rights(one: Deployed) -> Iterator[Violation]:
    pod = one.pod
    shared = {"hostNetwork": pod.host_network, "hostPID": pod.host_pid, "hostIPC": pod.host_ipc}
    for name in (name for name, given in shared.items() if given):
        yield Violation("host", one.title, f"{name}: the pod sees the machine")
    for volume in pod.volumes:
        if volume.host_path is not None:
            yield Violation("host", one.title, f"volume {volume.name}: hostPath: the pod sees the machine")
    if pod.token is not False:
        yield Violation("token", one.title, "automountServiceAccountToken is not false; nothing here asks Kubernetes")
    for container in pod.all_containers:
        for missing in _missing_rights(pod, container):
            yield Violation("rights", one.title, f"{container.name}: {missing}")


def _missing_rights(pod: Pod, container: Container) -> Iterator[str]:
    own, whole = container.rights, pod.rights
    if not (own.run_as_non_root if own.run_as_non_root is not None else whole.run_as_non_root):
        yield "runAsNonRoot is not true"
    if (own.run_as_user if own.run_as_user is not None else whole.run_as_user) == 0:
        yield "runAsUser is 0, root"
    if own.read_only_root is not True:
        yield "readOnlyRootFilesystem is not true"
    if own.escalation is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.privileged:
        yield "privileged is true"
    if "ALL" not in own.capabilities.drop or own.capabilities.add:
        yield "capabilities are not all dropped"
    if (own.seccomp or whole.seccomp) is None or (own.seccomp or whole.seccomp).type == "Unconfined":  # type: ignore[union-attr]
        yield "seccompProfile is not RuntimeDefault"


def _volumes(one: Deployed) -> Iterator[Violation]:
    there = {volume.name for volume in one.pod.volumes}
    for container in one.pod.all_containers:
        for mount in container.mounts:
            if mount.name not in there:
                yield Violation("volume", one.title, f"{container.name}: the volume {mount.name} is not in the pod")
        if one.labels.get(COMPONENT) == SERVER and container.args[:1] == ("serve",):
            served = container.args[1] if len(container.args) > 1 else ""
            if not any(served == mount.path or served.startswith(f"{mount.path}/") for mount in container.mounts):
                yield Violation(
                    "volume", one.title, f"{container.name}: serves {served!r}, and nothing is mounted there"
                )


def _memory(one: Deployed) -> Iterator[Violation]:
    """Shared memory: there, limited, and within the limit of the container."""
    volumes = {volume.name: volume.empty_dir for volume in one.pod.volumes if volume.empty_dir}
    for container in one.pod.containers:
        paths = {mount.path: volumes.get(mount.name) for mount in container.mounts}
        if one.labels.get(COMPONENT) != SERVER:
            continue
        shm = paths.get("/dev/shm")
        if shm is None or shm.medium != "Memory" or shm.size_limit is None:
            yield Violation(
                "shm", one.title, f"{container.name}: /dev/shm is not an emptyDir of memory with a sizeLimit"
            )
        elif bytes_of(str(shm.size_limit)) >= bytes_of(str(container.resources.limits.get("memory", "1Ei"))):
            yield Violation("shm", one.title, f"{container.name}: /dev/shm of {shm.size_limit} exceeds limits.memory")
