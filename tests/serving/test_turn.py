"""A whole turn of a head with real servers and a gateway under load: a class is learnt, tried and promoted."""

import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from slipway.cli import release, up
from slipway.operations.release import readings
from slipway.serving import Ports
from tests.serving.conftest import Launched
from tests.support.gateway_users import Users
from tests.support.gateways import needs_envoy, running_gateway
from tests.support.scripts import run_here, step_here
from tests.support.turns import FLEET, TurnFolder

pytestmark = [needs_envoy, pytest.mark.nightly]
EASY = "{negligible_share: 0.1, slow_share: null, alpha: 0.005, bake_minutes: 0}"
"""A judge that needs few requests."""


@pytest.fixture
def turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TurnFolder, Ports]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(readings, "BLOCK_S", 0.5)
    monkeypatch.setattr(readings, "SLACK_S", 0.1)
    monkeypatch.setattr(release, "POLL_S", 0.5)
    made, ports = TurnFolder.make(tmp_path / "turn"), Ports.free()
    made.write_gateway(stable=ports, candidate=Ports.free())
    fleet = f"{FLEET}release: {{candidate: {{shades: runs/shades}}, weight: 50, judge: {EASY}}}\n"
    (made.folder / "fleet.yaml").write_text(fleet)

    monkeypatch.setattr(up, "step", partial(step_here, cwd=made.folder))
    return made, ports


def test_a_class_that_a_head_did_not_know_is_learnt_and_promoted_without_a_failed_request(
    turn: tuple[TurnFolder, Ports], launch: Callable[..., Launched], tmp_path: Path
) -> None:
    made, ports = turn
    made.add_rows()
    made.add_rows(known=20, foreign=20, labelled=False, seed=9)
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    launch(made.folder / "cpu", ports=ports, environment=environment).wait_for('"event": "ready"')
    with running_gateway(made.folder / "gateway/gateway.yaml") as asked:
        users = Users(asked, model="shades")
        try:
            first = made.done("run", "--approved-by", "A. Lee", "--serve")
            (process,) = re.findall(r"process (\d+), until you end it", first.stdout)
            _, told = promoted(made, first)
        finally:
            users.stop()
            os.kill(int(process), signal.SIGTERM)
            os.waitpid(int(process), 0)
    assert told["record"]["outcome"] == "promoted"
    assert users.failed() == []
    assert users.answers[-1].bundle == made.new_bundle.id
    fleet = (made.folder / "fleet.yaml").read_text()
    assert "heads: {shades: runs/shades-2}  # the active run" in fleet
    assert run_here("assemble", "fleet.yaml", "--out", "cpu", cwd=made.folder).returncode == 0


def promoted(made: TurnFolder, first: Any) -> tuple[int, Any]:
    """Do what the turn asks of people, until it is over."""
    assert first.returncode == 2, first.stdout + first.stderr
    assert "people label what the versions differ in (6 of 26 labels given): slipway labels push" in first.stdout
    assert made.label_asked() == 20, "the images without a label on which the versions differ"
    second = made.done("run")
    assert second.returncode == 2, second.stdout + second.stderr
    assert "a person promotes it: slipway release promote gateway/gateway.yaml --approved-by NAME" in second.stdout
    run_here("release", "promote", "gateway/gateway.yaml", "--approved-by", "A. Lee", cwd=made.folder)
    return made.run()
