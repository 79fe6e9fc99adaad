"""What `slipway render compose` and `slipway render systemd` write for one box."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.cli import labels, turn
from slipway.cli.render_daily import daily_of
from slipway.contract import Lane, SlipwayError
from slipway.operations.gateway.binary import find_envoy, validate
from slipway.operations.gateway.settings import read_settings
from slipway.operations.rendering.compose import PROMETHEUS_IMAGE, hardened
from slipway.operations.rendering.systemd import Daily
from slipway.system.home import user_folder
from slipway.system.yaml_json import dump_yaml
from tests.support.colours import contents
from tests.support.gateways import needs_envoy
from tests.support.prometheus import PROMTOOL, checked, needs_prometheus
from tests.support.rendered import ENVOY, EXAMPLE, SERVER, gpu_repository, render, repository, settings
from tests.support.scripts import ROOT
from tests.support.validators import Mounted, accepted, exposure, verified

CANDIDATE = {"grpc": 8101, "http": 8100, "status": 8103}
WATCHED = {"observe": {"share": 0.1, "spool": "spool"}, "watch": {}, "labels": {}}
UNITS = (".service", ".target", ".timer")


def beside(folder: Path, names: list[str]) -> tuple[Path, Path]:
    """A repository and a candidate beside it."""
    made = repository(folder, names)
    shutil.copytree(made, folder / "candidate")
    return made, folder / "candidate"


def compose(folder: Path, *words: object, repository_: Path = EXAMPLE) -> Any:
    render("compose", settings(folder, repository_), folder / "out", "--gateway-image", ENVOY, *words)
    return yaml.safe_load((folder / "out/compose.yaml").read_text())


def test_the_compose_specification_accepts_it(tmp_path: Path) -> None:
    made, candidate = beside(tmp_path / "repositories", ["colours"])
    words = ("--candidate-repository", candidate, "--weight", "10", "--server-image", SERVER)
    content = compose(tmp_path, *words, repository_=made)
    accepted(content)
    assert set(content["services"]) == {"stable", "candidate", "gateway", "prometheus"}
    assert content["services"]["candidate"]["command"][1] == "/models/candidate"
    content["services"]["stable"]["cap_dorp"] = ["ALL"]
    with pytest.raises(ValueError, match="cap_dorp"):
        accepted(content)


@needs_envoy
@needs_prometheus
def test_envoy_and_prometheus_accept_their_files_with_a_candidate(tmp_path: Path) -> None:
    made, candidate = beside(tmp_path / "repositories", ["colours"])
    content = compose(tmp_path, "--candidate-repository", candidate, "--weight", "10", repository_=made)
    render("secrets", tmp_path / "gateway.yaml", tmp_path / "secrets")
    mounted = Mounted(tmp_path / "out", tmp_path / "secrets", tmp_path / "etc", ports={})
    validate(find_envoy(), mounted.bootstrap)
    for source, target in ((one["source"], one["target"]) for one in content["services"]["gateway"]["volumes"]):
        assert source == "../secrets" or (tmp_path / "out" / source).is_dir()
        assert (mounted.folder / Path(target).relative_to("/etc/slipway")).is_dir()
    mounted.replace("gateway/bootstrap.yaml", mounted.bootstrap.read_text().replace("port_value", "port_vlaue", 1))
    with pytest.raises(SlipwayError, match="port_vlaue"):
        validate(find_envoy(), mounted.bootstrap)
    assert "SUCCESS" in checked(PROMTOOL, "check", "config", tmp_path / "out/prometheus/prometheus.yml")
    jobs = yaml.safe_load((tmp_path / "out/prometheus/prometheus.yml").read_text())["scrape_configs"]
    hosts = {target.partition(":")[0] for job in jobs for each in job["static_configs"] for target in each["targets"]}
    assert hosts == set(content["services"]) - {"prometheus"}


def test_a_server_has_the_settings_of_the_compose_file_of_the_images(tmp_path: Path) -> None:
    own = compose(tmp_path)["services"]
    ours = yaml.safe_load((ROOT / "build/images/compose.yaml").read_text())["services"]
    for key in (*hardened(), "pull_policy", "ulimits", "user"):
        assert own["stable"][key] == ours["cpu"][key], key
    assert own["stable"]["command"][:4] == ["serve", "/models/example", "--host", "0.0.0.0"]
    assert own["stable"]["image"] == re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", ours["cpu"]["image"])
    assert ours["prometheus"]["image"] == PROMETHEUS_IMAGE


def test_only_the_gateway_is_reached_from_outside_and_servers_reach_nobody(tmp_path: Path) -> None:
    content = compose(tmp_path)
    assert content["networks"]["servers"]["internal"] is True
    for name, service in content["services"].items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert ("ports" in service) == (name in ("gateway", "prometheus"))
        assert name in ("gateway", "prometheus") or service["networks"] == ["servers"]
    assert content["services"]["gateway"]["ports"] == ["127.0.0.1:8443:8443", "127.0.0.1:8004:8004"]


def test_a_gpu_lane_reserves_a_gpu(tmp_path: Path) -> None:
    content = compose(tmp_path, repository_=gpu_repository(tmp_path / "gpu"))
    accepted(content)
    assert content["services"]["stable"]["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 1
    assert "deploy" not in content["services"]["gateway"]


def units(folder: Path, *words: object, **changes: Any) -> dict[str, str]:
    render("systemd", settings(folder, **changes), folder / "out", *words)
    return {path.name: path.read_text() for path in (folder / "out").iterdir() if path.suffix in UNITS}


def write_fleet(folder: Path, lane: str = "cpu", **active: Any) -> Path:
    """A fleet file with these active versions; their runs are elsewhere."""
    path = folder / "fleet.yaml"
    versions = {name: {"active": version} for name, version in active.items()}
    path.write_text(dump_yaml({"lane": lane, "classifiers": versions}))
    return path


@pytest.mark.parametrize("lane", ["cpu", "gpu"])
def test_systemd_accepts_every_unit(lane: str, tmp_path: Path) -> None:
    made = gpu_repository(tmp_path / "gpu") if lane == "gpu" else repository(tmp_path / "cpu", ["colours"])
    shutil.copytree(made, made.parent / "candidate")
    fleet = write_fleet(tmp_path, lane, colours="runs/colours")
    words = ("--program", sys.executable, "--candidate-repository", made.parent / "candidate", "--fleet", fleet)
    names = units(tmp_path, *words, repository=str(made), candidate=CANDIDATE, **WATCHED)
    daily = ("labels", "turn") if lane == "cpu" else ("labels",)
    assert set(names) == {
        "slipway.target",
        *(f"slipway-{name}.service" for name in ("server", "candidate", "gateway", "journal", "watch")),
        *(f"slipway-{name}@.{kind}" for name in daily for kind in ("service", "timer")),
    }
    files = [tmp_path / "out" / name for name in names]
    assert verified(files) == ""
    for name, right, wrong in (
        ("slipway-server.service", "ProtectSystem=", "ProtectSytem="),
        ("slipway-labels@.service", "Nice=", "Nicer="),
        ("slipway-labels@.timer", "UTC", "UCT+1"),
    ):
        broken = tmp_path / name
        broken.write_text(names[name].replace(right, wrong))
        assert wrong.strip("=") in verified([broken]), name


def test_units_have_few_rights_and_servers_this_machine_alone(tmp_path: Path) -> None:
    for name, text in units(tmp_path, **WATCHED).items():
        if not name.endswith(".service"):
            continue
        for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=\n", "User=slipway"):
            assert line in text, name
        assert ("IPAddressDeny=any" in text) == ("gateway" not in name)
    assert not (tmp_path / "out/slipway-candidate.service").exists()
    low = units(tmp_path / "low", listen="0.0.0.0:443")["slipway-gateway.service"]
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in low


def test_verbs_of_the_user_and_services_look_in_the_same_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    by_hand = user_folder("XDG_STATE_HOME", ".local/state")
    for name, text in units(tmp_path, **WATCHED).items():
        if name.endswith(".service"):
            (given,) = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
            variables = dict(word.split("=") for word in given.split())
            assert variables.pop("HOME") == "/var/lib/slipway"
            for variable, value in variables.items():
                monkeypatch.setenv(variable, value)
            assert user_folder("XDG_STATE_HOME", ".local/state") == by_hand, name


def test_what_the_settings_name_can_be_written_where_they_are(tmp_path: Path) -> None:
    words = ("--settings-at", "/etc/slipway/gateway.yaml", "--repositories", "/srv/slipway")
    found = units(tmp_path, *words, **WATCHED, access_log="log/gateway.jsonl")
    assert "ReadWritePaths=/etc/slipway/log /etc/slipway/spool" in found["slipway-gateway.service"]
    assert "ReadWritePaths" not in found["slipway-server.service"]
    assert "serve /srv/slipway/example " in found["slipway-server.service"]
    for text in contents(tmp_path / "out").values():
        assert str(tmp_path).encode() not in text


def test_timers_run_the_verbs_of_each_classifier(tmp_path: Path) -> None:
    found = units(tmp_path, "--fleet", write_fleet(tmp_path, colours="runs/colours"), **WATCHED)
    assert " slipway-labels@colours.timer slipway-turn@colours.timer\n" in found["slipway.target"]
    gateway, file = tmp_path / "gateway.yaml", tmp_path / "fleet.yaml"
    parsers = {"labels": labels.parser(), "turn": turn.parser()}
    for name, words, at in (
        ("labels", f"labels select {gateway} --classifier %i", "00:15:00"),
        ("turn", f"turn propose {gateway} {file} %i", "01:15:00"),
    ):
        service, timer = (found[f"slipway-{name}@.{kind}"] for kind in ("service", "timer"))
        assert f"slipway {words}\n" in service
        verb, *given = words.split()
        assert parsers[verb].parse_args(given).classifier == "%i"
        assert "Type=oneshot\n" in service
        assert "Restart=" not in service
        assert f"OnCalendar=*-*-* {at} UTC\n" in timer
    assert "SuccessExitStatus=2\n" in found["slipway-turn@.service"], "a day without a reason is not a fault"
    elsewhere = ("--fleet", file, "--fleet-at", "/srv/slipway/fleet.yaml")
    assert (
        " /srv/slipway/fleet.yaml %i\n" in units(tmp_path / "elsewhere", *elsewhere, **WATCHED)["slipway-turn@.service"]
    )


def test_each_classifier_has_timers_or_a_reason_why_not(tmp_path: Path) -> None:
    lane = Lane(lane="cpu", classifiers={"cats": "a", "dogs": "b", "owls": "c"}, shm_default_bytes=2**20)
    step = tmp_path / "repository/post_1/1"
    step.mkdir(parents=True)
    (step / "decision.json").write_text('{"task": "multilabel", "thresholds": [0.5, 0.5], "top_k": 2}')
    (step / "bundle.txt").write_text("c\n")
    runs = {"cats": "runs/cats", "dogs": {"bundle": "bundles/dogs", "engines": "engines/dogs"}, "owls": "runs/owls"}

    def daily(fleet_file: Path | None, **changes: Any) -> tuple[Daily, str]:
        source = settings(tmp_path, tls=False, **changes)
        found, notes = daily_of(
            read_settings(source), lane, tmp_path / "repository", source=source, fleet_file=fleet_file
        )
        return found, "\n".join(notes)

    found, said = daily(write_fleet(tmp_path, **runs), observe={}, labels={})
    assert found == Daily(("cats", "dogs"), ("cats",))
    assert said.startswith("No timer is for owls: ")
    assert "classifiers.dogs.active: give the folder of a run" in said
    found, said = daily(None, observe={})
    assert found == Daily()
    assert "chooses rows for labels: the settings have no labels:" in said
    assert "for a turn: give --fleet" in said
    assert daily(None) == (Daily(), "")


def test_the_spool_may_be_in_the_memory_that_gateway_and_journal_share(tmp_path: Path) -> None:
    here = {"observe": {"spool": "/run/slipway/spool"}}
    for name, text in units(tmp_path, **here).items():
        shares = name in ("slipway-gateway.service", "slipway-journal.service")
        assert ("RuntimeDirectory=slipway\n" in text) == shares, name
        assert "RuntimeDirectoryPreserve=yes" in text or "RuntimeDirectory" not in text, "the other one may run"
        assert "ReadWritePaths" not in text, "a folder that nobody has made yet would end the unit"
    assert "The spool is not below" not in (tmp_path / "out/README.md").read_text()
    units(tmp_path / "disk", **WATCHED)
    assert "The spool is not below /run/slipway" in (tmp_path / "disk/out/README.md").read_text()


def test_systemd_finds_little_that_a_unit_may_do(tmp_path: Path) -> None:
    """By its own score, from 0 to 10; 1.8 when this was written, and 8.6 without the lines about rights."""
    for name in units(tmp_path, **WATCHED):
        if name.endswith(".service"):
            assert exposure(tmp_path / "out" / name) < 2.5, name


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("compose", ("--gateway-image", "envoyproxy/envoy:v1.40"), "by its digest"),
        ("compose", ("--gateway-image", ENVOY, "--server-image", "slipway:1"), "by its digest"),
        ("compose", ("--gateway-image", ENVOY, "--weight", "5"), "needs a candidate"),
        ("compose", ("--gateway-image", ENVOY, "--candidate-repository", "elsewhere"), "not beside"),
        ("compose", ("--gateway-image", ENVOY, "--candidate-repository", EXAMPLE), "has the name of the stable"),
        ("systemd", ("--candidate-repository", "elsewhere"), "not beside"),
        (
            "systemd",
            ("--candidate-repository", "elsewhere/example", "--repositories", "/srv"),
            "has the name of the stable",
        ),
        ("systemd", ("--program", "slipway"), "absolute path"),
        ("compose", ("--gateway-image", ENVOY, "--repositories", "a/b"), "absolute path"),
        ("systemd", ("--user", "a b"), "no spaces"),
        ("systemd", ("--fleet", "fleet.yaml"), "keeps none; add observe: {}"),
        ("systemd", ("--fleet-at", "/srv/fleet.yaml"), "needs --fleet"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(kind: str, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=said):
        render(kind, settings(tmp_path), tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_a_candidate_needs_a_folder_without_spaces_and_ports(tmp_path: Path) -> None:
    for name in ("stable", "the candidate", "candidate"):
        shutil.copytree(EXAMPLE, tmp_path / name)
    file = settings(tmp_path, tmp_path / "stable", candidate=CANDIDATE)
    with pytest.raises(SlipwayError, match=r"the candidate: .*no spaces"):
        render("systemd", file, tmp_path / "out", "--candidate-repository", tmp_path / "the candidate")
    file = settings(tmp_path / "without", tmp_path / "stable")
    with pytest.raises(SlipwayError, match="give both, or neither"):
        render("systemd", file, tmp_path / "out", "--candidate-repository", tmp_path / "candidate")


def test_a_folder_is_not_taken_for_a_variable_of_compose(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "a$HOME" / "b$c")
    render("compose", settings(tmp_path, tmp_path / "a$HOME/b$c"), tmp_path / "out", "--gateway-image", ENVOY)
    service = yaml.safe_load((tmp_path / "out/compose.yaml").read_text())["services"]["stable"]
    assert service["volumes"][0]["source"] == f"{tmp_path}/a$$HOME"
    assert service["command"][1].endswith("/b$$c")


def test_a_folder_of_another_kind_stays(tmp_path: Path) -> None:
    compose(tmp_path)
    before = contents(tmp_path / "out")
    with pytest.raises(SlipwayError, match="rendered for compose"):
        render("systemd", tmp_path / "gateway.yaml", tmp_path / "out")
    assert contents(tmp_path / "out") == before
