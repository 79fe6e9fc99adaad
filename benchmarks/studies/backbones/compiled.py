"""Makes one row of the *compiled* table: a full-size backbone with random weights through every compiler."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slipway.contract import Preprocess, SlipwayError
from slipway.contract.spec import Backbone, TensorRT
from slipway.engines import graph_checks
from slipway.engines.choose import interleave
from slipway.engines.graph import served_graph
from slipway.engines.modelopt import to_fp16, with_qdq
from slipway.engines.quantize import open_source
from slipway.engines.tensorrt import build_plan
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.onnx_graph import save
from slipway.steps.engine_openvino import Engine
from slipway.steps.normalize import Float, Pixels, normalize
from slipway.steps.preprocess import Preprocessor
from slipway.training.bundle.export import write_onnx
from slipway.training.learn.network import Network

CLASSES, SEED, MAX_BATCH = 1000, 0, 8
TIMED_IMAGES = 8
ENGINES = {"fp32": ("fp32", "f32"), "bf16": ("fp32", "bf16"), "int8": ("int8", "f32")}
"""OpenVINO: precision to graph and arithmetic."""


def compiled_row(name: str, side: int, folder: Path, cells: dict[str, Any], *, rounds: int, images: int) -> None:
    """Fill `cells` step by step, so that earlier cells remain if a later step fails.

    `images` calibrate INT8, and twice as many are compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = Preprocess(input_height=side, input_width=side)
    encoded = crops(3 * images)
    pixels_nhwc_u8 = pixels_of(encoded, preprocess)
    calibration, compared = normalize(pixels_nhwc_u8[:images], preprocess.model_dump()), pixels_nhwc_u8[images:]
    network = random_network(name, side, calibration[:16])
    cells["input"] = side
    cells["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    cells["gflops"] = multiply_adds(network, side) / 1e9
    graphs = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    write_onnx(network, graphs["fp32"], input_shape=(3, side, side))
    del network
    cells["calibration_images"] = images
    cells["fp16"] = reasoned(lambda: fp16(graphs["fp32"], graphs["fp16"], Sample(calibration)))
    cells["int8"] = reasoned(lambda: int8(graphs["fp32"], graphs["int8"], Sample(calibration)))
    for precision, graph in graphs.items():
        cells[f"plan_{precision}"] = reasoned(partial(plan, graph, preprocess))
    runners = {}
    for precision, (source, arithmetic) in ENGINES.items():
        if graphs[source].is_file() and (arithmetic != "bf16" or has_bf16()):
            runners[precision] = served(graphs[source], preprocess, arithmetic=arithmetic)
    cells["openvino"] = compare_outputs(runners, compared)
    if graphs["fp16"].is_file():
        typed = {"fp32": runners["fp32"], "fp16": served(graphs["fp16"], preprocess, arithmetic="f32")}
        cells["openvino"] |= compare_outputs(typed, compared)
    cells["speed"], cells["chosen"] = speeds(runners, encoded[:TIMED_IMAGES], preprocess, rounds=rounds)


def has_bf16() -> bool:
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def reasoned(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `make` measured, or the reason why it failed."""
    try:
        return make()
    except SlipwayError as error:
        return {"reason": str(error)}


class Sample(CalibrationSample):
    """Pixels in memory, without a bundle."""

    def __init__(self, pixels_nchw: Float) -> None:
        self._pixels_nchw = pixels_nchw

    def __len__(self) -> int:
        return len(self._pixels_nchw)

    def pixels(self, *, images: int | None = None, what: str = "") -> Iterator[Float]:  # noqa: ARG002
        return (self._pixels_nchw[row : row + 1] for row in range(min(images or len(self), len(self))))


def fp16(source: Path, out: Path, sample: Sample) -> dict[str, Any]:
    graph = to_fp16(open_source(source), sample)
    save(graph, out)
    return {"nodes_kept_fp32": len(graph_checks.kept_in_fp32(graph)), "nodes": len(graph.graph.node)}


def int8(source: Path, out: Path, sample: Sample) -> dict[str, Any]:
    before = open_source(source)
    graph = with_qdq(before, sample, "int8", method="entropy")
    reasons = graph_checks.check_quantised(before, graph, "int8", pixels_nchw=next(sample.pixels()))
    save(graph, out)
    quantised, layers = graph_checks.quantised_layers(graph, "int8"), graph_checks.layers(graph)
    return {"int8_layers": len(quantised), "layers": len(layers), "not_quantised": reasons}


def served(graph: Path, preprocess: Preprocess, *, arithmetic: str) -> Engine:
    """Return the engine of `graph` as it is served, behind its normalisation."""
    file = graph.with_suffix(".served.onnx")
    file.write_bytes(served_graph(graph, preprocess))
    return Engine(file, arithmetic=arithmetic, threads=1)


def plan(graph: Path, preprocess: Preprocess) -> dict[str, Any]:
    if not graph.is_file():
        return {"reason": "no graph"}
    built = build_plan(
        graph, preprocess=preprocess, target="tensorrt_rtx", max_batch_size=MAX_BATCH, options=TensorRT()
    )
    return {"bytes": len(built.data), "seconds": built.seconds}


def crops(count: int) -> list[bytes]:
    """Return JPEGs of 512x512: seeded random crops of scikit-learn's two photographs."""
    rng = np.random.default_rng(SEED)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    encoded = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        size = int(rng.integers(150, min(photograph.size) + 1))
        left, top = (int(rng.integers(0, edge - size + 1)) for edge in photograph.size)
        crop = photograph.crop((left, top, left + size, top + size)).resize((512, 512))
        file = io.BytesIO()
        crop.save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    return encoded


def preprocess_all(encoded: list[bytes], preprocess: Preprocess) -> Float:
    return normalize(pixels_of(encoded, preprocess), preprocess.model_dump())


def pixels_of(encoded: list[bytes], preprocess: Preprocess) -> Pixels:
    preprocessor = Preprocessor(preprocess.model_dump(), max_batch_size=8, threads=1)
    batches = [preprocessor.run(encoded[first : first + 8])[0].copy() for first in range(0, len(encoded), 8)]
    return np.concatenate(batches)


def random_network(name: str, side: int, pixels_nchw: Float) -> Network:
    """Make a network with seeded random weights. Its batch norms see real images once, since signals die out with their
    initial statistics."""
    torch.manual_seed(SEED)
    backbone = Backbone(name=name, pretrained=False)
    network = Network(backbone, classes=CLASSES, pretrained=False, input_size=(side, side))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.inference_mode():
        network.train()(torch.from_numpy(pixels_nchw))
    return network.eval()


def multiply_adds(network: Network, side: int) -> float:
    """Count the multiply-adds for one image; papers call the figure FLOPs."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, side, side))
    return float(counter.get_total_flops()) / 2


def compare_outputs(runners: dict[str, Engine], pixels_nhwc_u8: Pixels) -> dict[str, Any]:
    """Compare with FP32: the mean cosine similarity of the centred logits, and the share of equal best classes."""
    logits = {name: np.concatenate(list(run_all(runner, pixels_nhwc_u8))) for name, runner in runners.items()}
    reference = logits["fp32"] - logits["fp32"].mean(axis=0)
    result = {}
    for name, values in logits.items():
        if name == "fp32":
            continue
        centred = values - logits["fp32"].mean(axis=0)
        norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(centred, axis=1)
        result[name] = {
            "cosine": float(((reference * centred).sum(axis=1) / norms).mean()),
            "agreement": float((values.argmax(axis=1) == logits["fp32"].argmax(axis=1)).mean()),
        }
    return result


def run_all(runner: Engine, pixels_nhwc_u8: Pixels) -> Iterator[Float]:
    for first in range(0, len(pixels_nhwc_u8), MAX_BATCH):
        yield runner.run(pixels_nhwc_u8[first : first + MAX_BATCH])[0].copy()


def speeds(
    runners: dict[str, Engine], encoded: list[bytes], preprocess: Preprocess, *, rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time decode to logits, one image at a time, interleaved; then time the fastest against FP32 once more, alone.

    Quote the second run, since picking the best of several noisy numbers flatters it.
    """
    preprocessor = Preprocessor(preprocess.model_dump(), max_batch_size=1, threads=1)

    def pipeline(runner: Engine) -> Callable[[bytes], None]:
        return lambda image: void(runner.run(preprocessor.run([image])[0]))

    first = summarise(interleave({name: pipeline(r) for name, r in runners.items()}, encoded, rounds=rounds))
    fastest = min(first, key=lambda name: first[name]["median_ms"])
    if fastest == "fp32":
        return first, {"precision": "fp32", "speed_to_fp32": 1.0}
    pair = {name: pipeline(runners[name]) for name in ("fp32", fastest)}
    again = summarise(interleave(pair, encoded, rounds=rounds))
    return first, {"precision": fastest, **again[fastest]}


def void(_: object) -> None:
    return None


def summarise(times_ms: dict[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    result = {}
    for name, values in times_ms.items():
        low, middle, high = np.percentile(times_ms["fp32"] / values, [10, 50, 90]).tolist()
        result[name] = {
            "median_ms": float(np.median(values)),
            "speed_to_fp32": middle,
            "speed_low": low,
            "speed_high": high,
        }
    return result
