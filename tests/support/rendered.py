"""Deployments that tests render: settings, repositories of many classifiers, and the words of a command line."""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slipway.cli.render import parser
from slipway.repository import assemble
from tests.support.colours import copy_colours
from tests.support.gateways import write_gateway
from tests.support.gpu_lanes import gpu_classifier
from tests.support.scripts import ROOT

EXAMPLE = ROOT / "model_repository/example"
GOLDEN = ROOT / "build/deployments"
"""What is rendered of the example, for everybody to read; this module, run as a program, writes it anew."""
IMAGE, OTHER, SERVER, ENVOY = (
    f"registry.example/{name}@sha256:{digit * 64}"
    for name, digit in (("team/colours", "1"), ("team/colours", "2"), ("slipway-cpu", "3"), ("envoy", "4"))
)
CLUSTER = ("--image", IMAGE, "--server-image", SERVER)
STABLE = (*CLUSTER, "--gateway-image", ENVOY)
BOTH = (*STABLE, "--candidate-image", OTHER, "--weight", "10")


def render(kind: str, *words: object) -> None:
    """`slipway render KIND WORDS`, in this process."""
    arguments: argparse.Namespace = parser().parse_args([kind, *map(str, words)])
    arguments.run(arguments)


def settings(folder: Path, repository: Path | None = EXAMPLE, **changes: Any) -> Path:
    """`gateway.yaml` of this repository, or of none."""
    usual: dict[str, Any] = {"listen": "127.0.0.1:8443", "metrics_port": 8004}
    usual |= {"repository": str(repository)} if repository else {}
    return write_gateway(folder, **usual | changes)


def repository(folder: Path, names: Sequence[str]) -> Path:
    """A repository of the cpu lane with a classifier of each name."""
    classifiers = [copy_colours(folder / name, spec={"name": name}) for name in names]
    assemble(classifiers, folder / "repository")
    return folder / "repository"


def gpu_repository(folder: Path) -> Path:
    assemble([gpu_classifier(folder / "classifier", "9.0")], folder / "repository", lane="gpu")
    return folder / "repository"


def golden(folder: Path) -> dict[str, Path]:
    """Render the example for each place, below `folder`; returns the folder of each kind."""
    file = settings(folder / "settings", listen="0.0.0.0:8443", candidate={"grpc": 8101, "http": 8100, "status": 8103})
    candidate = folder / "candidate"
    if not candidate.exists():
        shutil.copytree(EXAMPLE, candidate)
    there = ("--repositories", "/srv/slipway")
    words: dict[str, tuple[object, ...]] = {
        "kubernetes": (*BOTH, "--pods", "4"),
        "kserve": (*CLUSTER, "--candidate-image", OTHER, "--weight", "10", "--host", "colours.example.com"),
        "compose": ("--gateway-image", ENVOY, "--server-image", SERVER, *there),
        "systemd": ("--candidate-repository", candidate, "--settings-at", "/etc/slipway/gateway.yaml", *there),
    }
    for kind, own in words.items():
        render(kind, file, folder / kind, *own)
    return {kind: folder / kind for kind in words}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for name, made in golden(Path(temporary)).items():
            shutil.rmtree(GOLDEN / name, ignore_errors=True)
            shutil.copytree(made, GOLDEN / name)
