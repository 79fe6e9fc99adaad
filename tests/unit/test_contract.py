"""Preprocess, Decision and Spec: files of each format read the same, and every wrong field is named."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import slipway.contract
from slipway.contract import Decision, MissingDependencyError, Preprocess, SlipwayError, Spec, SpecError
from slipway.contract.typed_file import Contract

SPEC: dict[str, Any] = {
    "name": "digits",
    "data": {"root": "data/digits"},
    "preprocess": {"input_height": 64, "input_width": 96},
    "backbone": {"name": "resnet10t"},
}
MEANS: dict[str, Any] = {"int8": "AAAA", "step": 0.5}
DECISION: dict[str, Any] = {
    **{"task": "multiclass", "top_k": 3},
    "unknown": {"score": "embedding", "threshold": 0.5, "class_means": MEANS},
}
PREPROCESS: dict[str, Any] = SPEC["preprocess"]


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_files_of_each_format_read_the_same(tmp_path: Path, suffix: str) -> None:
    spec = Spec.parse({**SPEC, "data": {"root": "données/图"}}, source="here")
    path = tmp_path / f"spec{suffix}"
    if suffix == ".json":
        spec.write(path)
    else:
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json"), allow_unicode=True), encoding="utf-8")
    assert Spec.read(path) == spec


def test_contracts_are_frozen() -> None:
    spec = Spec.parse(SPEC, source="here")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"


def with_value(data: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A deep copy of `data` with `value` at `path`, its parents made where missing."""
    copy: dict[str, Any] = json.loads(json.dumps(data))
    inner = copy
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
    inner[path[-1]] = value
    return copy


def nested_models(model: type[BaseModel], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], list[str]]]:
    """Every nesting level of `model`: its path, and its valid keys."""
    levels = [(path, sorted(model.model_fields))]
    for name, field in model.model_fields.items():
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                levels += nested_models(candidate, (*path, name))
    return levels


LEVELS = [
    (model, data, path, keys)
    for model, data in ((Spec, SPEC), (Preprocess, PREPROCESS), (Decision, DECISION))
    for path, keys in nested_models(model)
]


def test_every_level_of_the_contracts_is_tried_with_an_unknown_key() -> None:
    assert {path for model, _, path, _ in LEVELS if model is Spec} == {
        (),
        *((part,) for part in ("data", "preprocess", "backbone", "recipe", "tracking", "decision", "calibration")),
        *((part,) for part in ("sensitive_layers", "accuracy", "tensorrt", "latency", "serving", "compute")),
        ("decision", "unknown"),
        ("recipe", "augment"),
        *(("recipe", "augment", part) for part in ("colour", "policy", "erase", "mix", "minority")),
        *(("recipe", "augment", "minority", part) for part in ("colour", "policy", "erase")),
        ("decision", "thresholds"),
        ("serving", "gpu"),
        ("recipe", "loss"),
        ("recipe", "head"),
    }
    assert {path for model, _, path, _ in LEVELS if model is Decision} == {(), ("unknown",), ("unknown", "class_means")}


