"""The assembler on the tiny fixed bundle: golden files, configurations, and steps that stand alone."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from slipway.contract import Lane, Manifest
from slipway.repository import Classifier, assemble
from slipway.system.files import sha256_file
from tests.support.colours import COLOURS, configs, contents, copy_colours, open_colours, step_names

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
PUBLIC = {"LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE"}
FULL = PUBLIC | {"PROBABILITY", "EMBEDDING"}


@pytest.fixture(scope="module")
def colours() -> Classifier:
    return open_colours(COLOURS)


@pytest.fixture(scope="module")
def repository(colours: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("assembled") / "repository"
    assemble([colours], out)
    return out


def test_assembling_the_fixed_bundle_again_gives_the_example_byte_for_byte(repository: Path) -> None:
    made, kept = contents(repository), contents(EXAMPLE)
    assert sorted(made) == sorted(name for name in kept if "__pycache__" not in name), (
        "make model_repository/example again"
    )
    assert {name for name in made if made[name] != kept[name]} == set()


def test_assembling_over_an_older_repository_leaves_nothing_of_it(
    colours: Classifier, repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assemble([copy_colours(tmp_path / "other", spec={"name": "other", "serving": {"max_batch_size": 2}})], out)
    assemble([colours], out)
    assert contents(out) == contents(repository)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_the_manifest_names_every_file_and_both_inputs(colours: Classifier, repository: Path) -> None:
    manifest = Manifest.open(repository, kind="repository")
    assert manifest.inputs == {
        "colours/bundle": sha256_file(COLOURS / "bundle/manifest.json"),
        "colours/engine": sha256_file(COLOURS / "engine/manifest.json"),
    }
    lane = Lane.read(repository / "lane.json")
    assert (lane.lane, lane.classifiers) == ("cpu", {"colours": colours.bundle.id})


def test_every_configuration_parses_and_is_named_as_its_folder(repository: Path) -> None:
    found = configs(repository)
    assert len(found) == 5
    assert {name: config.name for name, config in found.items()} == {name: name for name in found}
    assert {config.max_batch_size for config in found.values()} == {8}
    for name in found:
        assert [path.name for path in (repository / name).iterdir() if path.is_dir()] == ["1"]


def tensors(values: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {v.name: (pb.DataType.Name(v.data_type), tuple(v.dims)) for v in values}


def test_the_steps_say_what_they_take_and_give(repository: Path) -> None:
    names, found = step_names(repository), configs(repository)
    preprocess, engine, post = (found[names[kind]] for kind in ("preprocess", "engine", "post"))
    pixels, logits = ("TYPE_UINT8", (32, 32, 3)), ("TYPE_FP32", (3,))
    assert tensors(preprocess.input) == {"IMAGE": ("TYPE_STRING", (1,))}
    assert tensors(preprocess.output) == {"pixels_nhwc_u8": pixels, "image_status": ("TYPE_INT32", (1,))}
    assert tensors(engine.input) == {"pixels_nhwc_u8": pixels, "after": ("TYPE_FP32", (-1,))}
    assert [value.name for value in engine.input if value.optional] == ["after"]
    assert tensors(engine.output) == {"logits_nc": logits, "embedding_nd": logits}
    assert tensors(post.input) == {"logits_nc": logits, "image_status": ("TYPE_INT32", (1,)), "embedding_nd": logits}
    assert [value.name for value in post.input if value.optional] == ["embedding_nd"]
    assert tensors(post.output).keys() == FULL


def test_the_steps_run_in_the_python_backend_batched_with_the_spec_s_instances_and_threads(tmp_path: Path) -> None:
    serving = {"max_batch_size": 16, "instances": 3, "threads": 2, "max_queue_delay_us": 700, "warmup_batches": 5}
    assemble([copy_colours(tmp_path / "c", spec={"serving": serving})], tmp_path / "out")
    found = configs(tmp_path / "out")
    for kind, name in step_names(tmp_path / "out").items():
        config = found[name]
        assert (config.backend, config.max_batch_size) == ("python", 16)
        assert config.HasField("dynamic_batching")
        assert config.dynamic_batching.max_queue_delay_microseconds == (700 if kind == "preprocess" else 0)
        (group,) = config.instance_group
        assert (group.kind, group.count) == (pb.ModelInstanceGroup.KIND_CPU, 1 if kind == "post" else 3)
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        work = {"threads": "2", "warmup_batches": "5"}
        assert parameters == {"preprocess": work, "engine": {**work, "arithmetic": "f32"}, "post": {}}[kind]
    assert {config.max_batch_size for config in found.values()} == {16}


def test_shared_memory_holds_two_full_batches(tmp_path: Path) -> None:
    lane = assemble([copy_colours(tmp_path / "c", spec={"serving": {"max_batch_size": 128}})], tmp_path / "out")
    assert lane.shm_default_bytes >= 2 * 128 * (32 * 32 * 3 + (1 << 20))
    assert lane.shm_default_bytes % (1 << 20) == 0


@pytest.mark.parametrize("layout", ["fused", "shared_decode", "steps"])
@pytest.mark.parametrize(("merged", "least_mib"), [(1, 2), (2, 4), (64, 128)])
def test_shared_memory_holds_as_many_photographs_as_requests_are_merged_into(
    layout: str, merged: int, least_mib: int, tmp_path: Path
) -> None:
    serving = {"layout": layout, "preferred_batch_size": merged, "max_batch_size": 128}
    lane = assemble([copy_colours(tmp_path / "c", spec={"serving": serving})], tmp_path / "out")
    pixels = 0 if layout == "fused" else 128 * 32 * 32 * 3  # a `fused` step hands none on
    assert least_mib + 2 * pixels / 2**20 < lane.shm_default_bytes / 2**20 <= least_mib + 1


@pytest.mark.parametrize(("name", "public"), [("colours", PUBLIC), ("colours_full", FULL)])
def test_the_public_interface_is_that_of_the_design(repository: Path, name: str, public: set[str]) -> None:
    config = configs(repository)[name]
    assert config.platform == "ensemble"
    assert tensors(config.input) == {"IMAGE": ("TYPE_STRING", (1,))}
    expected = {
        "LABEL": ("TYPE_STRING", (2,)),
        "SCORE": ("TYPE_FP32", (2,)),
        "CLASS_ID": ("TYPE_INT32", (2,)),
        "STATUS": ("TYPE_INT32", (1,)),
        "BUNDLE": ("TYPE_STRING", (1,)),
        "PROBABILITY": ("TYPE_FP32", (3,)),
        "EMBEDDING": ("TYPE_FP32", (3,)),
    }
    assert tensors(config.output) == {tensor: expected[tensor] for tensor in public}
    with_labels = {output.name: output.label_filename for output in config.output if output.label_filename}
    assert with_labels == ({"PROBABILITY": "labels.txt"} if name == "colours_full" else {})
    assert (repository / name / "labels.txt").exists() == (name == "colours_full")


def chain(config: pb.ModelConfig) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    for step in config.ensemble_scheduling.step:
        yield step.model_name, dict(step.input_map), dict(step.output_map)


@pytest.mark.parametrize("name", ["colours", "colours_full"])
def test_every_tensor_of_an_ensemble_is_made_before_it_is_used_and_used_once_made(repository: Path, name: str) -> None:
    found = configs(repository)
    config = found[name]
    public_in, public_out = {t.name for t in config.input}, {t.name for t in config.output}
    known, used = tensors(config.input), set()
    for model, inputs, outputs in chain(config):
        step = found[model]
        required = {t.name for t in step.input if not t.optional}
        assert required <= inputs.keys() <= {t.name for t in step.input}
        assert outputs.keys() <= {t.name for t in step.output}
        for inner, outer in inputs.items():
            assert known[outer] == tensors(step.input)[inner], "type and shape are those of the step before"
            used.add(outer)
        for inner, outer in outputs.items():
            assert outer not in known, "no two steps write one tensor"
            known[outer] = tensors(step.output)[inner]
    assert {tensor: known[tensor] for tensor in public_out} == tensors(config.output)
    assert known.keys() == used | public_out, "nothing is computed that nobody uses"
    assert {tensor for tensor in known if tensor.islower()}.isdisjoint(public_in | public_out)


@pytest.mark.parametrize("name", ["colours", "colours_full"])
def test_every_public_tensor_comes_from_post_and_none_is_another_step_s_input(repository: Path, name: str) -> None:
    config, steps = configs(repository)[name], list(chain(configs(repository)[name]))
    public = {t.name for t in config.output}
    assert [model.split("_")[0] for model, _, _ in steps] == ["preprocess", "engine", "post"]
    assert set(steps[-1][2].values()) == public
    for _, inputs, _ in steps:
        assert public.isdisjoint(inputs.values())


RUNTIMES = {
    "preprocess": {"numpy", "nvidia", "cykooz_resizer", "simplejpeg", "triton_python_backend_utils"},
    "engine": {"numpy", "openvino", "triton_python_backend_utils"},
    "post": {"numpy", "triton_python_backend_utils"},
}
# In 3.11's standard library, and not in that of 3.10 or of 3.13.
NOT_EVERYWHERE = {
    "tomllib",
    "asyncore",
    "asynchat",
    "cgi",
    "distutils",
    "imp",
    "smtpd",
    "telnetlib",
    "uu",
    "xdrlib",
    "pipes",
}


@pytest.mark.parametrize("kind", ["preprocess", "engine", "post"])
def test_a_step_imports_numpy_its_one_runtime_and_the_files_beside_it_alone(kind: str, repository: Path) -> None:
    folder = repository / step_names(repository)[kind] / "1"
    sources = sorted(folder.glob("*.py"))
    assert len(sources) >= 2
    for source in sources:
        absolute, beside = set(), set()
        for node in ast.walk(ast.parse(source.read_text(), feature_version=(3, 10))):
            if isinstance(node, ast.Import):
                absolute |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                absolute.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1
                beside |= {node.module} if node.module else {alias.name for alias in node.names}
        # `dali_graph.py` imports a file beside it by its bare name too, as the native form's files do.
        own = {file.stem for file in sources}
        assert absolute <= (sys.stdlib_module_names - NOT_EVERYWHERE) | RUNTIMES[kind] | own
        assert all((folder / f"{name}.py").is_file() for name in beside)
