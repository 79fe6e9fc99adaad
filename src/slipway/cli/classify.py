"""Classify every image of a folder into a CSV file, and continue where an interrupted run stopped."""

import argparse
import csv
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slipway.client import Client, ClientError, Options, Result, find_images
from slipway.contract import SlipwayError, SpecError
from slipway.system.json_line import print_json, verb_parser
from slipway.system.text import from_cell, shown, to_cell

FIELDS = ("file", "status", "status_name", "label", "score", "class_id", "candidates", "bundle", "model", "error")
HEADER = ",".join(FIELDS).encode()
EPILOG = """\
example:
  slipway classify photographs --model flowers --out flowers.csv
  slipway classify photographs --model flowers --out flowers.csv     # again, after Ctrl-C: continues
  slipway classify photographs --model flowers --out flowers.csv --url http://127.0.0.1:8000 --concurrency 8 --json

The folder is searched recursively for files with a common image suffix. The CSV has one row for each file, with its
name relative to the folder; "candidates" is a JSON list of the labels after the first. A cell that a spreadsheet would
run as a formula (=1+1, @x, -x; numbers excepted) gets an apostrophe in front. A file that cannot be read, or that the
server refuses, gets a row with the reason; the others continue.

The same command again classifies the images without an answer: new files, rows with an "error", and a row that was half
written when the run was killed. Rows with a "status" are kept, whatever it is. A CSV of another model is an error.

If the server restarts, the command waits for it (--reconnect-s). A request that the server rejects for load is retried
within --deadline-s; at most a tenth of the requests are.

With --json the last line is {"summary": {"images", "answered", "not_answered", "kept", "seconds", "images_per_s",
"model", "csv"}}. "kept" counts the answers of earlier runs; "images_per_s" is about this run only.

exit status: 0 all images answered; 1 some were not; 2 wrong usage; 3 the server cannot be reached or used;
130 interrupted (143 by SIGTERM, 129 by SIGHUP).
After 3 or an interruption the same command continues from there.
"""

Kept = Mapping[str, bool]
"""The rows kept from an earlier run: name of the file to whether it was classified."""


def main(args: argparse.Namespace) -> int:
    try:
        return classify(args)
    except ClientError as error:
        print(shown(error), file=sys.stderr)
        return 3
    except SlipwayError as error:
        print(shown(error), file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{shown(error.filename or args.out)}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command continues from here") from None


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder with the images")
    add("--model", required=True, help="the classifier's name")
    add("--out", required=True, type=Path, metavar="CSV", help="table of the answers; continued if it exists")
    add("--url", default="grpc://127.0.0.1:8001", help="grpc[s]://host:port or http[s]://host:port")
    add("--batch-size", type=int, metavar="N", help="images per request; default: as many as the model takes")
    add("--concurrency", type=int, default=4, metavar="N", help="requests under way at once")
    add("--deadline-s", type=float, default=30.0, metavar="S", help="seconds per request, 0.01 or more")
    add("--reconnect-s", type=float, default=120.0, metavar="S", help="seconds to wait for a lost server")
    add("--shrink-px", type=int, metavar="N", help="shrink large JPEGs, to N pixels or more on the shorter side")
    add("--key-file", type=Path, metavar="FILE", help="file with the key of a gateway")
    add("--certificate", type=Path, metavar="PEM", help="certificate to trust with grpcs:// and https://")
    return parser


def classify(args: argparse.Namespace) -> int:
    """Classify the images without an answer, print the summary, and return the exit status."""
    options = Options(
        deadline_s=args.deadline_s,
        concurrency=args.concurrency,
        batch_size=args.batch_size,
        reconnect_s=args.reconnect_s,
        shrink_px=args.shrink_px,
        key=read_key(args.key_file) if args.key_file is not None else None,
        certificate=args.certificate,
    )
    if not args.folder.is_dir():
        raise SpecError(f"{args.folder} is not a folder; give one with images")
    with Client(args.url, model=args.model, options=options) as client:
        kept = keep_answers(args.out, model=args.model)
        named = {os.path.relpath(path, args.folder): path for path in find_images(args.folder)}
        missing = {name: path for name, path in named.items() if name not in kept}
        answered = sum(kept[name] for name in named.keys() & kept.keys())
        started_s = time.monotonic()
        with args.out.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, FIELDS)
            results = client.classify_many(missing.values()) if missing else iter(())
            progress = tqdm(results, total=len(named), initial=len(named) - len(missing), unit="image", disable=None)
            for name, result in zip(missing, progress, strict=False):
                writer.writerow(row(name, result, model=args.model))
                file.flush()
                answered += result.ok
    report(args, images=len(named), answered=answered, asked=len(missing), seconds=time.monotonic() - started_s)
    return 0 if answered == len(named) else 1


def read_key(path: Path) -> str:
    """The key in a file: in an argument, every user of the machine could read it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--key-file {path} cannot be read: {error}") from None


def keep_answers(path: Path, *, model: str) -> Kept:
    """Rewrite the file with the rows that are whole and have a status, and return these."""
    kept: dict[str, bool] = {}
    beside = path.with_name(f"{path.name}.new")
    try:
        with beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            for old in read_rows(path, model=model) if path.exists() else ():
                if old["status"] and from_cell(old["file"]) not in kept:
                    kept[from_cell(old["file"])] = old["status"] == "0"
                    writer.writerow(old)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return kept


def read_rows(path: Path, *, model: str) -> Iterator[dict[str, str]]:
    """The complete rows of an earlier run; a run that was killed leaves the last one half written."""
    with path.open("rb") as file:
        head = file.read(len(HEADER))
        if not HEADER.startswith(head):
            raise SpecError(f"{path} is not a CSV file of this tool; give another --out")
        file.seek(0)
        for record in itertools.islice(whole_records(file), 1, None):
            if len(record) != len(FIELDS):
                continue
            old = dict(zip(FIELDS, record, strict=True))
            if old["model"] != model:
                raise SpecError(f"{path} has answers of model {old['model']!r}, not {model!r}; give another --out")
            yield old


def whole_records(lines: Iterable[bytes]) -> Iterator[list[str]]:
    record = b""
    for line in lines:
        record += line
        if record.endswith(b"\n") and record.count(b'"') % 2 == 0:  # otherwise a name contains a line break
            yield from csv.reader([record.decode("utf-8", "surrogateescape")])
            record = b""


def row(name: str, result: Result, *, model: str) -> dict[str, Any]:
    candidates = [{"label": c.label, "score": c.score, "class_id": c.class_id} for c in result.candidates]
    fields = {field: getattr(result, field, None) for field in FIELDS}
    fields |= {"file": name, "model": model, "candidates": json.dumps(candidates)}
    return {field: to_cell(value) if isinstance(value, str) else value for field, value in fields.items()}


def report(args: argparse.Namespace, *, images: int, answered: int, asked: int, seconds: float) -> None:
    summary = {
        "images": images,
        "answered": answered,
        "not_answered": images - answered,
        "kept": images - asked,
        "seconds": round(seconds, 3),
        "images_per_s": round(asked / seconds, 1),
        "model": args.model,
        "csv": str(args.out),
    }
    print("{answered} of {images} answered; {images_per_s} images/s; {csv}".format_map(summary))
    print_json(args, {"summary": summary})
