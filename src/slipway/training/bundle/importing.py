"""Imports an existing network, an ONNX file or timm weights, into a bundle, given a spec, labels and images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from pydantic import ConfigDict, model_validator
from timm.data import resolve_data_config

from slipway.contract import Manifest, Preprocess, Spec, SpecError
from slipway.contract.evidence.build import NetworkOrigin
from slipway.contract.recipe import AUTO
from slipway.contract.typed_file import Contract
from slipway.onnx_graph import save
from slipway.system.files import sha256_file
from slipway.system.targets import check_folder
from slipway.training.bundle.calibration import check_calibration
from slipway.training.bundle.export import export_network
from slipway.training.bundle.from_onnx import adopt
from slipway.training.bundle.write import write_bundle
from slipway.training.data.dataset import scan
from slipway.training.data.sources import find, read_from
from slipway.training.learn.network import Network, check_backbone
from slipway.training.learn.weights import fill, load_weights

INTERPOLATION = {"bilinear": "linear", "bicubic": "cubic"}  # timm's name to ours


class Draft(Contract):
    """A spec that may omit `preprocess`, and for an ONNX file `backbone`."""

    model_config = ConfigDict(extra="allow")
    name: Any = None
    data: dict[str, Any] | None = None
    preprocess: dict[str, Any] | None = None
    backbone: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _auto_is_about_training(cls, data: Any) -> Any:
        """Ignore `auto`: an import already has its network, so nothing is left for training to choose."""
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if (key, value) not in (("backbone", AUTO), ("recipe", AUTO))}


def complete_spec(
    path: Path, *, onnx: Path | None, labels_given: bool, preprocess_from: str | None = None
) -> tuple[Spec, str | None]:
    """Read an import's spec and fill in what can be derived; returns it and the timm model behind `preprocess`.

    Args:
        onnx: the ONNX file; None for weights of the timm model `backbone.name`.
        labels_given: whether the order of the classes is known.
        preprocess_from: a timm model whose `pretrained_cfg` defines the preprocessing.

    Raises:
        SpecError: something is missing (all of it is named at once) or wrong.
    """
    draft = Draft.read(path)
    backbone = str((draft.backbone or {}).get("name") or "") or None
    source = preprocess_from or (backbone if backbone and timm.is_model(backbone) else None)
    needed = {
        "labels: --labels FILE, one label per line in the order of the logits; or --labels-from-folders": labels_given,
        "name: in the spec, the name the classifier is served under": draft.name,
        "data.root: in the spec, the evaluation folder with a sub-folder of images per class": (
            (draft.data or {}).get("root")
        ),
        "backbone.name: in the spec, the timm model that the weights belong to": backbone or onnx,
        # An unknown timm model is reported below; a preprocess would not help.
        "preprocess: in the spec, how images were prepared in training; or --preprocess-from-timm MODEL": (
            draft.preprocess or source or (backbone and not onnx)
        ),
    }
    missing = [remedy for remedy, given in needed.items() if not given]
    if missing:
        raise SpecError(f"{path}: an import also needs:\n  " + "\n  ".join(missing))
    if draft.preprocess and preprocess_from:
        raise SpecError(f"{path}: both preprocess and --preprocess-from-timm are given; leave one out")
    if not onnx:
        check_backbone(str(backbone))
    values, origin = draft.model_dump(exclude_none=True), None
    values["backbone"] = ({"name": onnx.name} if onnx else {}) | {"pretrained": False} | (draft.backbone or {})
    if not draft.preprocess:
        assert source is not None
        preprocess, origin = preprocess_of(source)
        values["preprocess"] = preprocess.model_dump()
    return _check(Spec.parse(values, source=str(path))), origin


def _check(spec: Spec) -> Spec:
    """Raises SpecError: the spec asks for something that class folders cannot give or the CPU cannot run."""
    if spec.task != "multiclass":
        raise SpecError(f"task: {spec.task} cannot be evaluated on class folders; the valid task here is multiclass")
    if spec.preprocess.decoder != "cpu":
        raise SpecError("preprocess.decoder: mixed belongs to the gpu lane; the valid value for an import is cpu")
    return spec


def _check_listed(spec: Spec) -> None:
    """Raises DataError: whatever the splits, the images cannot give the calibration sample; none has been read."""
    images = sum(entry.split in (None, "train") for entry in find(spec.data, task=spec.task).entries)
    check_calibration(spec.calibration, images=images, has="can have at most")


def preprocess_of(backbone: str) -> tuple[Preprocess, str]:
    """Return timm's evaluation preprocessing for the model's default weights, and the full name of those weights.

    Raises:
        SpecError: no such model, or preprocessing that a `Preprocess` cannot express.
    """
    check_backbone(backbone)
    pretrained = timm.get_pretrained_cfg(backbone)
    name = f"{pretrained.architecture}.{pretrained.tag}" if pretrained.tag else str(pretrained.architecture)
    config = resolve_data_config(pretrained_cfg=pretrained.to_dict())
    _, height, width = config["input_size"]
    fault = None
    if config["crop_mode"] == "squash":
        fault = "crop_mode squash, which distorts images; preprocess.resize is crop or pad"
    elif config["crop_mode"] == "border" and (config["crop_pct"] != 1 or len(set(config["mean"])) > 1):
        fault = "crop_mode border with a crop or a border that is not grey; preprocess.resize: pad does neither"
    elif config["interpolation"] not in INTERPOLATION:
        fault = f"interpolation {config['interpolation']}; preprocess.interpolation is linear or cubic"
    if fault:
        raise SpecError(f"{name} was trained with {fault}; write the closest preprocess into the spec")
    pad = config["crop_mode"] == "border"
    values = {
        "input_height": height,
        "input_width": width,
        "resize": "pad" if pad else "crop",
        # timm rounds the resized side down, a Preprocess to the nearest: this fraction gives timm's side.
        "crop_fraction": height / int(height / config["crop_pct"]),
        "interpolation": INTERPOLATION[config["interpolation"]],
        "mean": config["mean"],
        "std": config["std"],
        "pad_value": round(255 * config["mean"][0]) if pad else 0,
    }
    return Preprocess.parse(values, source=f"pretrained_cfg of {name}"), name


def import_onnx(
    spec: Spec,
    path: Path,
    out: Path,
    *,
    labels: Sequence[str] | None,
    logits: str | None = None,
    embedding: str | None = None,
    with_embedding: bool = True,
    empty_classes: bool = False,
) -> Manifest:
    """Write the bundle `out` from an ONNX file; without `labels` the sorted class folders are taken.

    Args:
        logits: see `adopt`, as for `embedding` and `with_embedding`.
        empty_classes: whether labels may have no image; the network's accuracy on those stays unknown.

    Raises:
        SpecError: the file cannot be read, or the number of labels differs from the number of logits.
        ExportError: the graph cannot be served as it is; see `adopt`.
        DataError: the images cannot be used, or their folders do not match the labels.
    """
    check_folder(out, kind="bundle", inputs=[path, *read_from(spec.data, out=out)])
    _check_listed(spec)
    unknown = spec.decision.unknown
    if not with_embedding and unknown is not None and unknown.score == "embedding":
        raise SpecError(
            "decision.unknown.score: embedding given, but --no-embedding imports the network without one; write auto, "
            "energy or max_probability, or leave out --no-embedding"
        )
    input_size = spec.preprocess.input_size
    adopted = adopt(path, input_size=input_size, logits=logits, embedding=embedding, with_embedding=with_embedding)
    dataset = scan(spec.data, labels=labels, empty_classes=empty_classes)
    check_calibration(spec.calibration, images=len(dataset.of("train")))
    if adopted.classes != len(dataset.labels):
        raise SpecError(
            f"{path}: {adopted.classes} logits but {len(dataset.labels)} labels; give one label per logit, in the "
            "logits' order"
        )
    return write_bundle(
        out,
        spec=spec,
        dataset=dataset,
        write_graph=lambda graph: save(adopted.model, graph),
        reference=None,
        inputs=adopted.files,
        libraries=(),
        origin=NetworkOrigin(
            origin="import onnx", opset=adopted.opset, tensors=adopted.tensors, changes=adopted.changes
        ),
    )


def import_timm(
    spec: Spec, path: Path, out: Path, *, labels: Sequence[str] | None, empty_classes: bool = False
) -> Manifest:
    """Write the bundle `out` from a safetensors file that holds the state dict of timm's `spec.backbone.name`.

    `labels` and `empty_classes` are as in `import_onnx`. The ONNX graph is compared with torch on the test split.

    Raises:
        SpecError: not a safetensors file, or not weights of this model with these labels and this input size.
        ExportError: torch could not export the model, or ONNX and torch disagree.
        DataError: the images cannot be used, or their folders do not match the labels.
    """
    check_folder(out, kind="bundle", inputs=[path, *read_from(spec.data, out=out)])
    _check_listed(spec)
    weights = load_weights(path)
    dataset = scan(spec.data, labels=labels, empty_classes=empty_classes)
    check_calibration(spec.calibration, images=len(dataset.of("train")))
    input_size = spec.preprocess.input_size
    network = Network(spec.backbone, classes=len(dataset.labels), pretrained=False, input_size=input_size)
    fill(network, weights, what=f"{path}: not the weights of {spec.backbone.name} for {len(dataset.labels)} labels")
    inputs = {path.name: sha256_file(path)}
    return export_network(network, out, spec=spec, dataset=dataset, inputs=inputs, origin="import timm")
