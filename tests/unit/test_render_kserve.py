"""What `slipway render kserve` writes, by KServe's own types, Kubernetes' schemas, and our rules."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import SlipwayError
from slipway.operations.rendering.check import violations
from slipway.operations.rendering.kserve import duration
from slipway.operations.rendering.manifests import Objects
from slipway.operations.rendering.plan import host_name
from slipway.operations.rendering.pods import DRAIN_S, EXIT_S
from tests.support.rendered import CLUSTER, IMAGE, OTHER, gpu_repository, render, settings
from tests.support.validators import documents, faults, require_validators

HOST = ("--host", "colours.example.com")
CANARY = (*CLUSTER, *HOST, "--candidate-image", OTHER, "--weight", "10")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Any]:
    folder = tmp_path_factory.mktemp("kserve")
    render("kserve", settings(folder), folder / "out", *CANARY)
    return objects(folder / "out")


def objects(out: Path) -> Sequence[Any]:
    return [one for file in sorted(out.glob("*.yaml")) for one in documents(file.read_text())]


def with_pods(objects_: Sequence[Any]) -> Sequence[Any]:
    """The objects, and each container of a runtime as that of a pod, which KServe's types do not describe."""
    pods = []
    for one in objects_:
        if one["kind"] == "ServingRuntime":
            spec = {
                "containers": [
                    {**container, "volumeMounts": container.get("volumeMounts", [])}
                    for container in one["spec"]["containers"]
                ],
                "volumes": one["spec"]["volumes"],
            }
            pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runtime"}, "spec": spec})
    return [*objects_, *pods]


def said(changed: Sequence[Any]) -> list[str]:
    found = faults(with_pods(changed), ["1.35"])
    return [*found, *map(str, violations(Objects.of_documents(changed, source="changed")))]


def test_every_validator_accepts_it(good: Sequence[Any]) -> None:
    require_validators()
    assert said(good) == []


def test_the_canary_and_both_protocols_are_of_one_host(good: Sequence[Any]) -> None:
    (service,) = (one["spec"] for one in good if one["kind"] == "InferenceService")
    assert service["predictor"]["model"]["storageUri"] == f"oci+native://{IMAGE}"
    (canary,) = service["canary"]
    assert canary["trafficPercent"] == 10
    assert canary["predictor"]["name"] != service["predictor"]["name"]
    (route,) = (one["spec"] for one in good if one["kind"] == "HTTPRoute")
    grpc, http = route["rules"]
    assert [{each["port"] for each in rule["backendRefs"]} for rule in (grpc, http)] == [{8001}, {8000}]
    assert [[each["weight"] for each in rule["backendRefs"]] for rule in (grpc, http)] == [[90, 10], [90, 10]]


def test_a_gpu_lane_asks_for_one_slice(tmp_path: Path) -> None:
    require_validators()
    file = settings(tmp_path, gpu_repository(tmp_path / "gpu"))
    render("kserve", file, tmp_path / "out", *CLUSTER, *HOST, "--mig", "1g.10gb", "--gpus", "3")
    rendered = objects(tmp_path / "out")
    assert said(rendered) == []
    (service,) = (one["spec"] for one in rendered if one["kind"] == "InferenceService")
    assert service["predictor"]["minReplicas"] == 3
    assert [one["key"] for one in service["predictor"]["tolerations"]] == ["nvidia.com/gpu"]
    assert service["predictor"]["model"]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"
    assert "canary" not in service


