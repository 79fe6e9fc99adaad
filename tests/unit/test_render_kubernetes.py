"""What `slipway render kubernetes` writes, by Kubernetes' schemas, kubectl, our rules, and Envoy."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

from slipway.contract import SlipwayError
from slipway.oci.reference import RegistryReference
from slipway.operations.rendering.check import check
from slipway.operations.rendering.objects import deployment
from slipway.operations.rendering.plan import KUBERNETES, ServerNeeds
from slipway.repository import assemble
from tests.support.colours import contents, copy_colours, replaced
from tests.support.gateways import KEYS
from tests.support.prometheus import PROMTOOL, checked, needs_prometheus
from tests.support.rendered import (
    BOTH,
    CLUSTER,
    ENVOY,
    EXAMPLE,
    IMAGE,
    OTHER,
    STABLE,
    gpu_repository,
    render,
    repository,
    settings,
)
from tests.support.validators import documents, faults, kustomized, require_validators

VERSIONS = ("1.33", "1.35", "1.37")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    render("kubernetes", settings(folder), folder / "out", *BOTH)
    return folder / "out"


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a cluster where image volumes are off."""
    folder = tmp_path_factory.mktemp("fetched")
    render("kubernetes", settings(folder), folder / "out", *BOTH, "--kubernetes", "1.33")
    return folder / "out"


def refusal(*words: object) -> str:
    with pytest.raises(SlipwayError) as raised:
        render("kubernetes", *words)
    return str(raised.value)


@pytest.mark.parametrize("overlay", ["stable", "candidate"])
@pytest.mark.parametrize("which", ["example", "fetched"])
def test_every_validator_accepts_every_overlay(which: str, overlay: str, request: pytest.FixtureRequest) -> None:
    require_validators()
    text = kustomized(request.getfixturevalue(which) / "overlays" / overlay)
    objects = documents(text)
    assert faults(objects, VERSIONS if which == "example" else ("1.30", "1.33")) == []
    assert check(text, source=overlay) == []
    kinds = {(one["kind"], one["metadata"]["name"]) for one in objects}
    arms = {"stable", "candidate"} if overlay == "candidate" else {"stable"}
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        assert {name for found, name in kinds if found == kind} == arms | {"gateway"}
    assert {one["metadata"]["namespace"] for one in objects} == {"slipway"}


def test_a_gpu_lane_gives_each_pod_one_gpu_or_one_slice(tmp_path: Path) -> None:
    require_validators()
    file = settings(tmp_path, gpu_repository(tmp_path / "gpu"))
    for words, resource in (((), "nvidia.com/gpu"), (("--mig", "1g.10gb"), "nvidia.com/mig-1g.10gb")):
        out = tmp_path / resource.replace("/", "_")
        render("kubernetes", file, out, *BOTH, "--gpus", "4", *words)
        text = kustomized(out / "overlays/candidate")
        objects = documents(text)
        assert faults(objects, ["1.35"]) == []
        assert check(text, source="gpu") == []
        found = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "Deployment"}
        for arm in ("stable", "candidate"):
            (server,) = found[arm]["template"]["spec"]["containers"]
            assert server["resources"]["limits"][resource] == 1
        (gateway,) = found["gateway"]["template"]["spec"]["containers"]
        assert gateway["resources"]["limits"].keys() == {"memory"}
        (scaling,) = (one["spec"] for one in objects if one["kind"] == "HorizontalPodAutoscaler")
        assert scaling["maxReplicas"] == 4


def test_equal_settings_give_equal_bytes_and_other_folders_stay(example: Path, tmp_path: Path) -> None:
    file = settings(tmp_path)
    render("kubernetes", file, tmp_path / "again", *BOTH)
    assert contents(tmp_path / "again") == contents(example)
    render("kubernetes", file, tmp_path / "again", *STABLE)
    assert not (tmp_path / "again/components/candidate").exists()
    (tmp_path / "again/overlays/mine").mkdir()
    (tmp_path / "again/overlays/mine/kustomization.yaml").write_text("resources: [../stable]\n")
    assert "added since" in refusal(file, tmp_path / "again", *STABLE)
    shutil.rmtree(tmp_path / "again/overlays/mine")
    (tmp_path / "again/base/stable.yaml").write_text("kind: Deployment\n")
    assert "edited since" in refusal(file, tmp_path / "again", *STABLE)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").touch()
    assert "not empty" in refusal(file, other, *STABLE)
    assert os.listdir(other) == ["notes.txt"]


