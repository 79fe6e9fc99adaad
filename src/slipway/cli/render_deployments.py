"""The sub-commands of `slipway render` that write deployments: kubernetes, kserve, compose, systemd, secrets, check."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.system.arguments import Actions, above_zero, add_action, count, percent
from slipway.system.json_line import add_json, print_json

if TYPE_CHECKING:
    from slipway.operations.rendering.plan import ClusterPlan

DIGEST = "REGISTRY/NAME@sha256:DIGEST"


def kubernetes(arguments: argparse.Namespace) -> None:
    from slipway.operations.rendering.kubernetes import (  # not at the top: --help needs no library
        KIND,
        kubernetes_files,
    )

    _write(arguments, kubernetes_files(_plan(arguments)), kind=KIND)


def kserve(arguments: argparse.Namespace) -> None:
    from slipway.operations.rendering.kserve import KIND, kserve_files

    files = kserve_files(
        _plan(arguments),
        name=arguments.name,
        host=arguments.host,
        gateway=arguments.gateway,
        gateway_pods=arguments.gateway_pods_namespace,
    )
    _write(arguments, files, kind=KIND)


def compose(arguments: argparse.Namespace) -> None:
    from slipway.contract.nvidia_releases import NEWEST
    from slipway.operations.rendering import plan
    from slipway.operations.rendering.compose import KIND, compose_files

    plan.image_reference(arguments.gateway_image, what="--gateway-image")
    if arguments.server_image is not None:
        plan.image_reference(arguments.server_image, what="--server-image")
    settings = plan.tls_settings(arguments.settings)
    repository = plan.repository_of(arguments.settings, settings, given=arguments.repository)
    server = plan.ServerNeeds.of(repository)
    plan.check_models(arguments.settings, settings, server)
    candidate = arguments.candidate_repository
    plan.check_beside(repository, candidate, repositories=arguments.repositories, weight_percent=arguments.weight)
    if candidate is not None:
        plan.check_candidate(server, candidate)
    lane = server.lane
    files = compose_files(
        plan.cluster_settings(arguments.settings, settings, candidate=candidate is not None),
        server,
        image=arguments.server_image or f"slipway-{lane.lane}:{lane.release or NEWEST.name}",
        gateway_image=arguments.gateway_image,
        repositories=plan.absolute_path(
            arguments.repositories or str(repository.resolve().parent), what="--repositories"
        ),
        repository=repository.resolve().name,
        candidate=candidate.resolve().name if candidate is not None else None,
        candidate_server=plan.ServerNeeds.of(candidate) if candidate is not None else None,
        weight_percent=arguments.weight,
        published=settings.host_port[0],
    )
    _write(arguments, files, kind=KIND)


def systemd(arguments: argparse.Namespace) -> None:
    from slipway.cli.render_daily import daily_of
    from slipway.contract import SpecError
    from slipway.operations.gateway.settings import read_settings
    from slipway.operations.rendering import plan
    from slipway.operations.rendering.systemd import KIND, Box, spool_notes, systemd_files, written_folders

    settings = read_settings(arguments.settings)  # one that serves this machine alone needs no certificate
    repository = plan.repository_of(arguments.settings, settings, given=arguments.repository)
    server = plan.ServerNeeds.of(repository)
    plan.check_models(arguments.settings, settings, server)
    candidate = arguments.candidate_repository
    plan.check_beside(repository, candidate, repositories=arguments.repositories)
    if candidate is not None:
        plan.check_candidate(server, candidate)
    repositories = Path(arguments.repositories or repository.resolve().parent)
    at = arguments.settings_at or str(arguments.settings.resolve())
    box = Box(
        program=arguments.program,
        settings=at,
        repository=str(repositories / repository.resolve().name),
        candidate=str(repositories / candidate.resolve().name) if candidate is not None else None,
        user=arguments.user,
        fleet=arguments.fleet_at or (str(arguments.fleet.resolve()) if arguments.fleet is not None else None),
        written=written_folders(settings, source=arguments.settings, at=at),
    )
    if arguments.fleet_at is not None and arguments.fleet is None:
        raise SpecError(f"--fleet-at {arguments.fleet_at} needs --fleet, the same file on this machine")
    daily, notes = daily_of(settings, server.lane, repository, source=arguments.settings, fleet_file=arguments.fleet)
    notes += spool_notes(settings)
    other = plan.ServerNeeds.of(candidate) if candidate is not None else None
    files = systemd_files(settings, server, box, candidate=other, daily=daily, notes=notes)
    _write(arguments, files, kind=KIND, notes=notes)


def secrets(arguments: argparse.Namespace) -> None:
    from slipway.operations.rendering.secret_files import write_secrets

    files = write_secrets(arguments.settings, arguments.out)
    print(f"{arguments.out}: {', '.join(files)}, which only you may read; remove them when they are in the cluster")
    print_json(arguments, {"folder": str(arguments.out), "files": files})


def check(arguments: argparse.Namespace) -> None:
    from slipway.operations.rendering import check as checks

    found = {
        source: checks.check(text, source=source)
        for source, text in checks.texts(arguments.folder, kubectl=arguments.kubectl).items()
    }
    for source, violations in found.items():
        print(f"{source}: {len(violations)} violations")
        for violation in violations:
            print(f"  {violation}")
    listed = [{"source": source, **one._asdict()} for source, violations in found.items() for one in violations]
    print_json(arguments, {"violations": listed})
    if listed:
        raise SystemExit(1)


def _plan(arguments: argparse.Namespace) -> "ClusterPlan":
    from slipway.contract import SpecError
    from slipway.operations.rendering import plan

    images = plan.Images(arguments.image, arguments.server_image, arguments.gateway_image, arguments.candidate_image)
    images.checked()
    settings = plan.tls_settings(arguments.settings)
    repository = plan.repository_of(arguments.settings, settings, given=arguments.repository)
    server = plan.ServerNeeds.of(repository)
    plan.check_models(arguments.settings, settings, server)
    other = arguments.candidate_repository
    if other is not None:
        if images.candidate is None:
            raise SpecError(f"--candidate-repository {other} needs its image; give --candidate-image")
        plan.check_candidate(server, other)
    if arguments.key is not None:
        from slipway.oci.signing import check_public

        check_public(arguments.key)
    gpu = None if arguments.pods is not None else plan.Gpu.of(arguments.mig)
    if arguments.gpus is None and arguments.mig is None and not server.lane.needs_gpu:
        gpu = None
    return plan.ClusterPlan(
        settings=plan.cluster_settings(arguments.settings, settings, candidate=images.candidate is not None),
        server=server,
        images=images,
        namespace=arguments.namespace,
        kubernetes=plan.kubernetes_version(arguments.kubernetes),
        most_pods=arguments.gpus or arguments.pods or 2,
        gpu=gpu,
        candidate_server=plan.ServerNeeds.of(other) if other is not None else None,
        weight_percent=arguments.weight,
        vital=tuple(arguments.vital or ()),
        queue_ms=arguments.queue_ms,
        monitoring=arguments.monitoring_namespace,
        public_key=plan.public_key(arguments.key) if arguments.key is not None else None,
    ).checked()


def _write(arguments: argparse.Namespace, files: Mapping[str, str], *, kind: str, notes: Sequence[str] = ()) -> None:
    from slipway.operations.rendering.files import write_files

    write_files(arguments.out, files, kind=kind, inputs=(arguments.settings,))
    print(f"{arguments.out}: {len(files)} files for {kind}; README.md there says what comes next")
    for note in notes:
        print(f"  {note}")
    print_json(arguments, {"folder": str(arguments.out), "files": sorted(files)})


def add_deployments(kinds: Actions) -> None:
    """Add the sub-commands to those of `slipway render`."""
    command = _command(kinds, "kubernetes", kubernetes, "write a kustomize base and overlays")
    _add_cluster(command)
    command.add_argument("--gateway-image", metavar=DIGEST, required=True, help="Envoy's image, of 1.40 or later")
    command.add_argument("--queue-ms", type=_positive, default=10.0, metavar="MS", help="queue time that adds pods")
    command.add_argument(
        "--monitoring-namespace",
        default="monitoring",
        metavar="NAME",
        help="namespace of Prometheus",
    )
    command.add_argument(
        "--key",
        type=Path,
        metavar="PUBLIC",
        help="public key of the images' signatures; init containers verify them, since no kubelet does",
    )
    command = _command(kinds, "kserve", kserve, "write an InferenceService, its runtime, and a route")
    _add_cluster(command)
    command.add_argument("--name", default="slipway", help="InferenceService's name")
    command.add_argument("--host", required=True, metavar="NAME", help="name of the host that clients ask")
    command.add_argument(
        "--gateway", default="kserve/kserve-ingress-gateway", metavar="NAMESPACE/NAME", help="Gateway of the route"
    )
    command.add_argument(
        "--gateway-pods-namespace",
        metavar="NAME",
        help="namespace of its proxies, such as envoy-gateway-system; default: the Gateway's own",
    )
    command.set_defaults(gateway_image=None, queue_ms=10.0, monitoring_namespace="monitoring", key=None)
    command = _command(kinds, "compose", compose, "write a compose file for one box: gateway, servers, Prometheus")
    _add_box(command)
    command.add_argument("--gateway-image", metavar=DIGEST, required=True, help="Envoy's image, of 1.40 or later")
    command.add_argument("--server-image", metavar=DIGEST, help="default: the image that slipway container build makes")
    command.add_argument("--weight", type=percent, default=0, metavar="N", help="candidate's share in %%")
    command = _command(kinds, "systemd", systemd, "write units for one box: servers, gateway, journal, watch, timers")
    _add_box(command)
    command.add_argument(
        "--program",
        default="/opt/slipway/bin/slipway",
        metavar="FILE",
        help="slipway on that box",
    )
    command.add_argument("--settings-at", metavar="FILE", help="path of FILE on that box; default: its path here")
    command.add_argument(
        "--fleet", type=Path, metavar="FLEET", help="fleet file: a timer looks for reasons for a turn each day"
    )
    command.add_argument("--fleet-at", metavar="PATH", help="path of FLEET on that box; default: its path here")
    command.add_argument("--user", default="slipway", metavar="NAME", help="user of the units")
    _command(kinds, "secrets", secrets, "write the teams' keys and the certificate, as a cluster's Secrets need them")
    checking = add_action(kinds, "check", "find faults in a rendered folder that no schema of Kubernetes finds")
    checking.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder of kubernetes or kserve, or output of kubectl kustomize"
    )
    checking.add_argument("--kubectl", type=Path, metavar="FILE", help="default: kubectl on PATH")
    checking.set_defaults(run=check)
    add_json(checking)


def _command(
    kinds: Actions, name: str, run: Callable[[argparse.Namespace], None], line: str
) -> argparse.ArgumentParser:
    command = add_action(kinds, name, line)
    command.add_argument("settings", type=Path, metavar="FILE", help="the gateway's settings")
    command.add_argument(
        "out", type=Path, metavar="OUT", help="folder to write; it may hold older files of this command"
    )
    command.set_defaults(run=run)
    add_json(command)
    return command


def _add_cluster(command: argparse.ArgumentParser) -> None:
    """The options that Kubernetes and KServe share."""
    command.add_argument("--image", metavar=DIGEST, required=True, help="the repository's image (slipway image)")
    command.add_argument("--server-image", metavar=DIGEST, required=True, help="the lane's image of build/images")
    command.add_argument("--candidate-image", metavar=DIGEST, help="the image of a repository to try")
    command.add_argument(
        "--candidate-repository", type=Path, metavar="FOLDER", help="the candidate's folder, for its sizes and checks"
    )
    command.add_argument("--repository", type=Path, metavar="FOLDER", help="default: repository of FILE")
    command.add_argument("--namespace", default="slipway", metavar="NAME", help="namespace of the objects")
    pods = command.add_mutually_exclusive_group()
    pods.add_argument("--gpus", type=count, metavar="N", help="gpu lane: most GPUs, one for each pod; default: 2")
    pods.add_argument("--pods", type=count, metavar="N", help="cpu lane: most pods; default: 2")
    command.add_argument("--mig", metavar="PROFILE", help="gpu lane: slices of this profile, such as 1g.10gb, as GPUs")
    command.add_argument("--weight", type=percent, default=0, metavar="N", help="candidate's share in %%")
    command.add_argument(
        "--vital",
        action="append",
        metavar="CLASSIFIER",
        help="only these decide whether a pod gets requests; repeatable; default: all",
    )
    command.add_argument("--kubernetes", default="1.35", metavar="VERSION", help="version of the cluster")


def _add_box(command: argparse.ArgumentParser) -> None:
    """The options that compose and systemd share."""
    command.add_argument("--repository", type=Path, metavar="FOLDER", help="default: repository of FILE")
    command.add_argument(
        "--candidate-repository", type=Path, metavar="FOLDER", help="another repository, beside the first, to try"
    )
    command.add_argument(
        "--repositories", metavar="FOLDER", help="their parent folder on that box; default: their parent here"
    )


def _positive(text: str) -> float:
    return above_zero(text, f"invalid time {text!r}; use milliseconds above 0, up to 60000", most=60_000)
