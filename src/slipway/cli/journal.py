"""Keep a sample of requests and answers, with the images: the journal behind a gateway."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import SpecError
from slipway.system.arguments import Parser, count
from slipway.system.json_line import add_actions, print_json, verb_parser
from slipway.system.process import told_to_end
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.operations.gateway.settings import GatewaySettings
    from slipway.operations.journal.backup import Progress

EPILOG = """example:
  slipway serve model_repository/example --gateway gateway.yaml &
  slipway journal run gateway.yaml &
  slipway journal status gateway.yaml
  slipway journal rows gateway.yaml --last 5
  slipway journal forget gateway.yaml 4711
  slipway journal backup gateway.yaml /backup/journal
  slipway journal restore gateway.yaml /backup/journal      # where there is no journal

in gateway.yaml:
  observe:
    share: 0.05             # share of the requests to keep at a low rate
    per_second: 5           # average limit: probability min(share, per_second / rate), kept with each row
    journal: journal        # folder; default: in the gateway's folder below ~/.local/state/slipway
    spool: /run/slipway     # preferably a tmpfs of its own; default: in the gateway's folder
    spool_mib: 64           # taps that do not fit are dropped and counted
    image_days: 30
    row_days: 365
    metrics_port: 8005      # GET http://127.0.0.1:8005/metrics

The gateway taps requests into the spool. run takes them from there: it asks <name>_full again for each image, writes a
row and the image, and removes the tap file. It may be killed at any moment without losing or repeating a row. If the
same bundle gives another answer than before, run prints a line that begins with alert: (docs/journal.md).

No client address and no key is kept. forget takes the number of a row, the SHA-256 of an image, or the id of a request,
and removes the rows, and the images that no other row has. prune removes images older than image_days and rows older
than row_days; run does so every hour.

backup copies rows, images, and the files of the watch and the labels, while all of them keep running; called again, it
copies only new images. restore checks every file, and never overwrites a journal (docs/recovery.md)."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.operations.gateway.settings import read_settings  # not at the top: --help needs no library

    settings = read_settings(arguments.settings)
    if settings.observe is None:
        raise SpecError(f"{arguments.settings}: observe: not given, so that nothing is tapped; add observe: {{}}")
    arguments.run(arguments, settings)


def run(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.journal.run import run_collector
    from slipway.serving.messages import Messages

    ended = told_to_end()
    with closing(Messages(sys.stderr.fileno())) as messages:  # a terminal that is gone must not end the collector
        taken = run_collector(settings, ended=ended, say=messages.say, once=arguments.once)
    print_json(arguments, taken)


def status(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.journal.status import status_of

    found = status_of(settings)
    for line in found.lines():
        print(line)
    print_json(arguments, found.plain())


def rows(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.journal.status import last_rows
    from slipway.system.text import shown

    found = last_rows(settings, last=arguments.last, classifier=arguments.classifier)
    if found:
        print(
            f"{'row':>8}  {'time':<20}  {'classifier':<16} {'status':<8}  {'label, score':<24} {'image':<16} "
            f"{'arm':<9}  {'chosen':<8}  replay"
        )
    for row in found:
        score = "-" if row["score"] is None else f"{row['score']:.4f}"
        label = "-" if row["label"] is None else f"{shown(str(row['label']))} {score}"
        size = f"{row['width']}x{row['height']} {row['format']}" if row["width"] else f"{row['bytes']} bytes"
        print(
            f"{row['id']:>8}  {row['time']}  {row['classifier']:<16} status {row['status']}  {label:<24} {size:<16} "
            f"{row['arm']:<9}  {'1 in ' + format(1 / row['sampled_with'], '.4g'):<8}  {row['parity']}"
        )
    if not found:
        print("no rows")
    print_json(arguments, {"rows": found})


def forget(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.journal import forget as forgetting
    from slipway.operations.journal.store import Store

    total = {"rows": 0, "images": 0, "spooled": 0}
    with Store.of(settings, make=False) as store:
        for given in arguments.id:
            done = forgetting.forget(store, settings.spool, given)
            waiting = f"; {done['spooled']} images that wait in the spool will get no row" if done["spooled"] else ""
            print(f"{given}: {done['rows']} rows and {done['images']} images removed{waiting}")
            total = {name: total[name] + done[name] for name in total}
    if not any(total.values()):
        raise SpecError(
            f"{', '.join(arguments.id)}: nothing in the journal has this name; give the number of a row "
            f"({command('slipway journal rows', settings.file)}), the SHA-256 of an image, or the id of a request"
        )
    print_json(arguments, total)


def prune(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.journal.run import prune_now
    from slipway.operations.journal.store import Store

    with Store.of(settings, make=False) as store:
        removed = prune_now(store, settings)
    print(f"{settings.journal}: {removed['rows']:,} rows and {removed['images']:,} images removed")
    print_json(arguments, removed)


def backup(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.journal.backup import back_up
    from slipway.operations.journal.store import Store

    with Store.of(settings, make=False) as store, _progress("backing up") as progress:
        index, copied = back_up(store, arguments.folder, progress=progress)
    print(f"{arguments.folder}: {index.rows:,} rows and {index.images:,} images, {copied:,} of them new")
    print_json(arguments, {"rows": index.rows, "images": index.images, "copied": copied})


def restore(arguments: argparse.Namespace, settings: "GatewaySettings") -> None:
    from slipway.operations.journal.backup import restore as restore_journal

    with _progress("restoring") as progress:
        index, left_out = restore_journal(
            arguments.folder, settings.journal, progress=progress, without_damaged=arguments.without_damaged
        )
    for sha256 in left_out:
        print(f"{sha256}: damaged or missing, and left out; its rows stay")
    images = index.images - len(left_out)
    print(f"{settings.journal}: {index.rows:,} rows and {images:,} images, as of {index.made}")
    again = command("slipway journal forget", settings.file, "ID")
    print(
        f"what was forgotten after that is there again: repeat {again} for it, by the id of the request or the "
        "SHA-256 of the image, since numbers of rows are given anew"
    )
    print_json(arguments, {"rows": index.rows, "images": images, "left_out": left_out, "made": index.made})


@contextmanager
def _progress(what: str) -> "Iterator[Progress]":
    from tqdm import tqdm

    with tqdm(desc=what, unit="image", leave=False, disable=None, delay=1) as bar:
        yield bar.update


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    known = {
        "run": (run, "empty the spool into the journal, until Ctrl-C"),
        "status": (status, "say how much there is, and whether replays agree"),
        "rows": (rows, "show the last rows"),
        "forget": (forget, "remove rows and images that you name"),
        "prune": (prune, "remove now what is older than its days"),
        "backup": (backup, "copy the journal to a folder, while it is written"),
        "restore": (restore, "write the journal of a backup where there is none"),
    }
    shared = Parser(add_help=False)
    shared.add_argument("settings", type=Path, metavar="FILE", help="the gateway's settings, with observe:")
    made = add_actions(parser, "journal", known, shared)
    made["run"].add_argument("--once", action="store_true", help="end when the spool is empty")
    made["rows"].add_argument("--last", type=count, default=20, help="number of rows")
    made["rows"].add_argument("--classifier", help="rows of this classifier only")
    made["forget"].add_argument("id", nargs="+", help="number of a row, SHA-256 of an image, or id of a request")
    made["backup"].add_argument("folder", type=Path, help="new folder, or a backup to bring up to date")
    made["restore"].add_argument("folder", type=Path, help="folder that backup wrote")
    made["restore"].add_argument(
        "--without-damaged", action="store_true", help="leave damaged and missing images out, and keep their rows"
    )
    return parser