def test_the_rules_are_those_of_slipway_render_monitoring(example: Path, tmp_path: Path) -> None:
    file = settings(tmp_path, candidate={"grpc": 8101, "http": 8100, "status": 8103})
    render("monitoring", file, tmp_path / "monitoring")
    tested = yaml.safe_load((tmp_path / "monitoring/rules.yml").read_text())["groups"]
    groups = yaml.safe_load((example / "components/candidate/rules.yaml").read_text())["spec"]["groups"]
    assert tested[-1]["rules"].pop()["alert"] == "SlipwayWatchdog", "whoever runs a cluster's Alertmanager has one"
    assert [group for group in groups if group["name"] != "slipway queues"] == tested


@needs_prometheus
def test_promtool_reads_the_rules_and_computes_the_wait_in_the_busiest_queue(example: Path, tmp_path: Path) -> None:
    groups = yaml.safe_load((example / "base/rules.yaml").read_text())["spec"]["groups"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    samples = {"engine": ("0+500000x40", "0+50x40"), "post": ("0x40", "0x40")}  # 10 ms for each image, and no image
    series = [
        {"series": f'{name}{{namespace="s",pod="a",model="{model}"}}', "values": values}
        for model, both in samples.items()
        for name, values in zip(("nv_inference_queue_duration_us", "nv_inference_request_success"), both, strict=True)
    ]
    expected = [{"labels": 'slipway_queue_ms{namespace="s",pod="a"}', "value": 10}]
    asked = {"expr": "slipway_queue_ms", "eval_time": "2m", "exp_samples": expected}
    test = {"interval": "5s", "input_series": series, "promql_expr_test": [asked]}
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "5s", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content))
    checked(PROMTOOL, "test", "rules", tmp_path / "test.yml")


def test_no_key_and_no_certificate_is_in_any_file(example: Path) -> None:
    for name, content in contents(example).items():
        for key in KEYS.values():
            assert key.encode() not in content, name
        assert b"PRIVATE KEY" not in content, name
        assert b"BEGIN CERTIFICATE" not in content, name


def test_the_repository_is_mounted_by_digest_or_fetched_where_image_volumes_are_off(
    example: Path, fetched: Path
) -> None:
    require_validators()
    for out, mounted in ((example, True), (fetched, False)):
        for arm, image in (("stable", IMAGE), ("candidate", OTHER)):
            objects = documents(kustomized(out / "overlays/candidate"))
            (pod,) = (
                one["spec"]["template"]["spec"]
                for one in objects
                if (one["kind"], one["metadata"]["name"]) == ("Deployment", arm)
            )
            volume = next(one for one in pod["volumes"] if one["name"] == "repository")
            assert (volume.get("image", {}).get("reference") == image) is mounted
            (mount,) = (one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "repository")
            assert (mount.get("subPath") == "models") is mounted
            fetching = [one["args"] for one in pod.get("initContainers", ())]
            assert [words[1] for words in fetching] == ([] if mounted else ["pull", "unpack"])
            assert mounted or image in fetching[0]


