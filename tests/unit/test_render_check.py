"""Mistakes in rendered deployments, each found by a schema or by a rule; and nothing is found in good ones."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import SlipwayError
from slipway.operations.rendering.check import violations
from slipway.operations.rendering.manifests import Objects
from slipway.operations.rendering.sizes import bytes_of
from tests.support.deployment_defects import DEFECTS
from tests.support.rendered import BOTH, render, settings
from tests.support.validators import FOLDER, documents, faults, kustomized, require_validators


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_validators()
    folder = tmp_path_factory.mktemp("good")
    render("kubernetes", settings(folder), folder / "out", *BOTH)
    return folder / "out"


@pytest.fixture(scope="module")
def good(rendered: Path) -> Sequence[Any]:
    return documents(kustomized(rendered / "overlays/candidate"))


def rules(objects: Sequence[Any]) -> set[str]:
    return {violation.rule for violation in violations(Objects.of_documents(objects, source="changed"))}


def test_nothing_is_found_in_what_is_rendered(good: Sequence[Any]) -> None:
    assert rules(good) == set()


def test_a_kind_of_another_operator_passes() -> None:
    secret = {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "keys"}}
    assert rules([secret]) == set()
    assert rules([secret | {"apiVersion": "apps/v1"}]) == {"kind"}


@pytest.mark.parametrize("name", [name for name, (rule, _) in DEFECTS.items() if rule != "schema"])
def test_a_mistake_is_found_by_its_rule(name: str, good: Sequence[Any]) -> None:
    rule, change = DEFECTS[name]
    objects = copy.deepcopy(list(good))
    change(objects)
    assert rules(objects) == {rule}


def test_the_schemas_find_the_others_and_unknown_kinds_each_in_the_object_that_was_changed(good: Sequence[Any]) -> None:
    changed = []
    for name in (name for name, (rule, _) in DEFECTS.items() if rule in ("schema", "kind")):
        objects = copy.deepcopy(list(good))
        DEFECTS[name][1](objects)
        different = [one for one, before in zip(objects, good, strict=True) if one != before]
        assert len(different) == 1
        changed += different
    for number, one in enumerate(changed):
        one["metadata"]["name"] = f"changed-{number}"
    found = faults(changed, ["1.35"])
    assert {said.partition("/")[2].partition(":")[0] for said in found} == {f"changed-{n}" for n in range(len(changed))}


def test_the_verb_lists_findings_and_ends_with_1(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    render("check", rendered, "--kubectl", FOLDER / "bin/kubectl")
    said = capsys.readouterr().out
    assert said.count(": 0 violations") == 2
    text = kustomized(rendered / "overlays/stable").replace("@sha256:", ":")
    (tmp_path / "objects.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        render("check", tmp_path / "objects.yaml", "--json")
    assert ended.value.code == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["violations"]
    assert {one["rule"] for one in found} == {"image-digest"}


def test_without_kubectl_the_file_that_it_prints_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render("kubernetes", settings(tmp_path), tmp_path / "out", *BOTH)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlipwayError, match="give the file that kubectl kustomize prints"):
        render("check", tmp_path / "out")
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    with pytest.raises(SlipwayError, match="kubectl refuses it: it is broken"):
        render("check", tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no object"),
        ("a: [", "not YAML: .*; give the folder"),
        ("text", "a document is 'text', which is not an object; give the folder"),
        ("kind: Service", r"not objects of Kubernetes \(.*: Field required\); give the folder"),
    ],
)
def test_what_is_not_a_deployment_is_an_error_in_words(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "objects.yaml").write_text(content)
    for given in (tmp_path, tmp_path / "objects.yaml"):
        with pytest.raises(SlipwayError, match=said):
            render("check", given)
    with pytest.raises(SlipwayError, match="no overlays and no YAML files"):
        render("check", tmp_path / "nothing")
    (tmp_path / "objects.yaml").write_bytes(b"\xff")
    with pytest.raises(SlipwayError, match=r"objects\.yaml: not UTF-8 text; give the folder"):
        render("check", tmp_path)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512Mi", 1 << 29), ("1e9", 10**9), ("1E3", 1000), ("2P", 2 * 10**15), ("1E", 10**18), ("1.5G", 1_500_000_000)],
)
def test_quantities_are_those_of_kubernetes(text: str, size: int) -> None:
    assert bytes_of(text) == size
    with pytest.raises(SlipwayError, match="not a quantity"):
        bytes_of(f"{text}x")
