"""The gpu lane of a base and its heads: steps and tensors, several GPUs, what is refused, and what lane.json says."""

from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from slipway.contract import Fleet, Lane, Manifest, RepositoryError
from slipway.lint import lint, notes
from slipway.repository import assemble, open_bases, plan_repository
from slipway.repository import heads as heads_of_a_base
from slipway.system.files import sha256_file
from tests.support.cards import H100
from tests.support.colours import configs
from tests.support.gpu_bases import PROVIDER, base_fallback, base_plan, gpu_heads, head_form
from tests.support.gpu_lanes import KINDS
from tests.support.heads import write_base, write_heads

PUBLIC = {"LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE"}


def made(folder: Path, *capabilities: str, heads: int = 3, provider: str | None = None, **plan: Any) -> Any:
    """A run of a base with stand-ins for its plans, and its heads with a form for each."""
    run = write_base(folder / "base")
    runs = write_heads(folder / "heads", run, heads)
    for capability in capabilities:
        engine = base_plan(run, capability=capability, plan={"card": H100, **plan})
        for head in runs:
            head_form(head, engine, provider=provider)
    return run, runs


def step_names(config: Any) -> list[str]:
    return [step.model_name.rpartition("_")[0] for step in config.ensemble_scheduling.step]


@pytest.mark.parametrize("decode", list(KINDS))
def test_the_lane_s_decoder_and_a_plan_come_before_the_group(decode: str, tmp_path: Path) -> None:
    run, runs = made(tmp_path, "9.0")
    assemble([], tmp_path / "out", bases=gpu_heads(run, runs, decode=decode, max_batch_size=16), lane="gpu")
    found = configs(tmp_path / "out")
    steps = [*KINDS[decode][:-1], "heads"]
    assert step_names(found["h0000"]) == step_names(found["h0001_full"]) == steps
    assert {config.max_batch_size for config in found.values()} == {16}
    (engine,) = (config for name, config in found.items() if name.startswith("engine_"))
    assert engine.platform == "tensorrt_plan"
    assert dict(engine.cc_model_filenames) == {"9.0": "model_sm90.plan"}
    assert engine.optimization.cuda.graphs
    assert [tensor.name for tensor in engine.output] == ["embedding_nd"]
    assert lint(tmp_path / "out") == []


