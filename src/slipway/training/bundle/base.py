"""Makes a base: a timm backbone without a head, whose embedding many heads share (docs/adr/0060)."""

from pathlib import Path

import numpy as np

from slipway.contract import DataError, ExportError, Manifest, Preprocess
from slipway.contract.base_bundle import BASE_IDENTITY, BaseSpec
from slipway.contract.bundle import identity
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.evidence.build import BaseMeasured
from slipway.contract.preprocess import PIXEL_LIBRARIES
from slipway.contract.shared_rules import IMAGE_SUFFIXES
from slipway.evaluation.predict import Float, Forward, Predictions, predict
from slipway.steps import guard
from slipway.steps.engine_openvino import Engine
from slipway.system.files import complete_folder, files_below, sha256_bytes, sha256_file
from slipway.system.targets import check_folder
from slipway.training.bundle.calibration import write_calibration
from slipway.training.bundle.export import EmbeddingNetwork, write_onnx
from slipway.training.bundle.importing import preprocess_of
from slipway.training.bundle.write import check_finite, compare_embeddings
from slipway.training.data.sources import raise_faults
from slipway.training.learn.network import Network
from slipway.training.learn.weights import fill_backbone

UNUSED_CLASSES = 2
"""timm's model is built with a classifier of this size, whose input is the embedding. The graph leaves it out."""
LIBRARIES = ("onnx", "onnxscript", "openvino", "timm", "torch")


def write_base(spec: BaseSpec, out: Path) -> Manifest:
    """Write the base `out`, whole or not at all.

    Raises:
        SpecError: timm has no such backbone, or its weights cannot be loaded or do not fit.
        DataError: the folder has too few different images, or serving would refuse one of them.
        ExportError: torch cannot export the backbone, ONNX and torch disagree, an embedding is not finite, or all
            images have the same.
    """
    weights = Path(spec.backbone.weights) if spec.backbone.weights else None
    check_folder(out, kind="base", inputs=[Path(spec.images), *([weights] if weights else [])])
    preprocess = spec.preprocess or preprocess_of(spec.backbone.name)[0]
    dataset = draw(spec)
    network, origin = network_of(spec, preprocess)
    with complete_folder(out, kind="base") as staging:
        spec.write(staging / "spec.json")
        dataset.write(staging / DATASET)
        preprocess.write(staging / "preprocess.json")
        write_calibration(staging, dataset, spec.calibration)
        write_onnx(EmbeddingNetwork(network), staging / "model.onnx", input_shape=(3, *preprocess.input_size))
        onnx = Engine(staging / "model.onnx", arithmetic="f32", threads=spec.serving.threads)
        found = [
            _run(each, spec, preprocess, dataset, what) for each, what in ((onnx.run, "ONNX"), (network.run, "torch"))
        ]
        check_finite(found[0])
        _check_images_differ(found[0].embedding_nd, spec)
        difference = compare_embeddings(*found)
        return Manifest.seal(
            staging,
            kind="base",
            name=spec.name,
            bundle=identity(staging, BASE_IDENTITY),
            inputs={"weights": sha256_file(weights)} if weights else {},
            libraries=(*LIBRARIES, *PIXEL_LIBRARIES[preprocess.decoder]),
            seed=spec.calibration.seed,
            measured=BaseMeasured(
                origin=origin, embedding_size=found[0].embedding_nd.shape[1], max_embedding_difference=difference
            ),
        )


def network_of(spec: BaseSpec, preprocess: Preprocess) -> tuple[Network, str]:
    """The network with its weights, and where they come from."""
    backbone = spec.backbone
    network = Network(
        backbone,
        classes=UNUSED_CLASSES,
        pretrained=backbone.pretrained and backbone.weights is None,
        input_size=preprocess.input_size,
    )
    if backbone.weights is not None:
        path = Path(backbone.weights)
        fill_backbone(network, path)
        return network.eval(), f"{path.name} (sha256 {sha256_file(path)[:12]})"
    return network.eval(), "timm's own" if backbone.pretrained else "random"


def _run(network: Forward, spec: BaseSpec, preprocess: Preprocess, dataset: Dataset, what: str) -> Predictions:
    options = {"preprocess": preprocess, "batch_size": spec.serving.max_batch_size}
    return predict(network, dataset, dataset.of("test"), what=f"embeddings, {what}", **options)  # type: ignore[arg-type]


def _check_images_differ(embedding_nd: Float, spec: BaseSpec) -> None:
    if (embedding_nd == embedding_nd[0]).all():
        raise ExportError(
            f"{len(embedding_nd)} different images have the same embedding, so no head can tell them apart; check "
            f"backbone.weights of {spec.name}, and preprocess"
        )


def draw(spec: BaseSpec) -> Dataset:
    """The images of a base: those of the train split calibrate, those of the test split judge. None has a label.

    Raises:
        DataError: no such folder, too few different images in it, or serving would refuse some of those drawn.
    """
    root, wanted = Path(spec.images), spec.calibration.images + spec.embedding.images
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; images is a folder of images like those that the heads will see")
    paths = sorted(path for path in files_below(root).values() if path.suffix.lower() in IMAGE_SUFFIXES)
    different = _different(paths, wanted, spec.calibration.seed)
    if len(different) < wanted:
        raise DataError(
            f"{root}: {len(different)} different images, but {spec.calibration.images} are needed to calibrate "
            f"(calibration.images) and {spec.embedding.images} others to judge (embedding.images); add images, or "
            "write smaller numbers into the spec"
        )
    images = [
        LabelledImage(
            path=path.relative_to(root).as_posix(),
            class_ids=(0,),
            sha256=sha256,
            split="train" if number < spec.calibration.images else "test",
        )
        for number, (sha256, path) in enumerate(different.items())
    ]
    return Dataset(root=spec.images, labels=("image",), images=tuple(images))


def _different(paths: list[Path], wanted: int, seed: int) -> dict[str, Path]:
    """Different images by their SHA-256, drawn until there are `wanted` or no more files.

    Raises:
        DataError: serving would refuse some of those drawn.
    """
    different: dict[str, Path] = {}
    faults = []
    for index in np.random.default_rng(seed).permutation(len(paths)):
        path = paths[index]
        try:
            encoded = path.read_bytes()
        except OSError as error:
            faults.append(f"{path}: cannot be read: {error.strerror}")
            continue
        if (status := guard.inspect(encoded)) != guard.OK:
            faults.append(f"{path}: {guard.STATUS_NAMES[status]}")
            continue
        different.setdefault(sha256_bytes(encoded), path)
        if len(different) == wanted:
            break
    raise_faults(faults, what="files cannot be used; repair or remove them")
    return different
