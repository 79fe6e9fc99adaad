"""Makes the inputs of the proofs by seed, on a machine with the full .venv."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchmarks.studies.gpu_proof.folder import CorpusFile, Described, Photograph, ProofError, write_files

if TYPE_CHECKING:
    from slipway.contract import Preprocess

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
SIDES = (48, 144)
"""Sides of the corpus's images, in pixels. Bytes are damaged, so small images serve as well, and more of them fit."""
ENCODINGS: dict[str, dict[str, int]] = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "4:2:0, progressive": {"subsampling": 2, "progressive": True},
    "4:4:4, progressive": {"subsampling": 0, "progressive": True},
}
MOBILENET = "mobilenetv3_large_100"


def write_corpus(path: Path, *, seed: int, small: bool) -> dict[str, int]:
    """Write good files of every accepted encoding, and damaged ones that the guard lets through to the decoder."""
    from benchmarks.studies.study import load_photographs, scikit_image
    from slipway.steps import guard
    from tests.support.mutations import ENCODINGS as ACCEPTED
    from tests.support.mutations import damaged, good_files

    pictures = list(load_photographs(scikit_image()).values())
    good = good_files(pictures, len(ACCEPTED) * (1 if small else 3), seed=seed, sides=SIDES)
    drawn, others = (200, 20) if small else (4000, 250)
    files = [(file.data, CorpusFile(file.encoding, damage=None)) for file in good]
    for file, kind, data in damaged(good, drawn, seed=seed + 1):
        jpeg = file.format == "JPEG"
        if guard.inspect(data) != guard.OK or (others == 0 and not jpeg):
            continue
        others -= not jpeg
        files.append((data, CorpusFile(file.encoding, damage=kind)))
    write_files(path, [data for data, _ in files], [fact for _, fact in files])
    return {"good": len(good), "damaged": len(files) - len(good)}


def write_preprocess(path: Path) -> None:
    """Write the default `preprocess.json` of 224 pixels, with the decoder of the cpu lane."""
    from slipway.contract import Preprocess

    Preprocess(input_height=224, input_width=224).write(path)


def write_photographs(path: Path, *, small: bool) -> int:
    """Write JPEGs of 512 and 1024 pixels, in each sampling of chroma."""
    from benchmarks.studies.study import load_photographs, scikit_image
    from tests.support.image_files import encode

    sides, each = ((256,), 1) if small else ((512, 1024), 4)
    pictures = [picture for picture in load_photographs(scikit_image()).values() if min(picture.size) >= 300]
    files, facts = [], []
    for side in sides:
        for encoding, options in ENCODINGS.items():
            for picture in pictures[: each if side == sides[0] or encoding == "4:2:0" else 1]:
                files.append(encode(picture.resize((side, side)), "JPEG", quality=85, **options))
                facts.append(Photograph(encoding, side))
    write_files(path, files, facts)
    return len(files)


def write_precision(inputs: Path, kept: Path, run: Path, *, small: bool) -> dict[str, Described]:
    """Write typed graphs, their input pixels, and the answers of OpenVINO on the CPU in FP32.

    Raises:
        ProofError: `run` has no bundle or graphs, or its classifier is multi-label.
    """
    described = {"digits": _digits(inputs / "digits", kept / "digits.npz", run, images=12 if small else None)}
    if not small:
        described[MOBILENET] = _mobilenet(inputs / MOBILENET, kept / f"{MOBILENET}.npz")
    return described


