"""Write the HTML page of a bundle's evaluation: classes, confusion, reliability, coverage, unknown, mistakes."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import Bundle, ManifestError, SpecError
from slipway.contract.evidence.build import BundleMeasured
from slipway.contract.evidence.evaluation import BundleEvaluation, read_bundle_evaluation
from slipway.system.json_line import print_json, verb_parser

if TYPE_CHECKING:
    from slipway.report.evaluation import Heatmaps

EPILOG = """example:
  slipway evaluate runs/digits/bundle

The numbers are those that export or import measured and wrote into the bundle. Beside the worst mistakes the page shows
where the network looked (Grad-CAM). That needs the checkpoint that the bundle was exported from: the folder checkpoint
beside it, or --checkpoint. Imported bundles and transformers have no Grad-CAM, and the page says so.
The page is self-contained. Run this where training ran, since the mistakes are read from the data set."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.pages import check_page, write  # not at the top: --help needs no library

    out = arguments.out or arguments.bundle.parent / "evaluation.html"
    check_page(out, kind="evaluation")
    from slipway.report.evaluation import Heatmaps, render  # after the check: it takes seconds

    bundle = Bundle.open(arguments.bundle)
    evaluation = read_bundle_evaluation(bundle.path, task=bundle.decision.task)
    heatmaps = Heatmaps("No Grad-CAM: it needs a classifier with one label per image, and this one gives several.")
    first, wrong = (
        {"map": evaluation.map, "exact_match": evaluation.exact_match},
        f"{len(evaluation.mistakes)} wrong labels listed",
    )
    if isinstance(evaluation, BundleEvaluation):
        first, wrong = {"top1": evaluation.top1}, f"{evaluation.wrong} wrong"
        heatmaps = looked(bundle, evaluation, arguments.checkpoint)
    write(render(bundle, evaluation, heatmaps), out, kind="evaluation")
    ece = evaluation.reliability.after
    print(f"{out}: {evaluation.images} test images, {out.stat().st_size / 1e6:.2f} MB")
    print(f"  {evaluation.primary_metrics}, macro-F1 {evaluation.macro_f1:.4f}, {wrong}")
    print(f"  ECE {ece.ece:.4f} ({ece.ece_interval[0]:.4f} to {ece.ece_interval[1]:.4f})")
    if isinstance(evaluation, BundleEvaluation) and evaluation.unknown is not None:
        print(f"  unknown: {evaluation.unknown.test.unknown_rate:.2%} of the test split, by {evaluation.unknown.score}")
    print(f"  {heatmaps.explained}")
    print_json(arguments, {"page": str(out), **first, "ece": ece.ece, "ece_interval": ece.ece_interval})


def looked(bundle: Bundle, evaluation: BundleEvaluation, checkpoint: Path | None) -> "Heatmaps":
    """Grad-CAM of the worst mistakes, or why there is none."""
    from slipway.pages.thumbnails import encode
    from slipway.report.evaluation import MISTAKES_SHOWN, Heatmaps

    if bundle.manifest.read_measured(BundleMeasured).origin != "checkpoint":
        if checkpoint is not None:
            raise SpecError(f"--checkpoint: {bundle.path} was not exported from a checkpoint; leave it out")
        if bundle.base is not None:
            return Heatmaps("No Grad-CAM: a head has no network of its own to compute gradients with.")
        return Heatmaps("No Grad-CAM: this bundle was imported, so it has no checkpoint to compute gradients with.")
    folder = checkpoint or bundle.path.parent / "checkpoint"
    if checkpoint is None and not folder.is_dir():
        return Heatmaps(f"No Grad-CAM: there is no {folder}; give the bundle's checkpoint with --checkpoint.")
    from slipway.training.bundle.grad_cam import grad_cams  # imports torch and captum

    shown = evaluation.mistakes[:MISTAKES_SHOWN]
    try:
        found = grad_cams(bundle, folder, [(m.image, (m.label, m.truth)) for m in shown])
    except ManifestError as error:
        if checkpoint is not None:
            raise
        return Heatmaps(f"No Grad-CAM: {error}")
    if found.layer is None:
        return Heatmaps(
            f"No Grad-CAM: it needs a stage with a map of channels, and {bundle.spec.backbone.name} has none (as "
            "transformers)."
        )
    return Heatmaps(
        f"The bright parts of the grey pictures speak for the answer, and for the truth, by Grad-CAM at the stage "
        f"{found.layer.name} ({found.layer.height} by {found.layer.width} places), in the network's own input.",
        {key: encode(picture) for key, picture in found.pictures.items()},
    )


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("bundle", type=Path, help="folder that slipway export or slipway import wrote")
    parser.add_argument("--out", type=Path, help="page to write; default: evaluation.html beside the bundle")
    parser.add_argument(
        "--checkpoint", type=Path, help="checkpoint for Grad-CAM; default: checkpoint beside the bundle"
    )
    return parser
