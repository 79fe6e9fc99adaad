"""Make a bundle from a network that you have: an ONNX file, or weights of a timm model, with labelled images."""

import argparse
from pathlib import Path
from typing import Any

from slipway.contract import SpecError
from slipway.contract.evidence.build import BundleMeasured
from slipway.contract.labels import read_label_list
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import command, shown

EPILOG = """examples:
  slipway import pets.yaml --onnx pets.onnx --labels labels.txt --out runs/pets/bundle
  slipway import pets.yaml --weights pets.safetensors --labels labels.txt --out runs/pets/bundle

The spec is the same YAML file as for training; recipe is ignored. data.root is a folder with one sub-folder of images
per class: its validation split fits the decision, its test split measures the accuracy, and the rest gives the
calibration sample. Nothing is trained. For a timm model, preprocess may be left out."""


def main(arguments: argparse.Namespace) -> None:
    check_folder(arguments.out, kind="bundle")

    from slipway.training import complete_spec, import_onnx, import_timm  # after the check: it takes seconds

    labels = read_label_list(arguments.labels) if arguments.labels else None
    spec, origin = complete_spec(
        arguments.spec,
        onnx=arguments.onnx,
        labels_given=labels is not None or arguments.labels_from_folders,
        preprocess_from=arguments.preprocess_from_timm,
    )
    if origin:
        print(f"preprocess as timm's {origin}: {spec.preprocess.model_dump_json(exclude={'colour', 'decoder'})}")
    classes: dict[str, Any] = {"labels": labels, "empty_classes": arguments.allow_empty_classes}
    if arguments.onnx:
        tensors = {"logits": arguments.logits, "embedding": arguments.embedding}
        with_embedding = not arguments.no_embedding
        manifest = import_onnx(spec, arguments.onnx, arguments.out, with_embedding=with_embedding, **tensors, **classes)
    elif arguments.logits or arguments.embedding or arguments.no_embedding:
        raise SpecError("--logits, --embedding and --no-embedding apply to an ONNX file; leave them out with --weights")
    else:
        manifest = import_timm(spec, arguments.weights, arguments.out, **classes)
    summarise(arguments.out, manifest.bundle, manifest.read_measured(BundleMeasured))
    print_json(arguments, {"bundle": str(arguments.out), "id": manifest.bundle, **manifest.measured})


def summarise(out: Path, identity: str | None, measured: BundleMeasured) -> None:
    print(f"{out}: bundle {str(identity)[:12]}")
    for ours, given in measured.tensors.items():
        print(f"  {ours} is the file's {shown(given)}")
    for change in measured.changes:
        print(f"  {shown(change)}")
    if not measured.embedding_size:
        print("  no embedding: `unknown` is decided by the logits, and <name>_full has no EMBEDDING")
    if measured.classes_without_images:
        print(f"  {measured.classes_without_images} classes have no image: their accuracy is unknown")
    if measured.max_logit_difference is not None:
        print(f"  ONNX against torch: same labels, max |Δlogit| {measured.max_logit_difference:.2g}")
    print(
        f"  test split, {measured.images} images, FP32: {measured.primary_metrics}, "
        f"macro-F1 {measured.macro_f1:.4f}, ECE {measured.ece:.4f} (before calibration "
        f"{measured.ece_uncalibrated:.4f}, temperature {measured.temperature})"
    )
    print(
        "  lower than expected? check that the labels are in the order of the logits, and that preprocess is training's"
    )
    print(f"  next: {command('slipway quantize', out, '--out', out.parent / 'graphs' / 'int8')}")


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("spec", type=Path, help="YAML file: name, data, and every setting that differs from the defaults")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--onnx", type=Path, help="ONNX file, FP32 [n, 3, H, W] in, logits out")
    network.add_argument("--weights", type=Path, help="safetensors file with the state dict of backbone.name")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument("--labels", type=Path, help="text file: one label per line, in the order of the logits")
    labels.add_argument(
        "--labels-from-folders", action="store_true", help="take the sorted class folders as the order of the logits"
    )
    add(
        "--allow-empty-classes",
        action="store_true",
        help="allow labels without images; the evaluation then covers the other labels only",
    )
    add("--preprocess-from-timm", metavar="MODEL", help="prepare images as timm does for this model's weights")
    add("--logits", metavar="TENSOR", help="tensor with the logits, if the ONNX file has several outputs")
    embedding = parser.add_mutually_exclusive_group()
    embedding.add_argument(
        "--embedding", metavar="TENSOR", help="tensor with the embedding; default: the input of the last matrix product"
    )
    embedding.add_argument(
        "--no-embedding",
        action="store_true",
        help="leave the embedding out; `unknown` can then not use distances in it",
    )
    add("--out", type=Path, required=True, help="the bundle folder, for example runs/pets/bundle")
    return parser
