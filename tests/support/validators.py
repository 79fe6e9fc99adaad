"""What `make validators` installs: strict schemas of Kubernetes, types of KServe and Grafana, kubectl and helm."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.operations.rendering.manifests import LOADER

FOLDER = Path(sys.prefix) / "lib/validators"
NEEDED = "what checks this is not installed (0.25 GB): make validators"
_SCRIPT = Path(__file__).with_name("validators_child.py")
_GRAFANA = Path(__file__).with_name("grafana_child.py")
_BILL = Path(__file__).with_name("sbom_child.py")


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

    Kinds of the operators that `validators_child` lists have no schema, and are not looked at; any other is a fault.
    """
    return _said(_SCRIPT, json.dumps({"objects": list(objects), "versions": list(versions)}))


def grafana_faults(board: str) -> list[str]:
    """What is wrong with a dashboard by the types of Grafana 11.6: keys that they lack, and values of other types."""
    if not (FOLDER / "grafana_foundation_sdk").is_dir():
        pytest.skip(NEEDED)
    return _said(_GRAFANA, board)


def bill_faults(bill: str) -> list[str]:
    """What is wrong with a bill of materials by the strict schema of CycloneDX 1.6."""
    require_validators()
    return _said(_BILL, bill)


def _said(script: Path, asked: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    done = subprocess.run(
        [sys.executable, script], input=asked, capture_output=True, text=True, check=True, env=environment
    )
    found: list[str] = json.loads(done.stdout)
    return found


def accepted(compose: Any) -> None:
    """Raises ValueError if a compose file, read, is not one of the specification."""
    compose_spec = pytest.importorskip("compose_spec")
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", yaml.safe_dump(compose))
    compose_spec.PyCompose.from_yaml(text).validate()


def _analyze(*words: str | Path) -> str:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    done = subprocess.run([analyze, *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def verified(units: Sequence[Path]) -> str:
    """What `systemd-analyze verify` says of units of ours."""
    said = _analyze("verify", "--man=no", *units)
    return "".join(line for line in said.splitlines(keepends=True) if "slipway" in line)


def exposure(unit: Path) -> float:
    """The score of `systemd-analyze security`: 10 for a unit that may do everything."""
    said = _analyze("security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    if found is None:
        pytest.skip(f"this systemd-analyze knows no units that are not installed: {said[:80]}")
    return float(found[1])


class Mounted:
    """The gateway's files of a rendered folder, where Envoy finds them in a container, and the secrets beside them."""

    def __init__(self, rendered: Path, secrets: Path, folder: Path, *, ports: Mapping[int, int]) -> None:
        """`rendered` is of Kubernetes or compose; `ports` are ports of the pods to those of this machine."""
        self.folder = folder
        for file in ("gateway/bootstrap.yaml", "gateway/certificate.yaml", "routes/routes.yaml"):
            name = Path(file).name
            places = (rendered / "components/candidate" / name, rendered / "base" / name, rendered / file)
            text = next(place for place in places if place.is_file()).read_text()
            text = text.replace("/etc/slipway", str(folder))
            for port, own in ports.items():
                text = text.replace(f"port_value: {port}\n", f"port_value: {own}\n")
            for arm in ("stable", "candidate"):
                text = text.replace(f"address: {arm}\n", "address: 127.0.0.1\n")
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        for file in ("keys/keys.yaml", "tls/tls.crt", "tls/tls.key"):
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy(secrets / Path(file).name, folder / file)

    def replace(self, file: str, text: str) -> None:
        """Put a new file in place by a rename, as the kubelet does with what has changed."""
        new = (self.folder / file).with_name(".new")
        new.write_text(text)
        new.replace(self.folder / file)

    @property
    def bootstrap(self) -> Path:
        return self.folder / "gateway/bootstrap.yaml"
