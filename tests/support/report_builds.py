"""Builds for the report: a sealed copy of `colours` with evidence written by hand, and a page as a browser reads it."""

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slipway.contract import Bundle, BundleEngine, Choice, EngineSettings, Manifest, Spec, bundle_id, write_labels
from slipway.contract.choice import choice_name
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.engine import INPUT
from slipway.contract.evidence.build import BundleMeasured, SensitivitySearch
from slipway.contract.evidence.evaluation import EngineEvaluation, Flip
from slipway.evaluation.gate import compare
from slipway.report import Build
from slipway.system.files import sha256_file
from tests.support.colours import COLOURS

LABELS = ("blue", "green", "red")
PER_CLASS = 40
MEASURED = BundleMeasured(
    origin="import onnx",
    images=120,
    top1=1.0,
    macro_f1=1.0,
    ece=0.01,
    ece_interval=(0.0, 0.02),
    ece_uncalibrated=0.1,
    temperature=1.0,
    embedding_size=3,
    classes_without_images=0,
)
LENIENT = {"max_loss_points": 20.0, "max_class_loss_points": 60.0}


def make_bundle(folder: Path, *, labels: Sequence[str] = LABELS, **spec: Any) -> Bundle:
    """`colours` with a test split of real image files beside it, which dataset.json lists."""
    bundle = folder / "bundle"
    shutil.copytree(COLOURS / "bundle", bundle)
    changed = {"precisions": ["int8", "bf16", "fp32"], "accuracy": LENIENT, **spec}
    Spec.parse(json.loads((bundle / "spec.json").read_text()) | changed, source="test").write(bundle / "spec.json")
    write_labels(labels, bundle / "labels.txt")
    (folder / "data").mkdir()
    images = []
    for number in range(PER_CLASS * len(LABELS)):
        path = folder / "data" / f"{number:03}.png"
        Image.new("RGB", (240, 160), (number, 255 - number, 7)).save(path)
        class_ids = (number // PER_CLASS,)
        images.append(LabelledImage(path=path.name, class_ids=class_ids, sha256=sha256_file(path), split="test"))
    Dataset(root=str(folder / "data"), labels=tuple(labels), images=tuple(images)).write(bundle / "dataset.json")
    Manifest.seal(bundle, kind="bundle", name="colours", bundle=bundle_id(bundle), measured=MEASURED)
    return Bundle.open(bundle)


def evidence(bundle: Bundle, *, wrong: Sequence[int] = (), gated: bool = True) -> dict[str, Any]:
    """`evaluation.json` of an engine that takes these images for the next class; FP32 is always right."""
    images = Dataset.read(bundle.path / "dataset.json").images
    truth_n = np.array([image.class_id for image in images])
    answers_n = truth_n.copy()
    answers_n[list(wrong)] = (truth_n[list(wrong)] + 1) % len(bundle.labels)
    right_n = answers_n == truth_n
    shares = dict.fromkeys(("precision", "recall", "f1"), 0.9876)
    intervals = {f"{name}_interval": (0.9, 1.0) for name in shares}
    metrics: dict[str, Any] = {
        "split": "test",
        "arithmetic": "f32",
        "decoder": "cpu",
        "images": len(images),
        "top1": float(right_n.mean()),
        "top1_interval": (0.0, 1.0),
        "top_k": {},
        "macro_f1": 0.9876,
        "macro": shares,
        "weighted": shares,
        "ece": 0.0123,
        "unknown_rate": 0.0456,
        "per_class": {
            label: shares
            | intervals
            | {"images": int((truth_n == i).sum()), "recall": float(right_n[truth_n == i].mean())}
            for i, label in enumerate(bundle.labels)
            if (truth_n == i).any()
        },
        "confusion": (),
    }
    if gated:
        gate = compare(truth_n, truth_n, answers_n, bundle.labels, bundle.spec.accuracy)
        metrics |= {"gate": gate, "flips": [flip(bundle, images[i], answers_n[i]) for i in wrong]}
    return EngineEvaluation.parse(metrics, source="test").plain()


def flip(bundle: Bundle, image: LabelledImage, answer: int) -> Flip:
    truth = bundle.labels[image.class_id]
    return Flip(image=image.path, truth=truth, fp32=truth, fp32_score=0.75, label=bundle.labels[answer], score=0.625)


def add_engine(
    bundle: Bundle,
    name: str,
    evaluation: dict[str, Any] | None,
    *,
    inputs: dict[str, str] | None = None,
    **measured: Any,
) -> BundleEngine:
    """`engines/<name>` with this evidence; None: proof only."""
    folder = bundle.path.parent / "engines" / name
    folder.mkdir(parents=True)
    target, precision, *suffix = name.split("-")
    capability = [f"{part[2:-1]}.{part[-1]}" for part in suffix]
    plan = {
        "version": "10.12.0",
        "compute_capability": capability[0] if capability else None,
        "batch_sizes": [1, 8, 8],
        "optimization_level": 3,
        "hardware_compatibility": "none",
        "version_compatible": False,
    }
    model = "model.onnx" if target == "openvino" else f"model_{suffix[0]}.plan" if suffix else "model.plan"
    shutil.copyfile(bundle.path / "model.onnx", folder / model)
    settings = {
        "target": target,
        "precision": precision,
        "arithmetic": "f32" if target == "openvino" else "typed",
        "classes": len(bundle.labels),
        "embedding_size": 3,
        "input": INPUT,
        "graph_sha256": sha256_file(folder / model),
        "calibration_sha256": sha256_file(bundle.path / "calibration.json"),
        "plan": None if target == "openvino" else plan,
    }
    EngineSettings.parse(settings, source="test").write(folder / "engine.json")
    bundle.decision.write(folder / "decision.json")
    gate: dict[str, Any] = {"verdict": "proof only"}
    if evaluation is not None:
        EngineEvaluation.parse(evaluation, source="test").write(folder / "evaluation.json")
        gate = evaluation.get("gate", {"verdict": "reference"})
    measured = {"gate": gate, "latency": {"1": {"p50_ms": 1.25, "p90_ms": 1.5}}, **measured}
    Manifest.seal(folder, kind="engine", name="colours", bundle=bundle.id, inputs=inputs, measured=measured)
    return BundleEngine.open(folder, bundle=bundle)


def add_choice(bundle: Bundle, *engines: BundleEngine, chosen: str) -> None:
    """`choice.json`, or between plans `choice-sm90.json` and its like."""
    figures = {"median_ms": 2.125, "speed_to_fp32": 1.375, "speed_low": 1.25, "speed_high": 1.5}
    candidates = [
        {
            "engine": engine.path.name,
            "manifest_sha256": sha256_file(engine.path / "manifest.json"),
            "precision": engine.settings.precision,
            "verdict": engine.verdict,
            **(figures if engine.may_be_served else {}),
        }
        for engine in engines
    ]
    run = {"rounds": 15, "images_per_round": 40, "threads": 1, "machine": "a <processor>", "versions": {}}
    choice = {"bundle": bundle.id, "chosen": chosen, "reason": "it was the fastest", "candidates": candidates, **run}
    plan = engines[0].settings.plan
    capability = None if plan is None else plan.compute_capability
    if capability is not None:
        card = {"name": "NVIDIA L4", "multiprocessors": 58, "memory_mib": 22_000, "driver": "580.95.05", "cuda": "13.0"}
        choice |= {"card": card | {"compute_capability": capability}}
    Choice.parse(choice, source="test").write(bundle.path.parent / "engines" / choice_name(capability))


def add_int8_graph(bundle: Bundle, search: dict[str, Any] | None) -> dict[str, str]:
    """`graphs/int8`; returns what an engine's manifest names of it."""
    folder = bundle.path.parent / "graphs/int8"
    folder.mkdir(parents=True)
    shutil.copyfile(bundle.path / "model.onnx", folder / "model.onnx")
    if search is not None:
        SensitivitySearch.parse(search, source="test").write(folder / "search.json")
    Manifest.seal(
        folder, kind="graph", name="colours", bundle=bundle.id, measured={"not_quantised": {"/head": "small"}}
    )
    return {"graph": sha256_file(folder / "manifest.json")}


def make_served(folder: Path) -> Bundle:
    """With an FP32 engine, one INT8 that passed with one flip, and the choice between them."""
    bundle = make_bundle(folder)
    fp32 = add_engine(bundle, "openvino-fp32", evidence(bundle, gated=False))
    int8 = add_engine(bundle, "openvino-int8", evidence(bundle, wrong=[3]))
    assert int8.verdict == "pass"
    add_choice(bundle, fp32, int8, chosen="openvino-int8")
    return bundle


def opened(bundle: Bundle) -> Build:
    folder = bundle.path.parent
    return Build.open(bundle.path, engines=folder / "engines", graphs=folder / "graphs")


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text without the style sheet."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.markup = page
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.drawings: dict[str, list[str]] = {}
        """The texts of each chart, by what a screen reader says of it."""
        self._style, self._drawing = False, list[str]()
        self.feed(page)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"
        if tag == "svg":
            self._drawing = self.drawings.setdefault(dict(attrs).get("aria-label") or "", [])

    def handle_endtag(self, tag: str) -> None:
        self._style = self._style and tag != "style"
        if tag == "svg":
            self._drawing = []

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words.append(data)
            self._drawing.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def assert_loads_and_runs_nothing(self) -> None:
        """Also that its policy forbids both to a browser."""
        assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in self.tags}
        for _, attributes in self.tags:
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                assert str(attributes.get(name, "#")).startswith(
                    ("#", "data:image/jpeg;base64,", "data:image/png;base64,")
                )
        assert not re.search(r"url\((?!#)|@import", self.markup)
        policy = self.all("meta")[1]
        assert policy["http-equiv"] == "Content-Security-Policy"
        assert str(policy["content"]).startswith("default-src 'none';")