def test_every_public_tensor_comes_from_the_group_and_none_is_taken_by_a_step(tmp_path: Path) -> None:
    run, runs = made(tmp_path, "9.0")
    assemble([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu")
    found = configs(tmp_path / "out")
    for name, public in (("h0001", PUBLIC), ("h0001_full", PUBLIC | {"PROBABILITY", "EMBEDDING"})):
        *before, group = found[name].ensemble_scheduling.step
        assert {tensor.name for tensor in found[name].output} == public == set(group.output_map.values())
        assert dict(group.input_map) == {"embedding_nd": "embedding_nd", "image_status": "image_status"}
        assert not public & {
            tensor for step in before for tensor in (*step.input_map.values(), *step.output_map.values())
        }
    (group,) = (config for name, config in found.items() if name.startswith("heads_"))
    assert group.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert not group.model_warmup, "it would ask for every head, and one that is left out would stop the others"


def test_several_heads_share_one_forward_and_their_groups_run_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads_of_a_base, "GROUP", 2)
    run, runs = made(tmp_path, "9.0", heads=8)
    names = [head.name for head in runs]
    assemble([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu", multi={"all": names})
    config = configs(tmp_path / "out")["all"]
    kinds = step_names(config)
    assert kinds[:2] == ["preprocess", "engine"]
    assert kinds.count("heads") == len(kinds) - 2 >= 2
    made_before: set[str] = set()
    for step in config.ensemble_scheduling.step[2:]:
        assert not made_before or set(step.input_map.values()) & made_before, "it waits for the group before"
        made_before = set(step.output_map.values())
    assert lint(tmp_path / "out") == []


def test_one_graph_has_a_plan_for_each_gpu_and_each_head_a_form(tmp_path: Path) -> None:
    run, runs = made(tmp_path, "9.0", "8.9", heads=2)
    heads = gpu_heads(run, runs)
    assert [engine.path.name for engine in heads[0].base.engines] == ["tensorrt-fp32-sm89", "tensorrt-fp32-sm90"]
    assemble([], tmp_path / "out", bases=heads, lane="gpu")
    (engine,) = (config for name, config in configs(tmp_path / "out").items() if name.startswith("engine_"))
    assert dict(engine.cc_model_filenames) == {"8.9": "model_sm89.plan", "9.0": "model_sm90.plan"}
    inputs = Manifest.open(tmp_path / "out", kind="repository").inputs
    plan = run / "engines/tensorrt-fp32-sm89/manifest.json"
    assert inputs["h0000/base_engine_sm89"] == sha256_file(plan)
    assert {"h0000/engine_sm89", "h0000/engine_sm90", "h0000/base", "h0000/base_engine_sm90"} <= inputs.keys()
    lane = Lane.read(tmp_path / "out/lane.json")
    assert lane.bases["tiny"].engines == ("tensorrt-fp32-sm89", "tensorrt-fp32-sm90")


@pytest.mark.parametrize(("provider", "named"), [(None, ()), (PROVIDER, ("h0000", "h0001", "h0002"))])
def test_heads_whose_plan_was_not_at_hand_are_counted(
    provider: str | None, named: tuple[str, ...], tmp_path: Path
) -> None:
    run, runs = made(tmp_path, "9.0", provider=provider)
    assemble([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu")
    assert Lane.read(tmp_path / "out/lane.json").bases["tiny"].stand_ins == named
    said = ["base tiny: 3 of 3 heads were fitted on a CPU to the typed graph of the plan, and not to the plan"]
    noted = [note for note in notes(tmp_path / "out") if note.startswith("base ")]
    assert noted == (said if named else [])


def test_groups_that_are_taken_over_are_described_as_before(tmp_path: Path) -> None:
    run, runs = made(tmp_path, "9.0", "8.9", provider=PROVIDER)
    first = assemble([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu")
    again = plan_repository([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu")
    assert again.changes_nothing
    assert again.lane == first


def test_a_fleet_file_of_the_gpu_lane_has_bases_and_their_options(tmp_path: Path) -> None:
    made(tmp_path, "9.0")
    text = {
        "lane": "gpu",
        "serving": {"gpu": {"decode": "native"}},
        "bases": {"tiny": {"base": "base", "heads": "heads/*", "serving": {"gpu": {"gpus": [1]}}}},
    }
    heads = open_bases(Fleet.parse(text, source="test"), root=tmp_path)
    assemble([], tmp_path / "out", bases=heads, lane="gpu")
    found = configs(tmp_path / "out")
    assert step_names(found["h0000"]) == ["guard", "decode", "engine", "heads"]
    assert {tuple(c.instance_group[0].gpus) for n, c in found.items() if n.startswith(("engine_", "heads_"))} == {(1,)}
    assert Lane.read(tmp_path / "out/lane.json").gpus == (1,)


def test_without_a_plan_onnx_runtime_serves_the_graph_of_a_base_if_that_was_decided(tmp_path: Path) -> None:
    run, runs = made(tmp_path)
    engine = base_fallback(run)
    for head in runs:
        head_form(head, engine)
    with pytest.raises(RepositoryError, match=r"no TensorRT plan of fp32 .* set serving\.gpu\.fallback: onnxruntime"):
        gpu_heads(run, runs)
    assemble([], tmp_path / "out", bases=gpu_heads(run, runs, fallback="onnxruntime"), lane="gpu")
    (step,) = (config for name, config in configs(tmp_path / "out").items() if name.startswith("engine_"))
    assert step.backend == "onnxruntime"
    lane = Lane.read(tmp_path / "out/lane.json")
    assert lane.fallback == dict.fromkeys(("h0000", "h0001", "h0002"), "onnxruntime-fp32")
    (note,) = notes(tmp_path / "out")
    assert note.startswith("base tiny: no TensorRT plan;"), "a line for a thousand heads"
    assert lint(tmp_path / "out") == []


def test_a_base_without_a_plan_or_a_choice_names_the_command(tmp_path: Path) -> None:
    run, _ = made(tmp_path)
    with pytest.raises(RepositoryError, match=r"no TensorRT plan of fp32 to serve: .*slipway container compile .*base"):
        gpu_heads(run, [])
    base_plan(run, choose=False)
    with pytest.raises(RepositoryError, match=r"no choice-sm90\.json.*slipway choose .*base/base .*--target tensorrt"):
        gpu_heads(run, [])


def test_a_head_without_a_form_for_the_plan_or_with_that_of_another_is_refused(tmp_path: Path) -> None:
    run, runs = made(tmp_path)
    plan = base_plan(run)
    with pytest.raises(RepositoryError, match="sm90: tiny is served by this engine, and the head has no form"):
        assemble([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu")
    for head in runs:
        head_form(head, plan, base_engine_sha256="0" * 64)
    with pytest.raises(RepositoryError, match=r"fitted to other embeddings than those of .*tensorrt-fp32-sm90; fit it"):
        assemble([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"batch_sizes": (1, 8, 8)}, "takes batches of 1 to 8 images, but the spec serves 1 to 32"),
        ({"version": "10.9.0.34"}, "plans of several TensorRT versions"),
    ],
)
def test_plans_of_a_base_are_checked_as_those_of_a_classifier(plan: dict[str, Any], said: str, tmp_path: Path) -> None:
    run, runs = made(tmp_path, "8.9")
    engine = base_plan(run, plan=plan)
    for head in runs:
        head_form(head, engine)
    with pytest.raises(RepositoryError, match=said):
        assemble([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu")


def test_a_form_that_was_decoded_on_a_cpu_without_saying_so_is_refused(tmp_path: Path) -> None:
    run, runs = made(tmp_path)
    plan = base_plan(run)
    for head in runs:
        head_form(head, plan, decoder="cpu")
    with pytest.raises(RepositoryError, match="evaluated with decoder cpu, but the gpu lane decodes with mixed"):
        assemble([], tmp_path / "out", bases=gpu_heads(run, runs), lane="gpu")