def test_the_proxies_of_the_gateway_may_run_elsewhere(tmp_path: Path) -> None:
    words = (*CANARY, "--gateway", "shared/main", "--gateway-pods-namespace", "envoy-gateway-system")
    render("kserve", settings(tmp_path), tmp_path / "out", *words)
    rendered = objects(tmp_path / "out")
    asked = spec(rendered, "NetworkPolicy")["ingress"][0]["from"]
    labels = [one["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for one in asked]
    assert labels == ["envoy-gateway-system"]
    assert violations(Objects.of_documents(rendered, source="elsewhere")) == []
    next(one for one in rendered if one["kind"] == "HTTPRoute")["metadata"].pop("annotations")
    assert {one.rule for one in violations(Objects.of_documents(rendered, source="elsewhere"))} == {"network"}


def test_a_cluster_that_mounts_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"--kubernetes 1\.33: KServe mounts .* from 1\.35"):
        render("kserve", settings(tmp_path), tmp_path / "out", *CANARY, "--kubernetes", "1.33")


def test_a_pod_that_ends_has_as_long_as_in_a_deployment_of_ours(good: Sequence[Any]) -> None:
    assert spec(good, "InferenceService")["predictor"]["terminationGracePeriodSeconds"] == EXIT_S + DRAIN_S


def spec(objects_: Sequence[Any], kind: str) -> Any:
    return next(one for one in objects_ if one["kind"] == kind)["spec"]


def old_canary(o: list[Any]) -> None:
    """The field that KServe ignores in silence in this mode."""
    spec(o, "InferenceService")["canary"][0]["canaryTrafficPercent"] = 10


def misspelt(o: list[Any]) -> None:
    model = spec(o, "InferenceService")["predictor"]["model"]
    model["storageURI"] = model.pop("storageUri")


def second_route(o: list[Any]) -> None:
    route = copy.deepcopy(next(one for one in o if one["kind"] == "HTTPRoute"))
    o.append(route | {"kind": "GRPCRoute", "metadata": {"name": "grpc", "namespace": "slipway"}})


def wrong_port(o: list[Any]) -> None:
    spec(o, "HTTPRoute")["rules"][0]["backendRefs"][0]["port"] = 9000


def misspelt_route(o: list[Any]) -> None:
    spec(o, "HTTPRoute")["rules"][1]["backendRefs"][1]["wieght"] = 10


def tagged(o: list[Any]) -> None:
    spec(o, "InferenceService")["predictor"]["model"]["storageUri"] = "oci://registry.example/team/colours:v1"


def without_probe(o: list[Any]) -> None:
    spec(o, "ServingRuntime")["containers"][0].pop("readinessProbe")


def typed_wrong(o: list[Any]) -> None:
    spec(o, "InferenceService")["canary"][0]["trafficPercent"] = "10"


def other_versions(o: list[Any]) -> None:
    for one in o:
        if one["kind"] in ("ServingRuntime", "HTTPRoute"):
            one["apiVersion"] = one["apiVersion"].rpartition("/")[0] + "/v1beta2"


def test_an_apiversion_of_another_time_is_found_by_the_rule_and_by_the_validators(good: Sequence[Any]) -> None:
    require_validators()
    changed = copy.deepcopy(list(good))
    other_versions(changed)
    assert {one.rule for one in violations(Objects.of_documents(changed, source="changed"))} == {"kind"}
    found = [one.removeprefix("1.35: ").partition("/")[0] for one in faults(changed, ["1.35"])]
    assert sorted(found) == ["HTTPRoute", "ServingRuntime"]


@pytest.mark.parametrize(("seconds", "text"), [(2.5, "2s500ms"), (60, "60s"), (0.25, "250ms"), (0.00001, "1ms")])
def test_a_time_is_a_duration_of_the_gateway_api(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_mistake_of_a_time_is_found_by_its_rule(good: Sequence[Any]) -> None:
    changed = copy.deepcopy(list(good))
    spec(changed, "HTTPRoute")["rules"][0]["timeouts"]["request"] = "2.5s"
    assert {one.rule for one in violations(Objects.of_documents(changed, source="changed"))} == {"duration"}


@pytest.mark.parametrize(
    "change", [old_canary, misspelt, second_route, wrong_port, misspelt_route, tagged, without_probe, typed_wrong]
)
def test_a_mistake_is_found(change: Callable[[list[Any]], None], good: Sequence[Any]) -> None:
    require_validators()
    changed = copy.deepcopy(list(good))
    change(changed)
    assert said(changed)


@pytest.mark.parametrize("host", ["localhost", "3d.example", "models.1and1.example", "xn--caf-dma.example"])
def test_a_host_is_what_a_route_takes(host: str) -> None:
    assert host_name(host, what="--host") == host


@pytest.mark.parametrize(
    "words",
    [
        ("--name", "my_service"),
        ("--gateway", "gateway"),
        ("--gateway", "a/B"),
        ("--gateway", "a/"),
        *(("--host", host) for host in ("under_score.example", "10.0.0.1", "a.example:80", "a-.example", "a..example")),
    ],
)
def test_a_name_that_is_not_one_is_refused(words: tuple[str, str], tmp_path: Path) -> None:
    given = {**dict(zip(CANARY[::2], CANARY[1::2], strict=True)), **dict([words])}
    with pytest.raises(SlipwayError, match=r"DNS label|namespace and name|is not the name of a host; give one such as"):
        render("kserve", settings(tmp_path), tmp_path / "out", *(word for pair in given.items() for word in pair))
    assert not (tmp_path / "out").exists()
