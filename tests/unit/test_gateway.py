"""What a gateway's settings may say, and the configuration that Envoy gets for them."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.contract import Lane, SpecError, StorageError
from slipway.operations.gateway.binary import find_envoy, reason, validate
from slipway.operations.gateway.configuration import bootstrap, clusters, static_bootstrap, write_configuration
from slipway.operations.gateway.listener import guard, listener, public_models
from slipway.operations.gateway.new_secrets import new_key, self_signed
from slipway.operations.gateway.plan import GatewayPlan, ServedRepository
from slipway.operations.gateway.routes import Traffic, read_traffic, replace, route_configuration, write_routes
from slipway.operations.gateway.settings import GatewaySettings, read_keys, read_settings
from slipway.serving import Ports
from slipway.system.text import command
from slipway.system.yaml_json import dump_yaml
from tests.support.gateways import KEYS, needs_envoy, write_gateway, write_key
from tests.support.scripts import run_here, run_study

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "model_repository/example"
TEAMS = {key: team for team, key in KEYS.items()}
TWO = {"candidate": {"grpc": 8101, "http": 8100, "status": 8103}}


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def settings(folder: Path, **changes: Any) -> GatewaySettings:
    return read_settings(write_gateway(folder, tls=False, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"listen": "0.0.0.0:8443"}, "keys would travel in plain text; give tls"),
        ({"listen": "localhost:8443"}, "write an IPv4 address and a port, such as 0.0.0.0:8443"),
        ({"listen": "127.0.0.1"}, "write an IPv4 address and a port"),
        ({"listen": "127.0.0.1:99999"}, "write an IPv4 address and a port"),
        ({"teams": {}}, "teams: .*at least 1"),
        ({"teams": {"../x": {"key_file": "a"}}}, "use 1 to 63 characters of a-z, 0-9, _ and -"),
        ({"teams": {"a\nb": {"key_file": "a"}}}, "use 1 to 63 characters"),
        (
            {"teams": {"pets": {"key": "secret"}}},
            "unknown key; the valid keys here are burst, former_key_file, key_file",
        ),
        ({"teams": {"pets": {"key_file": "pets.key", "per_second": 0}}}, "greater than or equal to 1"),
        ({"metrics_port": 8001}, "metrics_port|stable.grpc: port 8001"),
        ({"candidate": {"grpc": 8001}}, "candidate.grpc: port 8001 is that of stable.grpc too"),
        ({"budgets_ms": {"colours": 0}}, "colours: 0; give above 0 and at most 60000 ms"),
        ({"min_deadline_s": 0.001}, "greater than or equal to 0.005"),
        ({"max_request_bytes": "1 GB"}, "write a number"),
        ({"lisen": "127.0.0.1:1"}, "lisen: unknown key; the valid keys here are access_log, budgets_ms"),
    ],
)
def test_wrong_settings_are_named_with_what_is_allowed(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        settings(tmp_path, **changes)


def no_key(folder: Path) -> str:
    (folder / "cars.key").unlink()
    return r"teams\.cars\.key_file: .*cars\.key cannot be read: No such file"


def readable_by_others(folder: Path) -> str:
    (folder / "cars.key").chmod(0o640)
    return r"others than its owner may use .*cars\.key \(mode 0640\): chmod 600"


def the_same_key(folder: Path) -> str:
    write_key(folder / "cars.key", KEYS["pets"])
    return r"teams\.cars\.key_file: its key is that of pets too; give each team its own"


def a_short_key(folder: Path) -> str:
    write_key(folder / "cars.key", "short")
    return "must hold one line of 16 to 256"


def two_lines(folder: Path) -> str:
    write_key(folder / "cars.key", "0123456789abcdef\n0123456789abcdef")
    return "must hold one line of 16 to 256"


def not_text(folder: Path) -> str:
    (folder / "cars.key").write_bytes(b"\xff" * 40)
    return "cannot be read: not UTF-8 text"


@pytest.mark.parametrize("fault", [no_key, readable_by_others, the_same_key, a_short_key, two_lines, not_text])
def test_a_wrong_key_is_an_error_that_does_not_show_it(tmp_path: Path, fault: Callable[[Path], str]) -> None:
    read = settings(tmp_path)
    message = fault(tmp_path)
    with pytest.raises(SpecError, match=message) as raised:
        read_keys(read, source=tmp_path / "gateway.yaml")
    assert not re.search("0123456789|short", str(raised.value))


def test_a_team_has_two_keys_while_it_changes_them(tmp_path: Path) -> None:
    teams = {"pets": {"key_file": "pets.key", "former_key_file": "cars.key"}}
    read, source = settings(tmp_path, teams=teams), tmp_path / "gateway.yaml"
    assert read_keys(read, source=source) == {KEYS["pets"]: "pets", KEYS["cars"]: "pets"}
    write_key(tmp_path / "cars.key", KEYS["pets"])
    with pytest.raises(SpecError, match=r"pets\.former_key_file: its key is that of key_file; give the key before"):
        read_keys(read, source=source)
    (tmp_path / "cars.key").chmod(0o640)
    with pytest.raises(SpecError, match=r"teams\.pets\.former_key_file: others than its owner"):
        read_keys(read, source=source)


def test_files_of_tls_are_checked_at_once(tmp_path: Path) -> None:
    path = write_gateway(tmp_path, listen="0.0.0.0:8443")
    assert read_settings(path).host_port == ("0.0.0.0", 8443)
    (tmp_path / "tls/private-key.pem").chmod(0o644)
    with pytest.raises(SpecError, match=r"tls\.key: others than its owner"):
        read_settings(path)
    (tmp_path / "tls/certificate.pem").write_text("no PEM")
    with pytest.raises(SpecError, match="has no certificate in PEM; name a file with"):
        read_settings(path)
    (tmp_path / "tls/certificate.pem").unlink()
    with pytest.raises(SpecError, match=r"tls\.certificate: .* cannot be read: No such file"):
        read_settings(path)


def test_a_gateway_needs_a_repository_and_budgets_of_its_classifiers(tmp_path: Path) -> None:
    def opened(**changes: Any) -> GatewayPlan:
        return GatewayPlan.open(write_gateway(tmp_path, tls=False, **changes))

    with pytest.raises(SpecError, match="repository: give the folder that the server serves"):
        opened()
    with pytest.raises(SpecError, match=r"is not a repository: it has no lane\.json"):
        opened(repository=str(tmp_path))
    with pytest.raises(SpecError, match="cats: the repository has no such classifier; it has colours, colours_full"):
        opened(repository=str(EXAMPLE), budgets_ms={"cats": 20})
    assert opened(repository=os.path.relpath(EXAMPLE, tmp_path)).models == ("colours", "colours_full")


def test_with_a_server_of_its_own_the_file_may_not_name_another(tmp_path: Path) -> None:
    ports = Ports()

    def opened(served: Ports = ports, **changes: Any) -> GatewayPlan:
        return GatewayPlan.open(write_gateway(tmp_path, tls=False, **changes), served=ServedRepository(EXAMPLE, served))

    stable = {"grpc": ports.grpc, "http": ports.http, "status": ports.status}
    assert vars(opened().settings.stable) == {**stable, "metrics": None}
    assert opened().settings.file == opened().source
    assert opened(stable={**stable, "metrics": ports.metrics}).settings.stable.metrics_port == ports.metrics
    with pytest.raises(SpecError, match=r"is not the server of slipway serve.*leave stable out"):
        opened(stable={"grpc": 1})
    with pytest.raises(SpecError, match="is not the server of slipway serve"):
        opened(stable={**stable, "metrics": 9002})
    with pytest.raises(SpecError, match="which slipway serve serves; leave it out"):
        opened(repository=str(tmp_path))
    with pytest.raises(SpecError, match="port 8002 is tritonserver's metrics port; choose another"):
        opened(metrics_port=ports.metrics)
    with pytest.raises(SpecError, match=r"stable\.grpc: port 9000 is that of listen too"):
        opened(Ports(grpc=9000), listen="127.0.0.1:9000")


@needs_envoy
def test_what_a_running_envoy_does_not_take_up_is_refused_at_a_reload(tmp_path: Path) -> None:
    plan = GatewayPlan.open(write_gateway(tmp_path, repository=str(EXAMPLE)))
    text = plan.source.read_text()
    plan.source.write_text(text + "workers: 2\nbudgets_ms: {colours: 20}\n")
    with pytest.raises(SpecError, match="workers, budgets_ms: changed; start the gateway again for that"):
        plan.again()
    plan.source.write_text(text + "max_request_bytes: 100000\n")
    assert plan.again().settings.max_request_bytes == 100_000
    (tmp_path / "cars.key").unlink()
    with pytest.raises(SpecError, match=r"cars\.key cannot be read"):
        plan.again()


@pytest.mark.parametrize("name", ['x"); os.execute("id")', "a b", "a\nb", "../x", "Ä", ""])
def test_a_name_that_could_be_lua_does_not_reach_the_guard(name: str) -> None:
    lane = Lane.read(EXAMPLE / "lane.json").model_copy(update={"classifiers": {name: "0" * 64}})
    with pytest.raises(SpecError, match="is not the name of a classifier; assemble the repository again"):
        public_models(lane)


def test_the_guard_has_the_names_and_the_limits(tmp_path: Path) -> None:
    text = guard(settings(tmp_path, min_deadline_s=0.02), ["colours", "colours_full"])
    assert 'for name in ("colours colours_full"):gmatch' in text
    assert "deadline_s = 0.02" in text
    assert text.index("PUBLIC = {}") < text.index("function envoy_on_request")


def test_every_budget_is_an_edge_and_the_default_too(tmp_path: Path) -> None:
    made: Any = bootstrap(settings(tmp_path, budgets_ms={"colours": 35, "cats": 12.5}))
    (histogram,) = made["stats_config"]["histogram_bucket_settings"]
    assert {12_500, 35_000, 50_000} <= set(histogram["buckets"])
    assert histogram["buckets"] == sorted(set(histogram["buckets"]))
    assert made["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    "key", ["0x0123456789abcdef", "1234567890123456", "================", "true~~~~~~~~~~~~", "1e1111111111111111"]
)
def test_a_key_that_yaml_could_take_for_another_type_stays_text(tmp_path: Path, key: str) -> None:
    text = dump_yaml(listener(settings(tmp_path), {key: "pets"}, ["colours"]))
    filters = yaml.safe_load(text)["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert filters[0]["typed_config"]["credentials"] == [{"client": "pets", "key": key}]


def test_the_guard_comes_before_the_router_and_something_checks_that_it_ran(tmp_path: Path) -> None:
    made: Any = listener(settings(tmp_path), TEAMS, ["colours"])
    names = [
        one["name"].rpartition(".")[2] for one in made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    ]
    assert names == ["api_key_auth", "buffer", "local_ratelimit", "lua", "rbac", "router"]


@pytest.mark.parametrize(
    ("traffic", "message"),
    [
        ({"weight_percent": 101}, "less than or equal to 100"),
        ({"weight_percent": -1}, "greater than or equal to 0"),
        ({"mirror_percent": 0.5}, "integer"),
        ({"weight_percent": "10"}, "write a number"),
        ({"sticky_header": "User Id"}, "write the name of a header"),
        ({"weight": 10}, "valid keys here are mirror_percent, sticky_header, weight_percent"),
    ],
)
def test_traffic_that_is_not_allowed_is_refused(traffic: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Traffic.parse(traffic, source="test")


def test_without_a_candidate_nothing_can_be_given_to_it(tmp_path: Path) -> None:
    read = settings(tmp_path)
    for traffic in (Traffic(weight_percent=1), Traffic(mirror_percent=1)):
        with pytest.raises(SpecError, match="need a second server; give candidate"):
            write_routes(read, traffic)
    write_routes(read, Traffic())


@needs_envoy
@pytest.mark.parametrize("traffic", [Traffic(weight_percent=10), Traffic(mirror_percent=10)])
def test_a_candidate_that_has_requests_cannot_be_removed(tmp_path: Path, traffic: Traffic) -> None:
    path = write_gateway(tmp_path, tls=False, repository=str(EXAMPLE), **TWO)
    plan = GatewayPlan.open(path)
    plan.write()
    write_routes(plan.settings, traffic)
    before = {file: file.read_bytes() for file in plan.settings.folder.rglob("*.yaml")}
    without = yaml.safe_load(path.read_text())
    del without["candidate"]
    path.write_text(dump_yaml(without))
    for refused in (plan.again, GatewayPlan.open(path).check, GatewayPlan.open(path).write):
        with pytest.raises(
            SpecError, match=rf"need a second server; .*{re.escape(command('slipway release rollback', path))}"
        ):
            refused()
    assert {file: file.read_bytes() for file in plan.settings.folder.rglob("*.yaml")} == before
    write_routes(plan.settings, Traffic())
    plan.again().write()


def test_shares_are_on_the_disk_before_they_replace_the_former_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a power loss leaves neither an empty file nor a weight that was taken away."""
    read, synced = settings(tmp_path, **TWO), list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    write_routes(read, Traffic(weight_percent=10))
    assert synced == [(read.folder / "traffic.json").stat().st_ino, read.folder.stat().st_ino]


