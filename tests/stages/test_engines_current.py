"""What a manifest proves current is left alone; for everything else the reason is said, and it alone is made again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.contract import Bundle, BundleEngine, CompileError, EngineSettings, Manifest, Spec
from slipway.contract.engine import plan_name
from slipway.contract.evidence.origin import versions as versions_of
from slipway.contract.preprocess import PIXEL_LIBRARIES
from slipway.engines import compare
from slipway.engines.current import Compiler, installed, stale, stale_graph
from slipway.engines.graph import Graph, served_graph
from slipway.engines.predictions_csv import PREDICTIONS
from slipway.engines.tensorrt_library import compute_capability
from slipway.system.files import sha256_bytes, sha256_file
from tests.support.cards import H100
from tests.support.colours import COLOURS, copy_colours

OPENVINO, DALI, NVIMGCODEC, RESIZER = (
    metadata.version(name) for name in ("openvino", "nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13", "cykooz-resizer")
)
PIXELS = versions_of(PIXEL_LIBRARIES["cpu"])
HERE = Compiler("openvino", OPENVINO)
TENSORRT = Compiler("tensorrt", "10.15.0.1", H100)
LABELS = ("blue", "green", "red")
IMAGES = 300
PLAN = {
    "version": "10.15.0.1",
    "compute_capability": "9.0",
    "batch_sizes": [1, 32, 32],
    "optimization_level": 3,
    "hardware_compatibility": "none",
    "version_compatible": False,
    "single_image_profile": True,
    "card": H100,
}
TUNED = {"card": H100, "batch_size": 1, "plans": 2, "with_ms": 0.8, "without_ms": None, "version": None}
Rows = list[tuple[str, str, str]]
"""Image, truth, label."""


def answers(*, wrong: tuple[int, ...] = (), prefix: str = "image") -> Rows:
    """Every image is answered with its class, but for the `wrong` ones."""
    truths = [LABELS[index % 3] for index in range(IMAGES)]
    return [
        (f"{prefix}{index}", truth, LABELS[(index + 1) % 3] if index in wrong else truth)
        for index, truth in enumerate(truths)
    ]


def class_ids(labels: list[str]) -> np.ndarray:
    return np.array([LABELS.index(label) for label in labels], np.int64)


def write_engine(
    folder: Path, bundle: Bundle, rows: Rows, *, reference: Rows | None, versions: dict[str, str], **settings: Any
) -> None:
    """A sealed engine folder with the evidence that `build_engine` would have written for these answers."""
    folder.mkdir(parents=True)
    text = json.loads((COLOURS / "engine/engine.json").read_text()) | settings
    EngineSettings.parse(text, source="test").write(folder / "engine.json")
    shutil.copyfile(bundle.path / "decision.json", folder / "decision.json")
    if text["plan"] is None:
        (folder / "model.onnx").write_bytes(served_graph(bundle.path / "model.onnx", bundle.preprocess))
    else:
        (folder / plan_name(text["plan"]["compute_capability"])).write_bytes(b"no plan")
    lines = [",".join((*row, "1.0")) for row in rows]
    (folder / PREDICTIONS).write_text("\n".join(["image,truth,label,score", *lines]) + "\n")
    gate: dict[str, Any] = {"verdict": "reference"}
    if reference is not None:
        truth_n, after_n = (class_ids([row[column] for row in rows]) for column in (1, 2))
        before_n = class_ids([row[2] for row in reference])
        gate = compare(truth_n, before_n, after_n, LABELS, bundle.spec.accuracy).plain()
    inputs = {"bundle": sha256_file(bundle.path / "manifest.json")}
    Manifest.seal(
        folder,
        kind="engine",
        name="colours",
        bundle=bundle.id,
        inputs=inputs,
        versions_before=versions,
        measured={"gate": gate},
    )


class Chain:
    """A bundle, its reference, and one engine that the gate compared with it; all of them current."""

    def __init__(self, folder: Path) -> None:
        self.bundle = copy_colours(folder / "colours", spec={"accuracy": {"prove_classes": False}}).bundle
        self.engines, versions = folder / "engines", {"openvino": OPENVINO, **PIXELS}
        write_engine(self.engines / "openvino-fp32", self.bundle, answers(), reference=None, versions=versions)
        self.precision: Any = "bf16"
        self.compiler = HERE
        self.graph = Graph.open(self.bundle, folder / "graphs", "bf16")
        self.folder = self.engines / "openvino-bf16"
        settings = {"precision": "bf16", "arithmetic": "bf16"}
        write_engine(self.folder, self.bundle, answers(wrong=(7,)), reference=answers(), versions=versions, **settings)

    def with_plan(self, **plan: Any) -> "Chain":
        self.precision, self.compiler, self.folder = "int8", TENSORRT, self.engines / "tensorrt-int8-sm90"
        settings = {"target": "tensorrt", "precision": "int8", "arithmetic": "typed", "plan": PLAN | plan}
        settings["decoder"], versions = "mixed", {"nvidia-dali-cuda130": DALI}
        write_engine(self.folder, self.bundle, answers(), reference=answers(), versions=versions, **settings)
        return self

    def why(self) -> str | None:
        reference = BundleEngine.open(self.engines / "openvino-fp32", bundle=self.bundle)
        compiler = self.compiler
        return stale(
            self.folder, self.bundle, self.graph, precision=self.precision, compiler=compiler, reference=reference
        )

    def change_spec(self, **keys: dict[str, Any]) -> None:
        """As if the bundle had this spec, without writing it again: only the named key is different."""
        text = self.bundle.spec.model_dump(mode="json")
        changed = {name: text[name] | values for name, values in keys.items()}
        self.bundle = replace(self.bundle, spec=Spec.parse(text | changed, source="test"))


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def reseal(folder: Path, **changes: Any) -> None:
    manifest = Manifest.read(folder / "manifest.json")
    manifest.model_copy(update=changes).write(folder / "manifest.json")


def test_what_nothing_has_changed_for_is_current(chain: Chain) -> None:
    assert chain.why() is None
    reference = chain.engines / "openvino-fp32"
    graph = replace(chain.graph)
    assert stale(reference, chain.bundle, graph, precision="fp32", compiler=HERE, reference=None) is None
    assert chain.with_plan().why() is None


def other_answers(chain: Chain, rows: Rows) -> None:
    shutil.rmtree(chain.engines / "openvino-fp32")
    write_engine(chain.engines / "openvino-fp32", chain.bundle, rows, reference=None, versions={})


def older_decoder(chain: Chain) -> None:
    reseal(chain.folder, versions={"openvino": OPENVINO, **PIXELS, "nvidia-nvimgcodec-cu13": "0.8.0"})


def older_dali(chain: Chain) -> None:
    reseal(chain.with_plan().folder, versions={"nvidia-dali-cuda130": "2.3.0"})


def pixels_of_dali(chain: Chain) -> None:
    reseal(chain.folder, versions={"openvino": OPENVINO, "nvidia-dali-cuda130": DALI})


def killed(chain: Chain) -> None:
    chain.folder.rename(chain.folder.with_name(f".{chain.folder.name}.k1ll3d"))


def written_again(chain: Chain) -> None:
    reseal(chain.bundle.path, created="2026-11-22T00:00:00+00:00")
    chain.bundle = Bundle.open(chain.bundle.path)


def set_compiler(compiler: Compiler) -> Callable[[Chain], None]:
    return lambda chain: setattr(chain, "compiler", compiler)


def damaged(chain: Chain) -> None:
    (chain.folder / PREDICTIONS).write_text("")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda chain: shutil.rmtree(chain.folder), "not there"),
        (killed, "interrupted"),
        (damaged, "predictions.csv: changed since this engine was made"),
        (set_compiler(Compiler("openvino", "2027.1.0")), f"OpenVINO {OPENVINO} → 2027.1.0"),
        (lambda chain: reseal(chain.folder, versions={}), f"OpenVINO not recorded → {OPENVINO}"),
        (older_decoder, f"nvidia-nvimgcodec-cu13 0.8.0 → {NVIMGCODEC}"),
        (older_dali, f"nvidia-dali-cuda130 2.3.0 → {DALI}"),
        (pixels_of_dali, f"cykooz-resizer not recorded → {RESIZER}"),
        (
            lambda chain: setattr(chain, "graph", replace(chain.graph, served=b"another")),
            f"graph changed (7f09d3d262c8 → {sha256_bytes(b'another'):.12})",
        ),
        (lambda chain: setattr(chain, "precision", "fp32"), "the folder holds openvino-bf16"),
        (lambda chain: reseal(chain.folder, measured={}), "no gate evidence"),
        (lambda chain: reseal(chain.folder, measured={"gate": {"verdict": "pass"}}), "no gate evidence"),
        (lambda chain: other_answers(chain, answers(wrong=(8,))), "openvino-fp32 answers differently than when"),
        (lambda chain: other_answers(chain, answers(prefix="other")), "openvino-fp32 was evaluated on other images"),
        (lambda chain: chain.change_spec(accuracy={"max_loss_points": 9.0}), "spec.accuracy.max_loss_points 0.5 → 9.0"),
        (lambda chain: chain.change_spec(accuracy={"prove_classes": True}), "spec.accuracy.prove_classes False → True"),
        (lambda chain: chain.change_spec(accuracy={"max_flip_points": 9.0}), "spec.accuracy.max_flip_points 5.0 → 9.0"),
        (
            lambda chain: chain.change_spec(accuracy={"max_class_loss_points": 3.0}),
            "max_class_loss_points {2.0} → {3.0}",
        ),
        (written_again, "the bundle was written again since"),
    ],
)
def test_whatever_its_manifest_does_not_prove_makes_an_engine_stale_and_is_said(
    chain: Chain, change: Callable[[Chain], object], says: str
) -> None:
    change(chain)
    assert says in str(chain.why())


def test_answers_of_the_reference_that_leave_the_gate_as_it_was_leave_the_engine_current(chain: Chain) -> None:
    other_answers(chain, [(*row[:2], row[2]) for row in answers()])
    assert chain.why() is None


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"version": "10.13.3.9"}, "TensorRT 10.13.3.9 → 10.15.0.1"),
        ({"optimization_level": 5}, "spec.tensorrt.optimization_level 5 → 3"),
        ({"hardware_compatibility": "ampere_plus"}, "spec.tensorrt.hardware_compatibility ampere_plus → none"),
        ({"version_compatible": True}, "spec.tensorrt.version_compatible True → False"),
        ({"batch_sizes": [1, 4, 4]}, "batch sizes (1, 4, 4) → (1, 32, 32)"),
        ({"compute_capability": "8.9"}, "compute capability 8.9 → 9.0"),
        ({"single_image_profile": False}, "the second optimisation profile, for single images"),
        ({"nvimgcodec": "0.1.0"}, f"nvImageCodec 0.1.0 is needed, and {NVIMGCODEC} is installed here"),
        (
            {"card": H100.model_copy(update={"name": "NVIDIA H100 NVL", "multiprocessors": 114})},
            "NVIDIA H100 NVL (compute capability 9.0, 114 multiprocessors, 79 GiB) → "
            "NVIDIA H100 (compute capability 9.0, 132 multiprocessors, 79 GiB)",
        ),
    ],
)
def test_a_plan_is_tied_to_its_compiler_its_gpu_and_its_flags(chain: Chain, plan: dict[str, Any], says: str) -> None:
    assert chain.with_plan(**plan).why() == says


def test_a_gpu_that_no_plan_was_built_on_is_named_with_what_there_is(chain: Chain) -> None:
    chain.with_plan().folder.rename(chain.engines / "tensorrt-int8-sm89")
    assert chain.why() == "compute capability 9.0 missing (there is tensorrt-int8-sm89)"


def write_graph(folder: Path, bundle: Bundle, **measured: Any) -> Path:
    folder.mkdir()
    shutil.copyfile(bundle.path / "model.onnx", folder / "model.onnx")
    Manifest.seal(
        folder,
        kind="graph",
        name="colours",
        bundle=bundle.id,
        inputs={"bundle": sha256_file(bundle.path / "manifest.json")},
        libraries=("nvidia-modelopt", *PIXEL_LIBRARIES["cpu"]),
        measured={"precision": "int8", "calibration_method": "entropy"} | measured,
    )
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (Path, None),
        (shutil.rmtree, "not there"),
        (lambda folder: (folder / "model.onnx").write_bytes(b""), "model.onnx: changed since this graph was made"),
        (lambda folder: reseal(folder, bundle="1" * 64), "made from bundle 111111111111, now"),
        (lambda folder: reseal(folder, measured={}), "precision not recorded → int8"),
        (
            lambda folder: reseal(folder, measured={"precision": "int8", "calibration_method": "max"}),
            "calibration.method max → entropy",
        ),
        (
            lambda folder: reseal(
                folder, measured={"precision": "int8", "calibration_method": "entropy", "autotune": TUNED}
            ),
            "made with --autotune",
        ),
        (lambda folder: reseal(folder, versions={"nvidia-modelopt": "0.40.0"}), "nvidia-modelopt 0.40.0 → "),
        (lambda folder: reseal(folder, inputs={}), "the bundle was written again"),
    ],
)
def test_a_graph_is_current_by_its_manifest_alone(
    tmp_path: Path, change: Callable[[Path], object], says: str | None
) -> None:
    bundle = copy_colours(tmp_path / "colours").bundle
    folder = write_graph(tmp_path / "int8", bundle)
    change(folder)
    reason = stale_graph(folder, bundle=bundle, precision="int8")
    assert reason is None if says is None else says in str(reason)


def test_the_compilers_of_this_machine_are_named_or_missed() -> None:
    assert str(installed("openvino")) == f"OpenVINO {OPENVINO}"
    if compute_capability() is None:
        with pytest.raises(CompileError, match="needs an NVIDIA GPU"):
            installed("tensorrt")
