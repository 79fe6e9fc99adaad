"""Makes the tiny fixed bundle and engine of tests/assets/colours: an image filled with a colour gets its name.

Run once; the result is in git and stays as it is: `.venv/bin/python tests/assets/make_colours.py`.
"""

import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from slipway.contract import Decision, EngineSettings, Manifest, Spec, bundle_id, write_labels
from slipway.contract.bundle import CalibrationImage, CalibrationList
from slipway.engines.graph import served_graph
from slipway.onnx_graph import SERVED_INPUT
from slipway.system.files import complete_folder, sha256_bytes, sha256_file

LABELS = ("blue", "green", "red")
SPEC = {
    "name": "colours",
    "data": {"root": "tests/assets/colours"},
    "preprocess": {"input_height": 32, "input_width": 32, "resize": "pad", "mean": [0, 0, 0], "std": [1, 1, 1]},
    "backbone": {"name": "by-hand", "pretrained": False},
    "decision": {"top_k": 2, "unknown_threshold": 0.5},
    "calibration": {"images": 6},
    "precisions": ["fp32"],
    "serving": {"layout": "steps", "max_batch_size": 8, "instances": 1, "threads": 1},
}


def main() -> None:
    here = Path(__file__).parent / "colours"
    spec = Spec.parse(SPEC, source=__file__)
    decision = Decision.parse({"task": "multiclass", "top_k": 2, "unknown": {"threshold": 0.5}}, source=__file__)
    with complete_folder(here / "bundle", kind="bundle") as bundle:
        onnx.save(graph(), bundle / "model.onnx")
        spec.write(bundle / "spec.json")
        spec.preprocess.write(bundle / "preprocess.json")
        decision.write(bundle / "decision.json")
        write_labels(LABELS, bundle / "labels.txt")
        (bundle / "calibration").mkdir()
        images = []
        for class_id, colour in enumerate(((0, 0, 200), (0, 160, 0), (220, 0, 0))):
            for size in (24, 40):
                image = io.BytesIO()
                Image.new("RGB", (size, 32), colour).save(image, "PNG")
                file = f"{LABELS[class_id]}_{size}.png"
                images.append(CalibrationImage(file=file, class_id=class_id, sha256=sha256_bytes(image.getvalue())))
                (bundle / "calibration" / file).write_bytes(image.getvalue())
        CalibrationList(images=tuple(images)).write(bundle / "calibration.json")
        Manifest.seal(bundle, kind="bundle", name=spec.name, bundle=bundle_id(bundle))
    identity = bundle_id(here / "bundle")
    with complete_folder(here / "engine", kind="engine") as engine:
        (engine / "model.onnx").write_bytes(served_graph(here / "bundle/model.onnx", spec.preprocess))
        decision.write(engine / "decision.json")
        settings = {
            "target": "openvino",
            "precision": "fp32",
            "arithmetic": "f32",
            "classes": 3,
            "embedding_size": 3,
            "input": SERVED_INPUT,
            "graph_sha256": sha256_file(engine / "model.onnx"),
            "calibration_sha256": sha256_file(here / "bundle" / "calibration.json"),
        }
        EngineSettings.parse(settings, source=__file__).write(engine / "engine.json")
        Manifest.seal(
            engine,
            kind="engine",
            name=spec.name,
            bundle=identity,
            inputs={"model.onnx": sha256_file(here / "bundle" / "model.onnx")},
            measured={"gate": {"verdict": "reference"}},
        )


def graph() -> onnx.ModelProto:
    """1x1 convolution, mean over the image (the embedding, RGB in 0..1), and a linear layer to blue, green, red."""
    nodes = [
        helper.make_node("Conv", ["pixels_nchw", "mix"], ["mixed"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding_nd"]),
        helper.make_node("MatMul", ["embedding_nd", "to_logits"], ["logits_nc"]),
    ]
    weights = {
        "mix": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        "to_logits": 12 * np.eye(3, dtype=np.float32)[:, ::-1] - 4,
    }
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("logits_nc", "embedding_nd")
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "colours",
            [helper.make_tensor_value_info("pixels_nchw", TensorProto.FLOAT, ["n", 3, 32, 32])],
            outputs,
            [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    main()