def test_shares_that_cannot_be_written_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    read = settings(tmp_path)
    (read.folder / "traffic.json").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"traffic\.json: .*give another path"):
        write_routes(read, Traffic())


def test_routes_carry_the_shares_and_stay_over_restarts(tmp_path: Path) -> None:
    read = settings(tmp_path, **TWO)
    traffic = Traffic(weight_percent=10, mirror_percent=5, sticky_header="user")
    write_routes(read, traffic)
    assert read_traffic(read) == traffic
    made: Any = route_configuration(read, traffic)
    grpc = made["virtual_hosts"][0]["routes"][0]["route"]
    shares = [(one["name"], one["weight"]) for one in grpc["weighted_clusters"]["clusters"]]
    assert shares == [("candidate_or_stable_grpc", 10), ("stable_grpc", 90)]
    assert grpc["hash_policy"] == [{"header": {"header_name": "user"}}]
    write_configuration(read, keys=TEAMS, models=["colours"])
    written = yaml.safe_load((read.folder / "routes/routes.yaml").read_text())["resources"]
    assert written[0]["virtual_hosts"] == made["virtual_hosts"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in [read.folder, *read.folder.rglob("*")])


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    replace(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        replace(tmp_path / "a", "new \udc80")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_the_candidate_is_asked_for_its_health(tmp_path: Path) -> None:
    made: Any = clusters(settings(tmp_path, **TWO))
    checked = {one["name"]: one["health_checks"] for one in made if "health_checks" in one}
    assert set(checked) == {"candidate_grpc", "candidate_http"}
    assert [one["http_health_check"]["path"] for (one,) in checked.values()] == ["/ready", "/ready"]


@needs_envoy
@pytest.mark.parametrize("changes", [{}, TWO], ids=["one server", "two servers"])
def test_envoy_accepts_what_is_made(tmp_path: Path, changes: dict[str, Any]) -> None:
    read = read_settings(write_gateway(tmp_path, access_log="access.jsonl", **changes))
    if changes:
        write_routes(read, Traffic(weight_percent=10, mirror_percent=5, sticky_header="user"))
    path = tmp_path / "bootstrap.yaml"
    made: Any = static_bootstrap(read, keys=TEAMS, models=[f"head_{i}" for i in range(2000)])
    path.write_text(dump_yaml(made))
    validate(find_envoy(), path)
    made["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["codec"] = 1
    path.write_text(dump_yaml(made))
    with pytest.raises(Exception, match=r"Envoy refuses the configuration: .*codec") as raised:
        validate(find_envoy(), path)
    assert not any(key in str(raised.value) for key in KEYS.values())


def test_the_reason_in_a_log_is_its_last_error() -> None:
    log = (
        "[2026-01-01 00:00:00.000][1][info][main] [a.cc:1] fine\n[2026][1][critical][main] [b.cc:2] no  port\nexiting\n"
    )
    assert reason(log) == "no port"
    assert reason("") == "it says nothing"


def test_a_new_key_is_its_owners_and_replaces_none(tmp_path: Path) -> None:
    new_key(tmp_path / "a.key")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert len((tmp_path / "a.key").read_text().strip()) == 43
    with pytest.raises(SpecError, match="exists, and somebody may use its key"):
        new_key(tmp_path / "a.key")


@pytest.mark.parametrize("host", ["a b", "x,DNS:evil", "/CN=x", "", "-a"])
def test_a_certificate_is_for_hosts_alone(tmp_path: Path, host: str) -> None:
    with pytest.raises(SpecError, match="is neither the name of a host nor an IP address"):
        self_signed(tmp_path / "tls", hosts=[host])
    assert not (tmp_path / "tls").exists()


def test_an_openssl_that_fails_leaves_no_file_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tmp_path / "bin" / "openssl"
    failing.parent.mkdir()
    failing.write_text("#!/bin/sh\necho no entropy >&2\nexit 1\n")
    failing.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{failing.parent}:{os.environ['PATH']}")
        with pytest.raises(SpecError, match="openssl could not make a certificate: no entropy"):
            self_signed(tmp_path / "tls", hosts=["localhost"])
    assert list((tmp_path / "tls").iterdir()) == []
    self_signed(tmp_path / "tls", hosts=["localhost"])


@needs_envoy
def test_the_verb_makes_what_is_missing_and_checks_a_file(tmp_path: Path) -> None:
    run_here("gateway", "--new-key", "pets.key", cwd=tmp_path)
    run_here("gateway", "--self-signed", "tls", "--host", "example.org", cwd=tmp_path)
    settings = {
        "tls": {"certificate": "tls/certificate.pem", "key": "tls/private-key.pem"},
        "teams": {"pets": {"key_file": "pets.key"}},
        "repository": str(EXAMPLE),
    }
    (tmp_path / "gateway.yaml").write_text(dump_yaml(settings))
    done = run_here("gateway", "--check", "gateway.yaml", "--json", cwd=tmp_path)
    said, certificate, result = done.stdout.splitlines()
    assert "gateway.yaml: tls.certificate: a certificate for example.org until " in certificate
    assert "127.0.0.1:8443 with TLS, 2 models of one server, teams pets (100/s); Envoy accepts" in said
    assert json.loads(result)["teams"] == {"pets": 100}
    (tmp_path / "tls/certificate.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    done = run_here("gateway", "--check", "gateway.yaml", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "tls/certificate.pem is damaged or cut" in done.stderr
    assert "PRIVATE KEY" not in done.stderr
    done = run_here("gateway", cwd=tmp_path, check=False)
    assert "give a file of settings, such as gateway.yaml" in done.stderr


def test_the_study_explains_itself(tmp_path: Path) -> None:
    assert (
        "--requests 1000 --out benchmarks/results/gateway.json" in run_study("gateway", "--help", cwd=tmp_path).stdout
    )
