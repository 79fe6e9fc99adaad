"""Explain a row of the journal: the image, the answer, where the network looked, and training images like it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slipway.contract import (
    Bundle,
    Choice,
    Lane,
    ManifestError,
    MissingDependencyError,
    SlipwayError,
    SpecError,
    read_labels,
)
from slipway.contract.base_bundle import Base
from slipway.contract.choice import FILE_NAME as CHOICE
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.engine import engine_name
from slipway.contract.evidence.build import BundleMeasured
from slipway.contract.lane import FILE_NAME as LANE
from slipway.system.arguments import count
from slipway.system.json_line import print_json, verb_parser

if TYPE_CHECKING:
    from slipway.evaluation.neighbours import Embed
    from slipway.operations.gateway.settings import GatewaySettings
    from slipway.operations.labels.explained import ExplainedRow
    from slipway.pages.thumbnails import Thumbnail
    from slipway.report.explanation import Near
    from slipway.training.bundle.grad_cam import GradCams

CHANCES, NEAR, LOOKED_AT = 5, 8, 2
EPILOG = """example:
  slipway explain gateway.yaml 4711 --run runs/digits
  slipway explain gateway.yaml 4712 --run runs/pets --base runs/lite0

ROW is a number of slipway journal rows. The page shows the image, the answer with its probabilities, what annotators
say, and, with --run, Grad-CAM (from RUN/checkpoint) and the nearest training images by embedding (from RUN/bundle,
where the images of the data set are). A head has both by the run of its base, --base. What is missing is named on the
page with its reason. The page loads nothing."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.operations.gateway.settings import read_settings  # not at the top: --help needs no library
    from slipway.operations.journal.store import Store
    from slipway.operations.labels.explained import read_row
    from slipway.pages import check_page, write
    from slipway.report.explanation import Chance, Explanation, render

    settings = read_settings(arguments.settings)
    out = arguments.out or Path(f"row-{arguments.row}.html")
    check_page(out, kind="explanation")
    if settings.observe is None:
        raise SpecError(f"{arguments.settings}: observe: not given, so that there is no journal; add observe: {{}}")
    with Store.of(settings, make=False) as store:
        row = read_row(store, arguments.row)
    bundle = None if arguments.run is None else _bundle(arguments.run, row)
    base = _base(arguments.base, bundle)
    labels = _labels(settings, row, bundle)
    chances = [Chance(label, probability) for label, probability in _chances(row, labels)]
    near, near_told = _near(row, bundle, base)
    heat, heat_told = _looked(row, bundle, arguments.run, base, [chance.label for chance in chances[:LOOKED_AT]])
    page = Explanation(
        title=f"{row.classifier}, row {row.number}",
        answer=row.answer(
            likeliest=f"{chances[0].label} with a probability of {chances[0].probability:.4f}" if chances else None,
            several=bundle is not None and bundle.decision.task == "multilabel",
        ),
        image=_picture(row),
        chances=chances,
        facts={**row.facts, "bundle": str(row.bundle)},
        said=row.said,
        said_told=row.said_told if row.said else "",
        near=near,
        near_told=near_told,
        heat=heat,
        heat_told=heat_told,
    )
    write(render(page), out, kind="explanation", mode=0o600)  # it holds an image of the journal
    print(f"{out}: {page.answer}\n  {near_told}\n  {heat_told}")
    found = {"near": [one.path for one in near], "near_told": near_told, "heat": [*heat], "heat_told": heat_told}
    print_json(arguments, {"page": str(out), "row": row.number, "label": row.label, **found})


def _bundle(run: Path, row: "ExplainedRow") -> Bundle:
    bundle = Bundle.open(run / "bundle")
    if bundle.id != row.bundle:
        raise SpecError(
            f"--run {run}: has bundle {bundle.id:.12}, but row {row.number} was answered by {row.bundle!s:.12}; "
            "give the run of that bundle, or leave --run out"
        )
    return bundle


def _base(run: Path | None, bundle: Bundle | None) -> Base | None:
    """Raises SpecError: it is not the base of the head in the row's run."""
    if run is None:
        return None
    if bundle is None or bundle.base is None:
        raise SpecError(f"--base {run}: goes with the run of a head, which --run gives; leave --base out")
    base = Base.open(run / "base")
    if base.id != bundle.base.id:
        raise SpecError(
            f"--base {run}: has base {base.id:.12}, but {bundle.path} is a head of {bundle.base.name}, "
            f"{bundle.base.id:.12}; give the run of that base"
        )
    return base


def _labels(settings: "GatewaySettings", row: "ExplainedRow", bundle: Bundle | None) -> tuple[str, ...]:
    """The labels of the row's bundle: of the run, or of the served repository; none if neither has this bundle."""
    if bundle is not None:
        return bundle.labels
    repository = Path(settings.repository or "")
    if settings.repository is None or not (repository / LANE).is_file():
        return ()
    if Lane.read(repository / LANE).classifiers.get(row.classifier) != row.bundle:
        return ()
    return read_labels(repository / f"{row.classifier}_full" / "labels.txt")


def _chances(row: "ExplainedRow", labels: tuple[str, ...]) -> list[tuple[str, float]]:
    """The likeliest labels; class ids if no run names them."""
    if row.probability is None:
        return []
    order = np.argsort(-row.probability, kind="stable")[:CHANCES].tolist()
    names = {row.class_id: row.label} if row.label else {}
    return [
        (labels[i] if i < len(labels) else str(names.get(i, f"class {i}")), float(row.probability[i])) for i in order
    ]


