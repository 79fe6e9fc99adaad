"""Choose images of the journal to label, take labels in, and make a new version of the data set with them."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from slipway.contract import SpecError
from slipway.system.arguments import Parser, count
from slipway.system.json_line import add_actions, print_json, verb_parser
from slipway.system.text import command, few, shown

if TYPE_CHECKING:
    from slipway.operations.gateway.settings import GatewaySettings
    from slipway.operations.journal.store import Store
    from slipway.operations.labels.add_labels import Written
    from slipway.operations.labels.labelled_classifier import LabelledClassifier

EPILOG = """example:
  slipway labels select gateway.yaml
  slipway labels sheet gateway.yaml to-label          # or, with Label Studio: push, and later pull
  slipway labels add gateway.yaml to-label/labels.csv --annotator ann
  slipway labels status gateway.yaml
  slipway labels dataset gateway.yaml --data runs/digits/checkpoint --out data/digits-2

in gateway.yaml:
  repository: model_repository/cpu
  observe: {}
  labels:
    per_day: 200            # labels a day (UTC) of each classifier
    explore: 0.35           # share for any image alike
    novelty: 0.25           # share for images far from every class mean; the rest goes to doubtful ones
    label_studio:
      url: http://127.0.0.1:8080
      token_file: label-studio.token

