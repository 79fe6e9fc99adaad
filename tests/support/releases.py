"""A fleet with a candidate in a folder: two runs of `colours` with different temperatures, and a gateway's file."""

import json
import shutil
from pathlib import Path
from typing import Any

from slipway.cli import release
from slipway.contract import Bundle, Fleet
from slipway.repository import assemble, open_fleet
from slipway.serving import Ports
from slipway.system.yaml_json import dump_yaml
from tests.support.choices import write_only_choice
from tests.support.colours import Change, copy_colours, reseal
from tests.support.gateways import free_beside, write_gateway

ENGINE = "openvino-fp32"
SERVING = {"layout": "steps", "instances": 1, "preprocess_instances": 1}
JUDGE = {"acceptable_ratio": 2, "negligible_share": 0.1, "slow_share": None, "alpha": 0.05, "bake_minutes": 0}
"""A judge that needs few requests."""


def tempered(temperature: float, *, unknown: float | None = None) -> Change:
    """Another decision: the same labels, other scores, and so another bundle; `unknown` under this score."""
    changes: dict[str, Any] = {"temperature": temperature}
    if unknown is not None:
        changes["unknown"] = {"threshold": unknown}

    def change(part: Path) -> None:
        decision = json.loads((part / "decision.json").read_text())
        (part / "decision.json").write_text(json.dumps(decision | changes))

    return change


def colours_run(run: Path, change: Change) -> Bundle:
    """A run with the bundle and one engine of `colours`, both changed, and the choice of that engine."""
    made = copy_colours(run, spec={"serving": SERVING}, bundle=change, engine=change)
    engine = run / "engines" / ENGINE
    engine.parent.mkdir()
    shutil.move(run / "engine", engine)
    write_only_choice(engine, bundle=made.bundle.id)
    return Bundle.open(run / "bundle")


class ReleaseFolder:
    """`fleet.yaml` whose candidate is `runs/new`, the stable repository of `runs/old`, and `gateway.yaml`."""

    def __init__(
        self,
        folder: Path,
        *,
        new: Change,
        stable: Ports | None = None,
        candidate: Ports | None = None,
        **settings: Any,
    ) -> None:
        """`settings` are further ones of `gateway.yaml`."""
        self.folder, self.stable, self.candidate = folder, folder / "cpu", folder / "cpu-candidate"
        self.old = colours_run(folder / "runs/old", tempered(1.0))
        self.new = colours_run(folder / "runs/new", new)
        self.fleet = folder / "fleet.yaml"
        self.write_fleet()
        fleet = Fleet.read(self.fleet)
        assemble(open_fleet(fleet, root=folder), self.stable)
        stable_ports = stable or Ports.free()
        self.gateway = write_gateway(
            folder / "gateway",
            ports=stable_ports,
            tls=stable is not None,
            candidate=vars(candidate or free_beside(stable_ports)),
            repository=str(self.stable),
            **settings,
        )

    def write_fleet(self, **changes: Any) -> None:
        text = {"candidate": {"colours": "runs/new"}, "weight": 50, "judge": JUDGE} | changes
        self.fleet.write_text(dump_yaml({"classifiers": {"colours": {"active": "runs/old"}}, "release": text}))

    def __call__(self, action: str, *words: str) -> int | None:
        """`slipway release ACTION` at the gateway, in this process; returns its exit code, None for 0."""
        return release.main(release.parser().parse_args([action, str(self.gateway), *words]))

    def open_release(self) -> None:
        self("candidate", str(self.fleet))

    def break_candidate(self, share: float) -> None:
        """Let the candidate's repository fail this share of the requests, but never those of its supervisor."""
        (step,) = self.candidate.glob("preprocess_*")
        model = step / "1/model.py"
        head = "    def _response(self, request: Any, rows: slice) -> Any:\n"
        fault = (
            '        image = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()[0, 0]\n'
            f"        if image != PLACEHOLDER and np.random.random() < {share}:\n"
            '            return pb_utils.InferenceResponse(error=pb_utils.TritonError("injected"))\n'
        )
        source = model.read_text()
        assert head in source
        model.unlink()  # it may be a link to a file of another repository
        model.write_text(source.replace(head, head + fault))
        reseal(self.candidate)
