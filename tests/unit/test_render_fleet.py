"""A fleet of fifty classifiers, rendered for each place, passes every validator."""

import sys
from pathlib import Path

import pytest
import yaml

from slipway.operations.gateway.binary import find_envoy, validate
from slipway.operations.rendering.check import check, texts
from tests.support.gateways import needs_envoy
from tests.support.prometheus import PROMTOOL, checked, needs_prometheus
from tests.support.rendered import BOTH, CLUSTER, ENVOY, OTHER, STABLE, render, repository, settings
from tests.support.validators import Mounted, accepted, documents, faults, kustomized, require_validators, verified

NAMES = [f"classifier_{number:02}" for number in range(50)]
"""No DNS labels: a classifier's name is a path in a cluster, and the name of nothing."""

COMPOSE = ("compose", "--gateway-image", ENVOY)
GATEWAYS = {"stable": ("kubernetes", *STABLE), "candidate": ("kubernetes", *BOTH), "compose": COMPOSE}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of a gateway in front of it."""
    folder = tmp_path_factory.mktemp("fleet")
    budgets = {name: 10.0 + number for number, name in enumerate(NAMES)}
    return settings(folder, repository(folder / "repositories", NAMES), budgets_ms=budgets)


@pytest.mark.parametrize("overlay", ["stable", "candidate"])
def test_kubernetes(fleet: Path, overlay: str, tmp_path: Path) -> None:
    require_validators()
    render("kubernetes", fleet, tmp_path / "out", *BOTH, "--vital", NAMES[7], "--vital", NAMES[8])
    text = kustomized(tmp_path / "out/overlays" / overlay)
    assert faults(documents(text), ["1.35", "1.37"]) == []
    assert check(text, source="fleet") == []


@needs_envoy
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_envoy(fleet: Path, gateway: str, tmp_path: Path) -> None:
    kind, *options = GATEWAYS[gateway]
    render(kind, fleet, tmp_path / "out", *options)
    render("secrets", fleet, tmp_path / "secrets")
    validate(find_envoy(), Mounted(tmp_path / "out", tmp_path / "secrets", tmp_path / "etc", ports={}).bootstrap)


@needs_prometheus
def test_prometheus(fleet: Path, tmp_path: Path) -> None:
    render("kubernetes", fleet, tmp_path / "out", *BOTH)
    for folder in ("base", "components/candidate"):
        rules = yaml.safe_load((tmp_path / "out" / folder / "rules.yaml").read_text())["spec"]
        (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
        assert "SUCCESS" in checked(PROMTOOL, "check", "rules", tmp_path / "rules.yml")
    kind, *options = COMPOSE
    render(kind, fleet, tmp_path / "box", *options)
    assert "SUCCESS" in checked(PROMTOOL, "check", "config", tmp_path / "box/prometheus/prometheus.yml")


def test_kserve(fleet: Path, tmp_path: Path) -> None:
    require_validators()
    words = ("--candidate-image", OTHER, "--weight", "10", "--host", "fleet.example")
    render("kserve", fleet, tmp_path / "out", *CLUSTER, *words)
    (text,) = texts(tmp_path / "out").values()
    assert faults(documents(text), ["1.35"]) == []
    assert check(text, source="fleet") == []


def test_compose(fleet: Path, tmp_path: Path) -> None:
    kind, *options = COMPOSE
    render(kind, fleet, tmp_path / "out", *options)
    accepted(yaml.safe_load((tmp_path / "out/compose.yaml").read_text()))


def test_systemd(fleet: Path, tmp_path: Path) -> None:
    render("systemd", fleet, tmp_path / "out", "--program", sys.executable)
    assert verified(sorted((tmp_path / "out").glob("*.service"))) == ""
