#!/usr/bin/env python3
"""What confidence is worth: the calibration error, and `unknown` on foreign photographs and a class held out."""

import argparse
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slipway.contract import Bundle, DataError, Spec
from slipway.contract.cli import run

MAX_ECE, MIN_AUROC, MIN_FOREIGN_UNKNOWN, MAX_KNOWN_UNKNOWN = 0.02, 0.9, 0.95, 0.03
EPILOG = """example:
  training/train.py training/configs/digits_unknown.yaml --out runs/digits_unknown/checkpoint
  training/export.py runs/digits_unknown/checkpoint --out runs/digits_unknown/bundle
  benchmarks/confidence.py runs/digits_unknown/bundle --photographs my/photographs --held-out 9

--held-out trains the bundle's spec once more without that class (minutes), and scores its images."""


def main(arguments: argparse.Namespace) -> None:
    bundle = Bundle.open(arguments.bundle)
    evaluation = json.loads((bundle.path / "evaluation.json").read_text(encoding="utf-8"))
    if bundle.decision.unknown is None:
        raise DataError(
            f"{bundle.path}: its spec asks for no `unknown`; add decision.unknown.coverage, and train again"
        )
    after = evaluation["reliability"]["after"]
    result: dict[str, Any] = {
        "bundle": bundle.id,
        "score": bundle.decision.unknown.score,
        "ece": after["ece"],
        "ece_interval": after["ece_interval"],
        "known_unknown_rate": evaluation["unknown"]["test"]["unknown_rate"],
        "known_images": evaluation["unknown"]["test"]["images"],
        "date": datetime.now(UTC).date().isoformat(),
    }
    if arguments.photographs:
        result["foreign"] = foreign(bundle, images_in(arguments.photographs))
    if arguments.held_out:
        result["held_out"] = held_out(bundle.spec, arguments.held_out, arguments.work or bundle.path.parent)
    result["verdicts"] = verdicts(result)
    for what, good in result["verdicts"].items():
        print(f"  {'pass' if good else 'FAIL'}  {what}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {arguments.out}")
    if arguments.json:
        print(json.dumps(result))


def verdicts(result: dict[str, Any]) -> dict[str, bool]:
    """Each target by what was measured."""
    ece, known = result["ece"], result["known_unknown_rate"]
    found = {
        f"ECE {ece:.4f} <= {MAX_ECE}": ece <= MAX_ECE,
        f"unknown: {known:.2%} of known classes <= {MAX_KNOWN_UNKNOWN:.0%}": known <= MAX_KNOWN_UNKNOWN,
    }
    if "foreign" in result:
        rate = result["foreign"]["unknown_rate"]
        found[f"unknown: {rate:.2%} of photographs >= {MIN_FOREIGN_UNKNOWN:.0%}"] = rate >= MIN_FOREIGN_UNKNOWN
    if "held_out" in result:
        auroc = result["held_out"]["auroc"]
        found[f"AUROC {auroc:.4f} of the class held out >= {MIN_AUROC}"] = auroc >= MIN_AUROC
    return found


def foreign(bundle: Bundle, images: Sequence[Path]) -> dict[str, Any]:
    """How many of `images` the bundle calls `unknown`, and which it does not."""
    from slipway.steps.postprocess import UNKNOWN, Postprocessor

    logits_nc, embedding_nd, status_n = outputs(bundle, images)
    step = Postprocessor(bundle.decision.model_dump(), bundle.labels)
    answers = step.run(logits_nc, status_n, embedding_nd)
    taken = [image.name for image, row in zip(images, answers.label_nk, strict=True) if row[0] != UNKNOWN]
    return {"images": len(images), "unknown_rate": 1 - len(taken) / len(images), "not_unknown": taken}


def held_out(spec: Spec, label: str, work: Path) -> dict[str, Any]:
    """Train `spec` without the class `label`; AUROC of its score between test images and all images of that class."""
    from slipway.evaluation.unknown import auroc, score_of
    from slipway.training import export, train

    data, folder = Path(spec.data.root), work / f"without_{label}"
    if not (data / label).is_dir():
        raise DataError(f"{data / label}: no such folder; --held-out names a class of the data set")
    leave_out = shutil.ignore_patterns(label)
    shutil.copytree(data, folder / "data", ignore=lambda at, names: leave_out(at, names) if Path(at) == data else set())
    without = spec.model_copy(update={"data": spec.data.model_copy(update={"root": str(folder / "data")})})
    train(without, folder / "checkpoint")
    export(folder / "checkpoint", folder / "bundle")
    bundle = Bundle.open(folder / "bundle")
    known, strange = test_images(bundle), images_in(data / label)
    scores = [score_of(bundle.decision, *outputs(bundle, images)[:2]) for images in (known, strange)]
    assert bundle.decision.unknown is not None
    score, threshold = bundle.decision.unknown.score, bundle.decision.unknown.threshold
    return {
        "label": label,
        "score": score,
        "images": len(strange),
        "known_images": len(known),
        "auroc": auroc(*scores),
        "unknown_rate": float((scores[1] < threshold).mean()),
        "known_unknown_rate": float((scores[0] < threshold).mean()),
    }


def test_images(bundle: Bundle) -> list[Path]:
    from slipway.contract.dataset import FILE_NAME, Dataset

    dataset = Dataset.read(bundle.path / FILE_NAME)
    return [Path(dataset.root) / image.path for image in dataset.of("test")]


def images_in(folder: Path) -> list[Path]:
    """Raises DataError: none there."""
    images = sorted(path for path in folder.glob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"})
    if not images:
        raise DataError(f"{folder}: no .png, .jpg, .jpeg or .webp in it")
    return images


def outputs(bundle: Bundle, images: Sequence[Path]) -> tuple[Any, Any, Any]:
    """Logits, embeddings and statuses, in FP32 by OpenVINO; all images must be readable."""
    import numpy as np

    from slipway.steps.engine_openvino import Engine
    from slipway.steps.preprocess_dali import Preprocessor

    size = bundle.spec.serving.max_batch_size
    preprocessor = Preprocessor(bundle.preprocess.model_dump(), max_batch_size=size, threads=1)
    engine = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=bundle.spec.serving.threads)
    parts = []
    for start in range(0, len(images), size):
        pixels_nchw, status_n = preprocessor.run([path.read_bytes() for path in images[start : start + size]])
        if status_n.any():
            refused = images[start + int(np.flatnonzero(status_n)[0])]
            raise DataError(f"{refused}: serving would refuse it; leave it out")
        parts.append((*engine.run(pixels_nchw), status_n))
    logits_nc, embedding_nd, status_n = (np.concatenate(part) for part in zip(*parts, strict=True))
    return logits_nc, embedding_nd, status_n


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="whose spec has decision.unknown")
    parser.add_argument("--photographs", type=Path, help="a folder of images that are of no class")
    parser.add_argument("--held-out", metavar="CLASS", help="train without this class, and score its images")
    parser.add_argument("--work", type=Path, help="where that is trained; default: beside the bundle")
    parser.add_argument("--out", type=Path, help="a JSON file of the result")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    run(main, parser())