select considers each row of the served bundle once, and keeps the probability with which it was chosen: the watch's
accuracy divides by it. add reads a CSV file with the columns label and row (or sha256). A label that the bundle does
not know needs --new-class. push and pull speak to Label Studio (docs/labels.md says how to start one); both may be
repeated, and killed at any moment. sheet writes the images without a label as files; write their labels into labels.csv
beside them, and leave empty what you do not know."""


class Opened(NamedTuple):
    """The classifier that an action is for, and its journal."""

    settings: "GatewaySettings"
    store: "Store"
    served: "LabelledClassifier"


def main(arguments: argparse.Namespace) -> None:
    from slipway.operations.gateway.settings import read_settings  # not at the top: --help needs no library
    from slipway.operations.journal.store import Store
    from slipway.operations.labels.labelled_classifier import LabelledClassifier

    settings = read_settings(arguments.settings)
    if settings.observe is None:
        raise SpecError(f"{arguments.settings}: observe: not given, so that there is no journal; add observe: {{}}")
    served = LabelledClassifier.of(settings, source=arguments.settings, classifier=arguments.classifier)
    with Store.of(settings, make=False) as store:
        arguments.run(arguments, Opened(settings, store, served))


def select(arguments: argparse.Namespace, on: Opened) -> None:
    from slipway.operations.labels.reference import reference_means
    from slipway.operations.labels.selection import choose
    from slipway.operations.labels.settings import Labels

    budget = on.settings.labels or Labels()
    found = choose(
        on.store,
        on.served.classifier,
        bundle=on.served.bundle,
        settings=budget,
        now_s=time.time(),
        labels=arguments.labels,
        means=reference_means(on.settings.journal, on.served.classifier, bundle=on.served.bundle),
    )
    left = f"{found.left} of the {budget.per_day} labels of the day (UTC) are left"
    if not found.considered and not found.left:
        print(f"{on.served.classifier}: {left}; new rows wait for the next selection")
    elif not found.considered:
        print(f"{on.served.classifier}: no new rows of bundle {on.served.bundle[:12]}; {left}")
    else:
        print(
            f"{on.served.classifier}: {found.considered:,} rows considered, {len(found.chosen):,} chosen for labels; "
            f"{left}\n  distances from {found.distances}"
        )
    print_json(
        arguments,
        {"classifier": on.served.classifier, "considered": found.considered, "rows": found.chosen, "left": found.left},
    )


def add(arguments: argparse.Namespace, on: Opened) -> None:
    from slipway.operations.labels.add_labels import check_annotator, read_given, write_given
    from slipway.operations.labels.truth import KNOWN

    annotator = KNOWN if arguments.known else check_annotator(arguments.annotator)
    given = read_given(on.store, arguments.labels, on.served, new_classes=arguments.new_class)
    written = write_given(on.store, given, annotator=annotator, now_s=time.time())
    print(f"{on.served.classifier}: {annotator}: {_counted(written)}")
    print_json(arguments, {"classifier": on.served.classifier, "annotator": annotator, **written.plain()})


def _counted(written: "Written") -> str:
    extra = f"; for {written.not_asked} of these rows nobody asked" if written.not_asked else ""
    return f"{written.new} new labels, {written.changed} changed, {written.same} as before{extra}"


def sheet(arguments: argparse.Namespace, on: Opened) -> None:
    from slipway.operations.labels.sheet import TABLE, write_sheet

    images, left_out = write_sheet(on.store, on.served.classifier, arguments.out)
    table = arguments.out / TABLE
    print(f"{table}: {images} images beside it; write the column label, from the top down")
    if left_out:
        print(f"  damaged or gone, and left out: row {few([str(row) for row in left_out])}")
    print(f"  then: {command('slipway labels add', arguments.settings, table, '--annotator', 'NAME')}")
    print_json(
        arguments,
        {"classifier": on.served.classifier, "images": images, "left_out": left_out, "table": str(table)},
    )


def push(arguments: argparse.Namespace, on: Opened) -> None:
    from slipway.operations.labels import studio

    rest, options = studio.connect(on.settings, source=arguments.settings)
    done = studio.push(on.store, on.served, rest, options)
    made = " (new)" if done.made else ""
    print(f"{rest.url}: project {done.project}{made}: {done.tasks} new tasks; {done.there} rows had one")
    if done.removed:
        print(f"  {done.removed} tasks removed, whose rows or images are gone")
    if done.unreadable:
        add = command("slipway labels add", arguments.settings, "FILE.csv", "--annotator", "NAME")
        print(f"  cannot be shown: row {few([str(row) for row in done.unreadable])}; label them with {add}")
    print_json(arguments, vars(done))


def pull(arguments: argparse.Namespace, on: Opened) -> None:
    from slipway.operations.labels import studio

    rest, options = studio.connect(on.settings, source=arguments.settings)
    done = studio.pull(on.store, on.served, rest, options, new_classes=arguments.new_class)
    for annotator, written in done.written.items():
        print(shown(f"{on.served.classifier}: {annotator}: {_counted(written)}"))
    if not done.written:
        print(f"{rest.url}: project {done.project}: no labels yet")
    if done.skipped:
        print(f"  {done.skipped} tasks were skipped")
    if done.removed:
        print(f"  {done.removed} tasks removed, whose rows or images are gone")
    for said in done.not_taken:
        print(shown(f"  not taken in: {said}"))
    result = {"skipped": done.skipped, "not_taken": done.not_taken, "removed": done.removed}
    print_json(arguments, {"project": done.project, **dict(studio.counted(done)), **result})


def status(arguments: argparse.Namespace, on: Opened) -> None:
    from slipway.operations.labels.quality import status_of

    found = status_of(on.store, on.served.classifier, labels=on.served.labels, crowd=arguments.quality)
    for line in found.lines():
        print(shown(line))
    print_json(arguments, {"classifier": on.served.classifier, **found.plain()})


def dataset(arguments: argparse.Namespace, on: Opened) -> None:
    from slipway.operations.labels.harvest import harvest
    from slipway.training.data.grow_dataset import grow, open_old

    old = open_old(arguments.data, root=arguments.root)
    images, left_out = harvest(on.store, on.served.classifier)
    print(f"{arguments.out}: joining {len(images):,} labelled images", flush=True)
    grown = grow(old, images, arguments.out, least=arguments.least, left_out=left_out)
    for line in grown.lines():
        print(shown(line))
    files = f"csv: {arguments.out / 'data.csv'}, labels: {arguments.out / 'labels.txt'}"
    print(f"  next: data: {{root: {arguments.out}, {files}}} in the spec, and slipway train")
    print_json(arguments, {"dataset": str(arguments.out), **grown.plain()})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    known = {
        "select": (select, "choose new rows for labels, within the day's budget"),
        "sheet": (sheet, "write the chosen images to a folder, with a CSV file for their labels"),
        "add": (add, "take in labels from a CSV file"),
        "push": (push, "show chosen images in Label Studio"),
        "pull": (pull, "take in labels from Label Studio"),
        "status": (status, "show labelled and undecided rows, and how often each annotator is right"),
        "dataset": (dataset, "write the data set with the labelled images in it"),
    }
    shared = Parser(add_help=False)
    shared.add_argument("settings", type=Path, metavar="FILE", help="the gateway's settings, with observe:")
    shared.add_argument("--classifier", metavar="NAME", help="default: the only classifier of the repository")
    made = add_actions(parser, "labels", known, shared)
    made["select"].add_argument(
        "--labels", type=count, metavar="N", help="labels to spend now; default: what is left of the day"
    )
    made["sheet"].add_argument("out", type=Path, metavar="OUT", help="new folder, which only you may read")
    _add_options(made["add"])
    for name in ("add", "pull"):
        made[name].add_argument(
            "--new-class", action="append", default=[], metavar="NAME", help="a label that the bundle does not know"
        )
    made["status"].add_argument("--quality", action="store_true", help="judge annotators by cleanlab too (extra train)")
    _dataset_options(made["dataset"])
    return parser


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "labels",
        type=Path,
        metavar="CSV",
        help="CSV file; columns label and row (or sha256); rows without a label are skipped",
    )
    who = command.add_mutually_exclusive_group(required=True)
    who.add_argument("--annotator", metavar="NAME", help="name of the person whose labels these are")
    who.add_argument(
        "--known", action="store_true", help="known answers: they decide, and annotators are judged by them"
    )


def _dataset_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="OLD",
        help="old data set: a checkpoint or bundle (its splits), a spec, a CSV file, or class folders",
    )
    command.add_argument(
        "--root", type=Path, metavar="FOLDER", help="folder that the paths of a CSV file start from; default: its own"
    )
    command.add_argument("--out", type=Path, required=True, metavar="NEW", help="folder to write")
    command.add_argument("--least", type=count, default=20, metavar="N", help="fewest images of a new class")
