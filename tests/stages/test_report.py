"""The report of a build: equal to its files, clear about what is missing, safe with anybody's labels and names."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from slipway.contract import Bundle
from slipway.contract.evidence.gate import TOO_FEW
from slipway.evaluation.gate import compare
from slipway.report import lane_verdicts, render, todos
from slipway.repository.lane_engines import pick_engines
from tests.support.report_builds import (
    LABELS,
    LENIENT,
    Page,
    add_choice,
    add_engine,
    add_int8_graph,
    evidence,
    make_bundle,
    make_served,
    opened,
)

VALIDATION = {
    "images": 120,
    "lost": 5,
    "gained": 1,
    "loss_points": 3.333,
    "flips": 7,
    "verdict": "too few images to tell",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_served(tmp_path)


def test_the_page_shows_the_numbers_of_the_files_and_names_these(bundle: Bundle) -> None:
    page = Page(render(opened(bundle)))
    result = evidence(bundle, wrong=[3])["gate"]["overall"]
    assert "99.17%" in page.text  # 119 of 120
    assert "0.9876" in page.text
    assert f"(−{-result['loss_low_points']:.2f} to +{result['loss_high_points']:.2f})" in page.text  # noqa: RUF001
    assert "1.38 (1.25 to 1.50)" in page.text
    assert "a <processor>" in page.text
    for file in ("engines/openvino-int8/evaluation.json", "engines/choice.json", "engines/*/manifest.json"):
        assert file in page.text


def test_every_flip_stands_there_with_its_image_and_both_labels(bundle: Bundle) -> None:
    page = Page(render(opened(bundle)))
    (image,) = page.all("img")
    assert image["alt"] == "003.png"
    assert str(image["src"]).startswith("data:image/jpeg;base64,")
    assert (image["width"], image["height"]) == ("112", "75")
    assert "lost truth blue FP32 blue 0.750 here green 0.625" in page.text


def test_a_page_loads_nothing_and_runs_nothing(bundle: Bundle) -> None:
    Page(render(opened(bundle))).assert_loads_and_runs_nothing()


def test_labels_and_layers_are_text_whatever_they_say(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    bundle = make_bundle(tmp_path, labels=(evil, '"><img src=x>', "{{ 7 * 7 }}"))
    add_engine(bundle, "openvino-int8", evidence(bundle, wrong=[3, 50, 90]), layers_unknown=evil)
    ranking = [{"layer": "<b>conv</b>", "op": "Conv", "error": 0.25}]
    steps = [{"kept_fp16": ["<b>conv</b>"], "int8_layers": 1, "validation": VALIDATION, "accepted": True}]
    add_int8_graph(bundle, {"max_loss_points": 1.5, "max_steps": 6, "steps": steps, "ranking": ranking})
    page = Page(render(opened(bundle)))
    assert not page.all("script")
    assert not page.all("b")
    assert {attributes["alt"] for attributes in page.all("img")} == {"003.png", "050.png", "090.png"}
    for text in (evil, '"><img src=x>', "{{ 7 * 7 }}", "<b>conv</b>"):
        assert text in page.text


def test_equal_files_give_equal_pages(bundle: Bundle) -> None:
    assert render(opened(bundle)) == render(opened(bundle))


def test_what_is_missing_is_named_with_the_command_that_makes_it(bundle: Bundle) -> None:
    found = {todo.what: todo for todo in todos(opened(bundle))}
    folder = bundle.path.parent
    assert "lacks BF16" in found["No engine openvino-bf16"].why
    assert f"{folder}/graphs --out {folder}/engines" in found["No engine openvino-bf16"].command
    assert found["No TensorRT plan"].command.startswith(f"slipway container compile {folder}/bundle")
    assert found["No proof by TensorRT-RTX"].command.endswith("--target tensorrt_rtx")
    page = Page(render(opened(bundle)))
    assert all(what in page.text for what in found)
    assert "There is no INT8 graph in graphs." in page.text


def test_a_missing_fp8_plan_is_named_for_the_cards_that_have_fp8_alone(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, precisions=["fp8", "fp32"])
    for name in ("openvino-fp32", "tensorrt-fp32-sm86", "tensorrt-fp32-sm89"):
        add_engine(bundle, name, evidence(bundle, gated=name != "openvino-fp32"))
    missing = [todo.what for todo in todos(opened(bundle)) if "FP8" in todo.what.upper()]
    assert missing == ["No TensorRT plan of FP8 for compute capability 8.9"]


def test_a_build_without_engines_is_all_to_do(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, precisions=["int8"])
    (tmp_path / "engines").mkdir()
    build = opened(bundle)
    cpu, gpu = lane_verdicts(build)
    assert (cpu.tone, cpu.serves, gpu.serves) == ("bad", (), ())
    assert "none is built" in cpu.reason
    quantise = next(todo for todo in todos(build) if todo.what == "No engine openvino-int8")
    assert quantise.command.startswith(f"slipway quantize {bundle.path} --precision int8")
    assert "No engine has been evaluated" in Page(render(build)).text


def test_a_failed_engine_is_explained_class_by_class(tmp_path: Path) -> None:
    strict = {"max_loss_points": 0.5, "max_class_loss_points": 2.0}
    bundle = make_bundle(tmp_path, accuracy=strict)
    add_engine(bundle, "openvino-int8", evidence(bundle, wrong=range(40, 75)))
    add_engine(bundle, "openvino-bf16", evidence(bundle))
    build = opened(bundle)
    failed, few = [todo for todo in todos(build) if todo.what.startswith("openvino-")]
    assert (failed.what, failed.tone) == ("openvino-int8: fail", "bad")
    assert any(reason.startswith("Class green: fail: +87.50 points lost (35 lost") for reason in failed.reasons)
    assert few.what == "openvino-bf16: too few images to tell"
    assert "proof takes 736 images where none is lost" in few.reasons[0]
    assert "proof takes 237 images where none is lost" in few.reasons[1]
    assert lane_verdicts(build)[0].tone == "bad"


def test_the_page_shows_flips_and_a_reference_at_chance(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, accuracy=LENIENT | {"max_flip_points": 2.0})
    metrics = evidence(bundle, wrong=range(40, 50))
    add_engine(bundle, "openvino-int8", metrics)
    at_chance = {"kinds": 3, "recall_points": 33.0, "chance_points": 33.33, "proof_points": 44.5, "verdict": TOO_FEW}
    gate = evidence(bundle)["gate"] | {"verdict": TOO_FEW, "reference": at_chance}
    add_engine(bundle, "openvino-bf16", evidence(bundle) | {"gate": gate})
    reasons = {todo.what: " ".join(todo.reasons) for todo in todos(opened(bundle))}
    assert "10 of 120 answers differ from FP32's, 8.33 points" in reasons["openvino-int8: fail"]
    assert "FP32 itself is not proven better than chance" in reasons[f"openvino-bf16: {TOO_FEW}"]
    page = Page(render(opened(bundle)))
    assert "limit 2)" in page.text
    assert "openvino-bf16: FP32 itself is not proven better than chance (mean recall 33.00 points" in page.text


def test_the_images_that_a_proof_takes_are_what_the_gate_asks(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    for images, verdict in ((735, "too few images to tell"), (736, "pass")):
        nothing = np.zeros(images, np.int64)
        limits = bundle.spec.accuracy.model_copy(update={"max_loss_points": 0.5})
        assert compare(nothing, nothing, nothing, LABELS, limits).overall.verdict == verdict


def test_the_gpu_lane_serves_what_was_measured_to_be_the_fastest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, precisions=["int8", "fp16"])
    add_engine(
        bundle, "tensorrt-int8-sm90", evidence(bundle, wrong=range(100)), layer_precisions={"FP32": 1, "INT8": 3}
    )
    fp16 = add_engine(bundle, "tensorrt-fp16-sm90", evidence(bundle))
    add_engine(bundle, "tensorrt-fp32-sm90", evidence(bundle))
    add_engine(bundle, "tensorrt_rtx-int8", None, layers_unknown="this machine shows no GPU")
    gpu = lane_verdicts(opened(bundle))[1]
    assert (gpu.tone, gpu.serves) == ("warn", ())
    assert "no choice-sm90.json" in gpu.reason
    assert "to be measured: tensorrt-fp16-sm90." in gpu.reason
    assert gpu.command.endswith("--target tensorrt")
    add_choice(bundle, fp16, chosen="tensorrt-fp16-sm90")
    build = opened(bundle)
    gpu = lane_verdicts(build)[1]
    assert [engine.name for engine in gpu.serves] == ["tensorrt-fp16-sm90"]
    assert gpu.reason == "it was the fastest."
    text = Page(render(build)).text
    assert "3 INT8 (75%) , 1 FP32 (25%)" in text
    assert "Plan not read back: this machine shows no GPU" in text
    assert "TensorRT 10.12.0, compute capability 9.0" in text


def test_the_lanes_are_what_the_assembler_picks(bundle: Bundle) -> None:
    for name, wrong in (("int8-sm80", ()), ("int8-sm90", range(100)), ("fp32-sm80", ()), ("fp32-sm90", ())):
        plan = add_engine(bundle, f"tensorrt-{name}", evidence(bundle, wrong=wrong))
        if name.startswith("fp32"):
            add_choice(bundle, plan, chosen=f"tensorrt-{name}")
    cpu, gpu = lane_verdicts(opened(bundle))
    assert [engine.name for engine in gpu.serves] == ["tensorrt-fp32-sm80", "tensorrt-fp32-sm90"]
    for verdict in (cpu, gpu):
        picked = pick_engines(bundle, bundle.path.parent / "engines", lane=verdict.lane)
        assert [engine.engine.path for engine in verdict.serves] == [engine.path for engine in picked.engines]


def test_the_whole_path_of_the_search_is_shown(bundle: Bundle) -> None:
    ranking = [{"layer": f"conv{number}", "op": "Conv", "error": 0.5 / (1 + number)} for number in range(50)]
    steps = [
        {"kept_fp16": names, "int8_layers": 50 - len(names), "validation": VALIDATION, "accepted": len(names) == 2}
        for names in ([], ["conv0"], ["conv0", "conv1"])
    ]
    add_int8_graph(bundle, {"max_loss_points": 1.5, "max_steps": 6, "steps": steps, "ranking": ranking})
    text = Page(render(opened(bundle))).text
    assert "Keeping 2 of the most sensitive layers in FP16 was accepted, at step 2 of 6" in text
    assert text.count("too much") == 3  # the sentence and two steps
    assert "The worst 40 of 50 layers" in text
    assert "conv1 Conv 0.25 FP16 conv2 Conv 0.167 INT8" in text
    assert "openvino-int8 : not compiled from the graph" in text.replace("openvino-int8:", "openvino-int8 :")
    assert "/head : small" in text


def test_a_search_that_failed_is_shown_though_there_is_no_graph(bundle: Bundle) -> None:
    steps = [{"kept_fp16": [], "int8_layers": 3, "validation": VALIDATION, "accepted": False}]
    graphs = bundle.path.parent / "graphs"
    graphs.mkdir(exist_ok=True)
    left = {"max_loss_points": 1.5, "max_steps": 0, "steps": steps, "ranking": []}
    (graphs / "int8-search.json").write_text(json.dumps(left))
    text = Page(render(opened(bundle))).text
    assert "No graph was accepted within 0 steps" in text
    assert "graphs/int8-search.json" in text


def test_an_engine_of_the_same_graph_is_not_stale(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    steps = [{"kept_fp16": [], "int8_layers": 3, "validation": VALIDATION, "accepted": True}]
    graph = add_int8_graph(bundle, {"max_loss_points": 5.0, "max_steps": 6, "steps": steps})
    add_engine(bundle, "openvino-int8", evidence(bundle), inputs=graph)
    text = Page(render(opened(bundle))).text
    assert "Plain INT8 was accepted" in text
    assert "stale" not in text


def test_a_choice_of_other_engines_decides_nothing(bundle: Bundle) -> None:
    folder = bundle.path.parent / "engines/openvino-int8"
    shutil.rmtree(folder)
    add_engine(bundle, "openvino-int8", evidence(bundle, wrong=[4]))
    build = opened(bundle)
    assert build.choice is None
    cpu = lane_verdicts(build)[0]
    assert "openvino-int8 was compiled again since choice.json was measured" in cpu.reason
    assert cpu.command.startswith("slipway choose")


def test_an_engine_that_came_after_the_choice_is_to_be_measured(bundle: Bundle) -> None:
    add_engine(bundle, "openvino-bf16", evidence(bundle))
    build = opened(bundle)
    assert [engine.name for engine in lane_verdicts(build)[0].serves] == ["openvino-int8"]
    assert "openvino-bf16 was not measured" in [todo.what for todo in todos(build)]


def test_ten_thousand_classes_and_a_thousand_flips_stay_readable(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, labels=[f"class {number}" for number in range(10_000)])
    metrics = evidence(bundle, wrong=[3])
    one = metrics["gate"]["classes"]["class 0"]
    metrics["gate"]["classes"] = {
        label: one | {"loss_points": number / 200} for number, label in enumerate(bundle.labels)
    }
    metrics["flips"] *= 1000
    add_engine(bundle, "openvino-int8", metrics)
    text = render(opened(bundle))
    page = Page(text)
    assert len(text) < 1_000_000
    assert "class 9999" in page.text
    assert "class 9940" not in page.text
    assert "The worst 50 of 10,000 classes are shown; 9,950 with less loss are left out." in page.text
    assert len(page.all("img")) == 60
    assert "The first 60 are shown; 940 more are in the file." in page.text