def test_the_init_containers_reach_the_registry_of_the_image_with_the_login_of_a_secret(tmp_path: Path) -> None:
    image = f"registry.example:5000/team/colours:v1@sha256:{'1' * 64}"
    render("kubernetes", settings(tmp_path), tmp_path / "out", "--image", image, *STABLE[2:], "--kubernetes", "1.33")
    folder = tmp_path / "out/components/init-container"
    policy = yaml.safe_load((folder / "network.yaml").read_text())
    assert [one["port"] for one in policy["spec"]["egress"][0]["ports"]] == [53, 53, 443, 5000]
    (patch,) = yaml.safe_load((folder / "kustomization.yaml").read_text())["patches"]
    added = {one["path"].rpartition("/")[2]: one["value"] for one in yaml.safe_load(patch["patch"])}
    pull = added["initContainers"][0]
    assert RegistryReference.parse(pull["args"][2]).digest == f"sha256:{'1' * 64}"
    assert added["-"]["secret"]["optional"] is True
    assert pull["env"] == [{"name": "DOCKER_CONFIG", "value": "/login"}]
    assert "registry-login" in (tmp_path / "out/README.md").read_text()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of a gateway in front of three classifiers."""
    folder = tmp_path_factory.mktemp("three")
    return settings(folder, repository(folder / "repositories", ["first", "second", "third"]))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_vital_classifiers_alone_decide_whether_a_pod_gets_requests(three: Path, tmp_path: Path, count: int) -> None:
    words = [word for name in ("first", "second")[:count] for word in ("--vital", name)]
    file = three
    render("kubernetes", file, tmp_path / "out", *BOTH, *words)
    deployment, *_ = yaml.safe_load_all((tmp_path / "out/base/stable.yaml").read_text())
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    probe = server["readinessProbe"]
    assert server["startupProbe"]["httpGet"]["path"] == "/ready"
    assert probe["httpGet"]["path"] == ("/ready", "/ready/first", "/ready?only=first,second")[count]
    for folder in ("base", "components/candidate"):
        bootstrap = yaml.safe_load((tmp_path / "out" / folder / "bootstrap.yaml").read_text())
        clusters = bootstrap["static_resources"]["clusters"]
        checked = [check for cluster in clusters for check in cluster.get("health_checks", ())]
        assert {check["http_health_check"]["path"] for check in checked} == {probe["httpGet"]["path"]}
    assert "no such classifier" in refusal(file, tmp_path / "none", *STABLE, "--vital", "fourth")


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "tag": (("--image", "registry.example/team/colours:v1"), "does not name an image by its digest"),
    "short digest": (("--image", "registry.example/team/colours@sha256:12"), "invalid digest 'sha256:12'; write"),
    "capitals": (("--image", f"registry.example/Team/colours@sha256:{'0' * 64}"), "the name in lower case"),
    "scheme": (("--image", f"oci://{IMAGE}"), "leave out oci://"),
    "too many pods": (("--pods", "99999999999"), "give at most 10,000 (--pods or --gpus)"),
    "port": (
        ("--image", f"registry.example:70000/colours@sha256:{'0' * 64}"),
        "invalid port 70000; use one from 1 to 65535",
    ),
    "tagged server": (("--server-image", "slipway-cpu:26.10"), "--server-image"),
    "same candidate": (("--candidate-image", IMAGE), "that of --image too"),
    "unknown version": (("--kubernetes", "1.99"), "it knows 1.30 to 1.37"),
    "no version": (("--kubernetes", "newest"), "it knows 1.30 to 1.37"),
    "namespace": (("--namespace", "my_team"), "not a DNS label"),
    "monitoring": (("--monitoring-namespace", "Prometheus"), "not a DNS label"),
    "folder of a candidate without an image": (("--candidate-repository", str(EXAMPLE)), "give --candidate-image"),
    "weight of nobody": (("--weight", "5"), "needs a candidate"),
    "gpus on a cpu lane": (("--gpus", "2"), "repository is of the cpu lane"),
    "slices on a cpu lane": (("--mig", "1g.10gb"), "repository is of the cpu lane"),
    "no such slice": (("--mig", "half"), "not a profile of MIG"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_a_sentence_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    words, said = REFUSED[case]
    given = {**dict(zip(STABLE[::2], STABLE[1::2], strict=True)), **dict([words])}
    message = refusal(settings(tmp_path), tmp_path / "out", *(word for pair in given.items() for word in pair))
    assert said in message
    assert not (tmp_path / "out").exists()


def test_settings_of_one_box_are_refused_in_a_sentence(tmp_path: Path) -> None:
    open_ = settings(tmp_path / "open", tls=False)
    assert "plain text" in refusal(open_, tmp_path / "out", *STABLE)
    journal = settings(tmp_path / "journal", observe={"share": 0.1})
    assert "the journal is a database" in refusal(journal, tmp_path / "out", *STABLE)
    without = settings(tmp_path / "without", repository=None)
    assert "give the folder of the repository" in refusal(without, tmp_path / "out", *STABLE)
    render("secrets", without, tmp_path / "secrets")
    budget = settings(tmp_path / "budget", budgets_ms={"digits": 20})
    assert "no such classifier" in refusal(budget, tmp_path / "out", *STABLE)
    assert not (tmp_path / "out").exists()


def test_a_candidate_of_another_lane_or_with_fewer_classifiers_is_refused(tmp_path: Path) -> None:
    file = settings(tmp_path)
    gpu = gpu_repository(tmp_path / "gpu")
    fewer = repository(tmp_path / "fewer", ["others"])
    assert "of the gpu lane" in refusal(file, tmp_path / "out", *BOTH, "--candidate-repository", gpu)
    assert "without colours" in refusal(file, tmp_path / "out", *BOTH, "--candidate-repository", fewer)
    render("kubernetes", file, tmp_path / "out", *BOTH, "--candidate-repository", EXAMPLE)


def test_a_larger_candidate_gets_its_own_sizes(tmp_path: Path) -> None:
    file = settings(tmp_path)
    changes = [replaced("decision.json", b'"temperature": 1.0', f'"temperature": {t}'.encode()) for t in ("1.5", "2.5")]
    others = [
        copy_colours(tmp_path / name, spec={"name": name}, bundle=change, engine=change)
        for name, change in zip(("second", "third"), changes, strict=True)
    ]
    other = tmp_path / "repository"
    assemble([copy_colours(tmp_path / "colours"), *others], other)
    more = ServerNeeds.of(other).memory_bytes - ServerNeeds.of(EXAMPLE).memory_bytes
    assert more >= 256 << 20
    larger = ("--candidate-repository", other)
    render("kubernetes", file, tmp_path / "out", *BOTH, *larger)
    render("kserve", file, tmp_path / "kserve", *CLUSTER, *BOTH[-4:], "--host", "a.example", *larger)
    shutil.copytree(EXAMPLE, tmp_path / "stable")
    words = ("--gateway-image", ENVOY, "--repository", tmp_path / "stable")
    render("compose", file, tmp_path / "compose", *words, *larger)
    sizes = {}
    for arm, path in (("stable", "base"), ("candidate", "components/candidate")):
        pod = next(yaml.safe_load_all((tmp_path / "out" / path / f"{arm}.yaml").read_text()))["spec"]["template"][
            "spec"
        ]
        sizes[arm] = pod["containers"][0]["resources"]["limits"]["memory"]
    assert int(sizes["candidate"][:-2]) == int(sizes["stable"][:-2]) + (more >> 20)
    runtime = yaml.safe_load((tmp_path / "kserve/runtime.yaml").read_text())
    assert runtime["spec"]["containers"][0]["resources"]["limits"]["memory"] == sizes["candidate"]
    services = yaml.safe_load((tmp_path / "compose/compose.yaml").read_text())["services"]
    assert services["candidate"]["mem_limit"] == services["stable"]["mem_limit"] + 2 * more


def test_a_slow_start_is_no_failed_rollout_and_dns_may_be_anywhere(example: Path) -> None:
    for start_s, deadline in ((60, 600), (1200, 1320)):
        made = deployment("stable", "server", {}, replicas=1, start_s=start_s, about="", reasons={}).node
        assert made["spec"]["progressDeadlineSeconds"] == deadline
    policies = yaml.safe_load_all((example / "base/network.yaml").read_text())
    egress = next(one for one in policies if one["metadata"]["name"] == "gateway")["spec"]["egress"]
    assert [rule for rule in egress if 53 in {port["port"] for port in rule["ports"]} and "to" in rule] == []


def test_tritonserver_is_scraped_in_ready_pods_alone_and_its_supervisor_in_all(example: Path) -> None:
    monitor = next(yaml.safe_load_all((example / "base/monitors.yaml").read_text()))
    dropped = {
        endpoint["port"]: {
            label: rule["regex"]
            for rule in endpoint["relabelings"]
            if rule.get("action") == "drop"
            for label in rule["sourceLabels"]
        }
        for endpoint in monitor["spec"]["endpoints"]
    }
    assert dropped["status"] == {}
    assert dropped["metrics"]["__meta_kubernetes_endpoint_ready"] == "false"


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(version, marks=() if version in ("1.30", "1.34", "1.35", "1.37") else pytest.mark.nightly)
        for version in KUBERNETES
    ],
)
def test_the_repository_is_fetched_before_image_volumes(version: str, tmp_path: Path) -> None:
    render("kubernetes", settings(tmp_path), tmp_path / "out", *STABLE, "--kubernetes", f"v{version}")
    fetched = "init-container" in (tmp_path / "out/overlays/stable/kustomization.yaml").read_text()
    assert fetched == (int(version[2:]) < 35)


def test_secrets_are_readable_by_their_owner_alone_and_written_over_nothing(tmp_path: Path) -> None:
    file = settings(tmp_path)
    render("secrets", file, tmp_path / "secrets")
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "secrets").iterdir()}
    assert modes == dict.fromkeys(("keys.yaml", "tls.crt", "tls.key"), "0o600")
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    with pytest.raises(SlipwayError, match="exists"):
        render("secrets", file, tmp_path / "secrets")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out, said in ((tmp_path / "link", "a file or link"), (Path("/proc/slipway"), "give a path on a disk that can")):
        with pytest.raises(SlipwayError, match=said):
            render("secrets", file, out)