@pytest.mark.parametrize(
    ("model", "data", "path", "keys"), LEVELS, ids=[".".join((m.__name__, *path)) for m, _, path, _ in LEVELS]
)
def test_an_unknown_key_is_named_with_the_valid_ones(
    model: type[Contract], data: dict[str, Any], path: tuple[str, ...], keys: list[str]
) -> None:
    with pytest.raises(SpecError) as caught:
        model.parse(with_value(data, (*path, "colour_space"), 1), source="my.yaml")
    expected = f"{'.'.join((*path, 'colour_space'))}: unknown key; the valid keys here are {', '.join(keys)}"
    assert str(caught.value) == f"my.yaml: {expected}"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("task", "regression", "'multiclass' or 'multilabel'"),
        ("data.root", "", "should match pattern"),
        ("data.validation_fraction", 0.01, "greater than or equal to 0.05"),
        ("data.test_fraction", "half", "write a number, without quotes"),
        ("preprocess.input_height", 7, "greater than or equal to 8"),
        ("preprocess.input_width", 64.5, "integer"),
        ("preprocess.resize", "stretch", "'crop' or 'pad'"),
        ("preprocess.crop_fraction", 0.1, "greater than 0.1"),
        ("preprocess.interpolation", "nearest", "'linear' or 'cubic'"),
        ("preprocess.std", [0.2, 0.2], "required"),
        ("preprocess.std.1", [0.2, 0.0, 0.2], "greater than 0"),
        ("preprocess.mean.0", [float("nan"), 0.5, 0.5], "finite number"),
        ("preprocess.mean.2", [0.5, 0.5, 128], "less than or equal to 1"),
        ("preprocess.colour", "bgr", "'rgb'"),
        ("preprocess.decoder", "nvjpeg", "'cpu' or 'mixed'"),
        ("backbone.name", None, "text is needed; given None"),
        ("backbone.name", ["a"], "text is needed; given ['a']"),
        ("backbone.name", 5, "text is needed; write it in quotes; given 5"),
        ("recipe.epochs", 0, "greater than or equal to 1"),
        ("recipe.learning_rate", float("inf"), "finite number"),
        ("decision.top_k", 0, "greater than or equal to 1"),
        ("decision.unknown_threshold", 1.5, "less than or equal to 1"),
        ("decision.unknown", {"coverage": 1.0}, "less than 1"),
        ("decision.unknown", {"coverage": 0.9, "score": "distance"}, "'max_probability', 'energy' or 'embedding'"),
        ("calibration.images", 0, "greater than or equal to 1"),
        ("calibration.method", "random", "'entropy' or 'max'"),
        ("precisions", [], "at least 1 item"),
        ("precisions", ["int8", "int8"], "name each precision once"),
        ("precisions.0", ["fp4"], "'fp32', 'fp16', 'bf16', 'int8' or 'fp8'"),
        ("sensitive_layers.max_steps", -1, "greater than or equal to 0"),
        ("accuracy.max_class_loss_points", 0, "greater than 0"),
        ("tensorrt.optimization_level", 6, "less than or equal to 5"),
        ("tensorrt.hardware_compatibility", "any", "'none', 'same_compute_capability' or 'ampere_plus'"),
        ("accuracy.confidence", 1.0, "less than 1"),
        ("latency.p99_ms", 0, "greater than 0"),
        ("serving.max_batch_size", 129, "less than or equal to 128"),
        ("latency.p99_ms", "010", "write a number, without quotes; given '010'"),
        ("decision.top_k", True, "write a number, without quotes; given True"),
        ("serving.gpu", {"gpus": ["0"]}, "gpus: write numbers, without quotes; given ['0']"),
        ("serving.gpu", {"gpus": [True]}, "gpus: write numbers, without quotes; given [True]"),
        ("accuracy.prove_classes", "y", "write true or false, without quotes; given 'y'"),
        ("accuracy.prove_classes", 1, "write true or false, without quotes; given 1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(path: str, value: Any, says: str) -> None:
    key, *inner = [part for part in path.split(".") if not part.isdigit()]
    data = {**SPEC, key: {**SPEC.get(key, {}), inner[0]: value} if inner else value}
    with pytest.raises(SpecError) as caught:
        Spec.parse(data, source="my.yaml")
    message = str(caught.value)
    assert message.startswith(f"my.yaml: {path}")
    assert says in message


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse({"name": "Digits", "preprocess": {"input_height": 64}, "task": "sort"}, source="my.yaml")
    fields = [line.split(":")[0].strip() for line in str(caught.value).removeprefix("my.yaml: ").splitlines()]
    assert fields == ["name", "task", "data", "preprocess.input_width", "backbone"]


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        (Preprocess, {**PREPROCESS, "resize": "pad", "crop_fraction": 0.9}, "crop_fraction belongs to resize: crop"),
        (Decision, {"task": "multilabel", "top_k": 1}, "a multilabel decision needs thresholds"),
        (Decision, {"task": "multilabel", "top_k": 1, "thresholds": []}, "a multilabel decision needs thresholds"),
        (
            Decision,
            {"task": "multilabel", "top_k": 1, "thresholds": [0.5], "unknown": {"threshold": 0.5}},
            "unknown belongs to multiclass",
        ),
        (Decision, {"task": "multiclass", "top_k": 1, "thresholds": [0.5]}, "thresholds belong to multilabel"),
        (Decision, {"task": "multiclass", "top_k": 1, "platt": [[1.0, 0.0]]}, "platt belongs to multilabel"),
        (
            Decision,
            {"task": "multilabel", "top_k": 1, "thresholds": [0.5, 0.5], "platt": [[1.0, 0.0]]},
            "1 pairs in platt but 2 thresholds",
        ),
        (Spec, {**SPEC, "decision": {"unknown": {}}}, "give either coverage"),
        (Spec, {**SPEC, "decision": {"unknown": {"coverage": 0.9, "precision": 0.9}}}, "give either coverage"),
        (Spec, {**SPEC, "decision": {"unknown": {"coverage": 0.9}, "unknown_threshold": 0.5}}, "contradict each other"),
        (Spec, {**SPEC, "task": "multilabel", "decision": {"unknown": {"coverage": 0.9}}}, "belongs to multiclass"),
        (Spec, with_value(SPEC, ("data",), {"root": "x", "validation_fraction": 0.5, "test_fraction": 0.5}), "0.2"),
        (Spec, with_value(SPEC, ("recipe", "augment", "crop_scale"), [0.9, 0.5]), "0 < least <= most <= 1"),
        (Spec, with_value(SPEC, ("recipe", "augment", "crop_scale"), [0.0, 0.5]), "0 < least <= most <= 1"),
        (Spec, with_value(SPEC, ("recipe", "augment", "crop_ratio"), [2.0, 0.5]), "0 < least <= most"),
        (Spec, with_value(SPEC, ("recipe", "augment", "policy"), {"magnitude": 9}), "belong to kind: rand"),
        (Spec, with_value(SPEC, ("recipe", "augment", "mix"), {}), "mixup_alpha or cutmix_alpha must be above 0"),
        (Spec, with_value(SPEC, ("recipe",), {"augment": {}, "rotate_degrees": 5}), "belong in augment; move them"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(model: type[Contract], data: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        model.parse(data, source="my.yaml")


@pytest.mark.parametrize("name", ["a", "digits", "d1_2", "a" * 63, "preprocess", "engine", "full", "fully_grown"])
def test_good_classifier_names_are_taken(name: str) -> None:
    assert Spec.parse({**SPEC, "name": name}, source="my.yaml").name == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "a;b", "a b", " a", "a ", "a\t", "a\n", "a\nb"),
        *("a\0", "\0", "né", "图", "\u0430bc", "\uff41", "dig\u0131ts"),
        *("A", "Digits", "1a", "_a", "a-b", "a.b", "a" * 64),
        *("x_full", "preprocess_x", "engine_x", "post_x", "post_"),
    ],
)
def test_wrong_classifier_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse({**SPEC, "name": name}, source="my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml: name: ")
    assert "use 1 to 63 characters of a-z, 0-9 and _" in message or "belong to Slipway" in message
    assert f"given {name!r}" in message