def _near(row: "ExplainedRow", bundle: Bundle | None, base: Base | None) -> "tuple[list[Near], str]":
    """The nearest training images with a caption, or the reason why there are none."""
    reason = _why_none_near(row, bundle, base)
    if reason or bundle is None or row.embedding is None:
        return [], f"No training images: {reason}"
    from slipway.evaluation.neighbours import nearest
    from slipway.pages.thumbnails import Thumbnails
    from slipway.report.explanation import Near

    print(f"{bundle.path}: embedding training images", flush=True)
    try:
        found = nearest(bundle, row.embedding, count=NEAR, embed=None if base is None else _by_base(base))
    except (SlipwayError, ImportError) as error:
        return [], f"No training images: {error}"
    dataset = Dataset.read(bundle.path / DATASET)
    pictures = Thumbnails(dataset, exif_orientation=bundle.preprocess.exif_orientation)
    near = [Near(pictures.of(one.image.path), one.image.path, one.label, one.cosine) for one in found.found]
    of = f"{found.compared:,} of the {found.of:,}" if found.compared < found.of else f"{found.of:,}"
    return near, f"The nearest of {of} training images by the cosine of their embeddings, with their labels."


def _by_base(base: Base) -> "Embed":
    """Embed images by the engine that serves the base on the cpu lane, or by FP32 if none does. The base's run keeps
    the embeddings, which were computed there when the head was fitted."""
    from slipway.engines.embedders import embedder_of
    from slipway.training.heads.embeddings import FOLDER, embed

    run = base.path.parent
    choice = run / "engines" / CHOICE
    name = Choice.read(choice).chosen if choice.is_file() else engine_name("openvino", "fp32")
    embedder = embedder_of(base, base.open_engine(run / "engines" / name), run / "graphs")
    return lambda dataset, images: embed(base, {name: embedder}, dataset, images, cache=run / FOLDER)[name].of(images)


def _why_none_near(row: "ExplainedRow", bundle: Bundle | None, base: Base | None) -> str:
    if row.is_refused:
        return "the image was refused."
    if bundle is None:
        return "give the run of the bundle with --run."
    if row.embedding is None or not row.embedding.size:
        return "the row has no embedding."
    if bundle.decision.task != "multiclass":
        return "the classifier gives several labels for an image."
    if not (bundle.path / DATASET).is_file():
        return "the bundle has no data set."
    return _why_no_base(bundle, base)


def _why_no_base(bundle: Bundle, base: Base | None) -> str:
    if bundle.base is None or base is not None:
        return ""
    return f"give the run of the head's base, {bundle.base.name}, with --base."


def _looked(
    row: "ExplainedRow", bundle: Bundle | None, run: Path | None, base: Base | None, labels: list[str]
) -> "tuple[dict[str, Thumbnail], str]":
    """Grad-CAM by label with a caption, or the reason why there is none."""
    reason = _why_not_looked(row, bundle, run, base)
    if reason or bundle is None or run is None or row.image is None:
        return {}, f"No Grad-CAM: {reason}"
    print(f"{run / 'checkpoint' if base is None else base.path}: loading the network for Grad-CAM", flush=True)
    try:
        from slipway.pages.thumbnails import encode

        found = _grad_cams(bundle, run, base, row.image, labels)
    except ImportError as error:
        return {}, f"No Grad-CAM: {error}; pip install 'slipway[train]'."
    except (ManifestError, MissingDependencyError) as error:
        return {}, f"No Grad-CAM: {error}"
    if found.layer is None:
        return {}, f"No Grad-CAM: {bundle.spec.backbone.name} has no stage with a map of channels (as transformers)."
    pictures = {label: encode(picture) for (_, label), picture in found.pictures.items()}
    return (
        pictures,
        f"The bright parts of the grey pictures speak for the label below, by Grad-CAM at {found.layer.name}.",
    )


def _grad_cams(bundle: Bundle, run: Path, base: Base | None, image: bytes, labels: list[str]) -> "GradCams":
    from slipway.training.bundle.grad_cam import grad_cams_of, grad_cams_of_head

    wanted = [("image", image, labels)]
    if base is not None:
        return grad_cams_of_head(bundle, base, wanted)
    return grad_cams_of(bundle, run / "checkpoint", wanted)


def _why_not_looked(row: "ExplainedRow", bundle: Bundle | None, run: Path | None, base: Base | None) -> str:
    if row.is_refused:
        return "the image was refused."
    if bundle is None or run is None:
        return "give the run of the bundle with --run."
    if row.image is None:
        return "the image is no longer kept."
    if bundle.base is not None:
        return _why_no_base(bundle, base)
    if bundle.manifest.read_measured(BundleMeasured).origin != "checkpoint":
        return "the bundle was not exported from a checkpoint, so nothing computes gradients."
    folder = run / "checkpoint"
    return "" if folder.is_dir() else f"there is no {folder}."


def _picture(row: "ExplainedRow") -> "Thumbnail":
    from slipway.operations.journal.pictures import small_picture
    from slipway.pages.thumbnails import SIDE, Thumbnail, encode

    if row.image is None:
        return Thumbnail(flaw="refused images are not kept" if row.is_refused else "it is no longer kept")
    picture = small_picture(row.image, side=2 * SIDE)
    return Thumbnail(flaw="it cannot be read here") if picture is None else encode(picture)


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("settings", type=Path, metavar="FILE", help="the gateway's settings, with observe:")
    parser.add_argument("row", type=count, metavar="ROW", help="number of the row")
    parser.add_argument("--run", type=Path, metavar="RUN", help="run of the bundle that answered, such as runs/digits")
    parser.add_argument("--base", type=Path, metavar="RUN", help="run of the base, if the bundle is a head")
    parser.add_argument("--out", type=Path, metavar="FILE", help="page to write; default: row-ROW.html")
    return parser
