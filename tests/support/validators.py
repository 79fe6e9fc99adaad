"""What `make validators` installs: strict schemas of Kubernetes, KServe's types, kubectl and helm."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.operations.rendering.manifests import LOADER

FOLDER = Path(sys.prefix) / "lib/validators"
NEEDED = "make validators installs what checks this (0.25 GB)"
_SCRIPT = Path(__file__).with_name("validators_child.py")


def require_validators() -> None:
    if not (FOLDER / ".installed").is_file():
        pytest.skip(NEEDED)


@cache
def kustomized(overlay: Path) -> str:
    """What `kubectl kustomize` makes of a folder.

    Raises:
        AssertionError: kubectl refuses it.
    """
    kubectl = FOLDER / "bin/kubectl"
    done = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> list[Any]:
    return [document for document in yaml.load_all(text, Loader=LOADER) if document]


def faults(objects: Sequence[Any], versions: Sequence[str]) -> list[str]:
    """What is wrong with objects, by the strict schemas of these versions of Kubernetes, and KServe's types.

    Kinds without a schema, those of operators, are not looked at.
    """
    asked = json.dumps({"objects": list(objects), "versions": list(versions)})
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    done = subprocess.run(
        [sys.executable, _SCRIPT], input=asked, capture_output=True, text=True, check=True, env=environment
    )
    found: list[str] = json.loads(done.stdout)
    return found
