"""Makes the inputs of the density study: crops of photographs, and heads of seeded random weights on a real base."""

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from tqdm import tqdm

from benchmarks.studies.study import load_photographs, scikit_image
from slipway.contract import Decision, EngineSettings, Manifest, Spec, bundle_id, write_labels
from slipway.contract.bundle import BASE, HEAD, BaseLink
from slipway.contract.decision import Task
from slipway.contract.engine import HEAD_INPUT
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.manifest import hashes
from slipway.repository.heads import ServedBase
from slipway.steps.head import Head
from slipway.system.files import sha256_file

CROP_PX = 320
TASKS: tuple[Task, ...] = ("multiclass", "multilabel")


def write_crops(folder: Path, *, each: int, seed: int = 0) -> Path:
    """Write `each` JPEGs of 320 pixels of every photograph of scikit-image, in class folders. They are seeded random
    crops, turned and in several sizes, so that naming the photograph is moderately difficult."""
    rng = np.random.default_rng(seed)
    for name, photograph in tqdm(load_photographs(scikit_image()).items(), "crops", leave=False, disable=None):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            size = int(rng.integers(60, min(photograph.size) // 2))
            left, top = (int(rng.integers(0, edge - size + 1)) for edge in photograph.size)
            crop = photograph.crop((left, top, left + size, top + size)).resize((CROP_PX, CROP_PX))
            crop.rotate(90 * int(rng.integers(4))).save(folder / name / f"{number:03}.jpg", quality=85)
    return folder


@dataclass(frozen=True)
class Shape:
    """Size and task of a random head."""

    classes: int
    hidden: int
    """Width of a hidden layer; 0 for none."""
    task: Task

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Shape":
        """Draw a head of 2 to 200 classes, mostly few. One in four has a hidden layer, and one in four several
        labels."""
        classes = int(np.exp(rng.uniform(np.log(2), np.log(201))))
        return cls(classes, 64 if rng.random() < 0.25 else 0, TASKS[int(rng.random() < 0.25)])


def write_random_heads(folder: Path, base: ServedBase, count: int, *, seed: int = 0) -> list[Path]:
    """Write the runs `head0000`, `head0001`, … of heads of many sizes and of both tasks."""
    rng = np.random.default_rng(seed)
    names = [f"head{number:04}" for number in range(count)]
    return [
        write_random_head(folder / name, base, name=name, shape=Shape.drawn(rng), seed=seed + number)
        for number, name in enumerate(tqdm(names, "heads", leave=False, disable=None))
    ]


def write_random_head(run: Path, base: ServedBase, *, name: str, shape: Shape, seed: int) -> Path:
    """Write the run of a head, `bundle/` and `engines/`, without training: its cost is real, its answers are not."""
    bundle, engine = run / "bundle", run / "engines" / base.engine.path.name
    bundle.mkdir(parents=True)
    engine.mkdir(parents=True)
    size = base.engine.settings.embedding_size
    rng = np.random.default_rng(seed)
    sizes = [size, *([shape.hidden] if shape.hidden else []), shape.classes]
    weights = [rng.normal(0, 1 / np.sqrt(a), (a, b)).astype(np.float32) for a, b in pairwise(sizes)]
    head = Head(weights, [np.zeros(b, np.float32) for b in sizes[1:]])
    thresholds = {"thresholds": [0.5] * shape.classes} if shape.task == "multilabel" else {}
    decision = Decision.parse({"task": shape.task, "top_k": 2, **thresholds}, source=name)
    for place in (bundle, engine):
        head.save(place / HEAD)
        decision.write(place / "decision.json")
    BaseLink(id=base.base.id, name=base.base.spec.name, embedding_size=size).write(bundle / BASE)
    shutil.copyfile(base.base.path / "preprocess.json", bundle / "preprocess.json")
    write_labels([f"class {number}" for number in range(shape.classes)], bundle / "labels.txt")
    _spec(name, shape.task, base).write(bundle / "spec.json")
    _seal(bundle, kind="bundle", name=name, bundle=bundle_id(bundle))
    settings = base.engine.settings
    EngineSettings(
        target=settings.target,
        precision=settings.precision,
        arithmetic=settings.arithmetic,
        classes=shape.classes,
        embedding_size=size,
        input=HEAD_INPUT,
        graph_sha256=sha256_file(engine / HEAD),
        calibration_sha256=None,
        base_engine_sha256=sha256_file(base.engine.path / MANIFEST),
    ).write(engine / "engine.json")
    _seal(engine, kind="engine", name=name, bundle=bundle_id(bundle), measured={"gate": {"verdict": "reference"}})
    return run


def write_whole(run: Path, base: ServedBase, *, name: str, classes: int, seed: int) -> Path:
    """Write the run of a whole classifier of the same network: the base's engine with a seeded random last layer."""
    bundle, engine = run / "bundle", run / "engines" / base.engine.path.name
    engine.mkdir(parents=True)
    shutil.copytree(base.base.path, bundle, ignore=shutil.ignore_patterns(MANIFEST, "spec.json"))
    size = base.engine.settings.embedding_size
    weight = np.random.default_rng(seed).normal(0, 1 / np.sqrt(size), (size, classes)).astype(np.float32)
    network = onnx.load(base.engine.path / "model.onnx")
    network.graph.initializer.append(onnx.numpy_helper.from_array(weight, "last_layer"))
    network.graph.node.append(onnx.helper.make_node("MatMul", ["embedding_nd", "last_layer"], ["logits_nc"]))
    network.graph.output.insert(
        0, onnx.helper.make_tensor_value_info("logits_nc", onnx.TensorProto.FLOAT, ["n", classes])
    )
    onnx.save(network, engine / "model.onnx")
    decision = Decision.parse({"task": "multiclass", "top_k": 2}, source=name)
    for place in (bundle, engine):
        decision.write(place / "decision.json")
    write_labels([f"class {number}" for number in range(classes)], bundle / "labels.txt")
    _spec(name, "multiclass", base).write(bundle / "spec.json")
    _seal(bundle, kind="bundle", name=name, bundle=bundle_id(bundle))
    settings = base.engine.settings.model_copy(
        update={
            "classes": classes,
            "graph_sha256": sha256_file(engine / "model.onnx"),
            "calibration_sha256": sha256_file(bundle / "calibration.json"),
        }
    )
    settings.write(engine / "engine.json")
    _seal(engine, kind="engine", name=name, bundle=bundle_id(bundle), measured={"gate": {"verdict": "reference"}})
    return run


def _spec(name: str, task: Task, base: ServedBase) -> Spec:
    plain = {"name": name, "task": task, "data": {"root": "images"}, "preprocess": base.base.preprocess.plain()}
    return Spec.parse(plain | {"backbone": base.base.spec.backbone.plain()}, source=name)


def _seal(folder: Path, **fields: object) -> None:
    """Seal as `Manifest.seal` does, but without the commit, for which git takes longer than all the rest."""
    Manifest.parse({**fields, "outputs": hashes(folder)}, source=str(folder)).write(folder / MANIFEST)