@pytest.mark.parametrize("data", [None, [], "text", 7, [SPEC]])
def test_something_else_than_a_mapping_is_refused(data: Any) -> None:
    with pytest.raises(SpecError, match=r"my.yaml: \(the whole file\)"):
        Spec.parse(data, source="my.yaml")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", b"", "not valid JSON"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"\xff\xfe", "not UTF-8 text"),
        ("a.yaml", b"", "(the whole file): empty; write its keys: accuracy, backbone, "),
        ("a.yaml", b"x: [", "not valid YAML"),
        ("a.yaml", b"\x00", "not valid YAML"),
        ("a.yaml", b"x: \xff", "not UTF-8 text"),
        ("a.yaml", b"!!python/object/apply:os.getcwd []", "the tag !!python/object/apply:os.getcwd is not read"),
        ("a.json", b"[" * 100_000, "too many levels of objects and arrays; write fewer"),
        ("a.json", b"9" * 5_000, "not valid JSON"),
        ("a.yaml", b"x: 2020-99-99", "x: unknown key"),
        ("a.yaml", b"[" * 5_000, "line 1: more than 100 levels; write fewer"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError) as caught:
        Spec.read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert says in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SpecError, match=f"{path}: cannot be read: {reason}"):
            Spec.read(path)


def test_the_public_api_is_frozen() -> None:
    assert slipway.contract.__all__ == [
        *("Bundle", "BundleEngine", "Choice", "CompileError", "DataError", "Decision", "EngineSettings", "ExportError"),
        *("Fleet", "GateError", "Lane", "Manifest", "ManifestError", "MissingDependencyError", "OciImageError"),
        *("PlanSettings", "Preprocess", "QuantizeError", "RepositoryError"),
        *("ServingError", "SlipwayError", "Spec", "SpecError", "StorageError", "Unknown", "bundle_id", "check_labels"),
        *("read_labels", "write_labels"),
    ]
    assert all(hasattr(slipway.contract, name) for name in slipway.contract.__all__)


def test_a_public_class_shares_its_name_only_with_what_means_the_same_or_is_frozen() -> None:
    modules = Path(slipway.__file__).parent.rglob("*.py")
    names = Counter(
        name for path in modules for name in re.findall(r"^class ([A-Z]\w*)", path.read_text("utf-8"), re.M)
    )
    parallel = {"Gallery", "Tensor", "Todo", "TritonPythonModel"}
    assert {name for name, count in names.items() if count > 1} <= parallel | {"Rows"}, "Rows: steps keep their bytes"


def test_every_error_has_one_root() -> None:
    errors = {name: getattr(slipway.contract, name) for name in slipway.contract.__all__ if name.endswith("Error")}
    assert len(errors) == 13
    assert all(issubclass(error, SlipwayError) for error in errors.values())


def test_a_missing_dependency_says_what_to_install() -> None:
    assert "pip install 'slipway[train]'" in str(MissingDependencyError("torch", extra="train"))


def test_a_spec_of_before_augment_reads_as_it_was_meant() -> None:
    old = Spec.parse({**SPEC, "recipe": {"crop_scale": [0.5, 1.0], "rotate_degrees": 5, "epochs": 3}}, source="here")
    augment = {"crop_scale": [0.5, 1.0], "rotate_degrees": 5}
    assert old == Spec.parse({**SPEC, "recipe": {"epochs": 3, "augment": augment}}, source="here")
    assert "crop_scale" not in json.loads(old.to_json())["recipe"]
