"""Makes a full-size INT8 classifier with random weights: its cost is real, its answers are not."""

from pathlib import Path

from slipway.contract import (
    Bundle,
    BundleEngine,
    Decision,
    EngineSettings,
    Manifest,
    Preprocess,
    Spec,
    bundle_id,
    write_labels,
)
from slipway.contract.bundle import CalibrationImage, CalibrationList
from slipway.repository import Classifier
from slipway.system.files import sha256_bytes, sha256_file

CALIBRATION_IMAGES = 32
"""Number of calibration images. It moves the ranges, and not the speed."""
SIDE_PX = 224


def random_classifier(backbone: str, folder: Path, *, images: int) -> Path:
    """Write `bundle/`, `engine/`, and `images/` with that many JPEGs of 512 pixels; for `run_in_child`.

    The engine was judged by no gate, since random weights have no accuracy to lose.
    """
    from benchmarks.studies.backbones.compiled import CLASSES, Sample, crops, int8, preprocess_all, random_network
    from slipway.engines.graph import served_graph
    from slipway.training.bundle.export import write_onnx

    encoded = crops(CALIBRATION_IMAGES + images)
    (folder / "images").mkdir(parents=True)
    for number, image in enumerate(encoded[CALIBRATION_IMAGES:]):
        (folder / "images" / f"{number:04d}.jpg").write_bytes(image)
    preprocess = Preprocess(input_height=SIDE_PX, input_width=SIDE_PX)
    pixels_nchw = preprocess_all(encoded[:CALIBRATION_IMAGES], preprocess)
    network = random_network(backbone, SIDE_PX, pixels_nchw[:16])
    (folder / "bundle").mkdir()
    write_onnx(network, folder / "bundle/model.onnx", input_shape=(3, SIDE_PX, SIDE_PX))
    spec = Spec.parse(
        {
            "name": backbone,
            "data": {"root": "images"},
            "preprocess": preprocess.model_dump(),
            "backbone": {"name": backbone, "pretrained": False},
        },
        source=backbone,
    )
    write_bundle(folder / "bundle", spec, encoded[:CALIBRATION_IMAGES], classes=CLASSES)
    (folder / "engine").mkdir()
    typed = folder / "int8.onnx"
    int8(folder / "bundle/model.onnx", typed, Sample(pixels_nchw))
    (folder / "engine/model.onnx").write_bytes(served_graph(typed, preprocess))
    write_engine(folder, spec, classes=CLASSES)
    return folder


def write_bundle(bundle: Path, spec: Spec, calibration: list[bytes], *, classes: int) -> None:
    """Write all files but the graph, which is already in the folder."""
    spec.write(bundle / "spec.json")
    spec.preprocess.write(bundle / "preprocess.json")
    decision(spec).write(bundle / "decision.json")
    write_labels([f"class {number}" for number in range(classes)], bundle / "labels.txt")
    (bundle / "calibration").mkdir()
    listed = []
    for number, image in enumerate(calibration):
        listed.append(CalibrationImage(file=f"{number:05d}.jpg", class_id=0, sha256=sha256_bytes(image)))
        (bundle / "calibration" / listed[-1].file).write_bytes(image)
    CalibrationList(images=tuple(listed)).write(bundle / "calibration.json")
    Manifest.seal(bundle, kind="bundle", name=spec.name, bundle=bundle_id(bundle))


def write_engine(folder: Path, spec: Spec, *, classes: int) -> None:
    """Write all files but the graph, which is already in the folder."""
    from slipway.onnx_graph import SERVED_INPUT, output_sizes

    engine = folder / "engine"
    decision(spec).write(engine / "decision.json")
    EngineSettings(
        target="openvino",
        precision="int8",
        arithmetic="f32",
        classes=classes,
        embedding_size=output_sizes(engine / "model.onnx")["embedding_nd"],
        input=SERVED_INPUT,
        graph_sha256=sha256_file(engine / "model.onnx"),
        calibration_sha256=sha256_file(folder / "bundle/calibration.json"),
    ).write(engine / "engine.json")
    Manifest.seal(engine, kind="engine", name=spec.name, bundle=bundle_id(folder / "bundle"))


def decision(spec: Spec) -> Decision:
    return Decision(task=spec.task, top_k=spec.decision.top_k)


def open_classifier(folder: Path) -> Classifier:
    bundle = Bundle.open(folder / "bundle")
    return Classifier(bundle, BundleEngine.open(folder / "engine", bundle=bundle))
