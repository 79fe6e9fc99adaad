"""Gpu lanes of `colours` with stand-in plans, and what is asked of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from slipway.repository import Classifier
from tests.support.colours import configs, copy_colours
from tests.support.plans import UNCHANGED, stand_in_plan

KINDS = {"isolated": ("preprocess", "engine", "post"), "native": ("guard", "decode", "engine", "post")}
"""The steps of a gpu lane, in order, by `serving.gpu.decode`."""


def gpu_classifier(folder: Path, *capabilities: str, plan: Mapping[str, Any] = UNCHANGED, **options: Any) -> Classifier:
    """`colours`, as it is or with its spec changed, with a stand-in plan for each compute capability."""
    bundle = copy_colours(folder / "colours", **options).bundle
    first, *others = (
        stand_in_plan(folder / capability, bundle, capability=capability, plan=plan) for capability in capabilities
    )
    return Classifier(bundle, first, tuple(others))


def with_gpu(**settings: Any) -> dict[str, Any]:
    """Keys of a spec that change `serving.gpu`."""
    return {"serving": {"gpu": settings}}


def steps(repository: Path) -> dict[str, pb.ModelConfig]:
    """The configuration of each step of a repository with one classifier, by kind."""
    ensembles = ("colours", "colours_full")
    found = {name.split("_")[0]: c for name, c in configs(repository).items() if name not in ensembles}
    assert sorted(found) in [sorted(kinds) for kinds in KINDS.values()]
    return found


def version_folder(repository: Path, kind: str) -> Path:
    name: str = steps(repository)[kind].name
    return repository / name / "1"