def _digits(folder: Path, kept: Path, run: Path, *, images: int | None) -> Described:
    from slipway.contract import Bundle, SlipwayError
    from slipway.contract.dataset import FILE_NAME, Dataset
    from slipway.contract.evidence.gpu_proof import KeptFacts
    from slipway.evaluation.predict import pixel_batches

    graphs = {name: run / "graphs" / name / "model.onnx" for name in ("fp16", "int8")}
    if missing := [str(path) for path in (run / "bundle", *graphs.values()) if not path.exists()]:
        raise ProofError(f"{', '.join(missing)}: missing; make demo writes runs/digits, or give another run with --run")
    try:
        bundle = Bundle.open(run / "bundle")
        dataset = Dataset.read(bundle.path / FILE_NAME)
        entries = dataset.of("test")[:images]
        encoded = ((entry.path, dataset.load(entry)) for entry in entries)
        pixels = pixel_batches(
            encoded, preprocess=bundle.preprocess, batch_size=8, total=len(entries), what="test split"
        )
        pixels_nhwc_u8 = np.concatenate(list(pixels))
    except SlipwayError as error:
        raise ProofError(str(error)) from None
    if bundle.spec.task != "multiclass":
        raise ProofError(
            f"{run}: task {bundle.spec.task}; the proof's gate compares one answer an image, so give another"
        )
    logits = _write(folder, {"fp32": bundle.path / "model.onnx", **graphs}, pixels_nhwc_u8, bundle.preprocess)
    kept.parent.mkdir(parents=True, exist_ok=True)
    truth_n = np.array([entry.class_id for entry in entries], np.int64)
    facts = KeptFacts(labels=tuple(bundle.labels), accuracy=bundle.spec.accuracy)
    np.savez(kept, truth_n=truth_n, facts=np.array(facts.to_json()), **logits)  # type: ignore[arg-type, unused-ignore]
    return {"weights": "trained", "bundle": bundle.id, "images": len(entries)}


def _mobilenet(folder: Path, kept: Path) -> Described:
    """Make a full-size network with random weights: it shows how FP16 computes, and nothing about accuracy."""
    import tempfile

    from benchmarks.studies.backbones import compiled
    from slipway.contract import Preprocess
    from slipway.steps.normalize import normalize
    from slipway.training.bundle.export import write_onnx

    preprocess = Preprocess(input_height=224, input_width=224)
    pixels_nhwc_u8 = compiled.pixels_of(compiled.crops(48), preprocess)
    pixels_nchw = normalize(pixels_nhwc_u8[:24], preprocess.model_dump())
    calibration, asked = compiled.Sample(pixels_nchw), pixels_nhwc_u8[24:]
    with tempfile.TemporaryDirectory() as work:
        graphs = {name: Path(work) / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}
        network = compiled.random_network(MOBILENET, 224, pixels_nchw[:16])
        write_onnx(network, graphs["fp32"], input_shape=(3, 224, 224))
        compiled.fp16(graphs["fp32"], graphs["fp16"], calibration)
        compiled.int8(graphs["fp32"], graphs["int8"], calibration)
        logits = _write(folder, graphs, asked, preprocess)
    np.savez(kept, **logits)  # type: ignore[arg-type, unused-ignore]
    return {"weights": "random", "images": len(asked)}


def _write(folder: Path, graphs: dict[str, Path], pixels_nhwc_u8: Pixels, preprocess: "Preprocess") -> dict[str, Float]:
    """Write all graphs but FP32's, the pixels as UINT8, and the logits of each graph in OpenVINO with FP32
    arithmetic."""
    from benchmarks.studies.gpu_proof.graphs import write_graphs
    from slipway.steps.engine_openvino import Engine
    from slipway.steps.normalize import normalize

    write_graphs({name: path for name, path in graphs.items() if name != "fp32"}, folder)
    normalisation = {"mean": list(preprocess.mean), "std": list(preprocess.std)}
    pixels_nchw, pixels_u8 = normalize(pixels_nhwc_u8, preprocess.model_dump()), pixels_nhwc_u8.transpose(0, 3, 1, 2)
    (folder / "network.json").write_text(json.dumps(normalisation) + "\n", encoding="utf-8")
    logits = {}
    for name, path in graphs.items():
        run: Callable[[Float], tuple[Float, Float]] = Engine(path, arithmetic="f32", threads=1).run
        logits[name] = np.concatenate([run(batch)[0].copy() for batch in _batches(pixels_nchw)])
    np.savez_compressed(folder / "pixels.npz", pixels_u8=pixels_u8, **{name: logits[name] for name in ("fp16", "int8")})
    return logits


def _batches(pixels_nchw: Float) -> Iterator[Float]:
    return (pixels_nchw[start : start + 8] for start in range(0, len(pixels_nchw), 8))
