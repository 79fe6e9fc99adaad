"""Common code of classify_grpc.py and classify_http.py: copy all three files. They need only tritonclient and numpy."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SUFFIXES = {".bmp", ".gif", ".heic", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MAX_FILE_BYTES = 128 * 2**20
OUTPUTS = ("LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE")
FULL_OUTPUTS = ("PROBABILITY", "EMBEDDING")
STATUS_NAMES = {0: "ok", 1: "empty", 2: "unsupported format", 3: "corrupt", 4: "too large", 5: "internal"}
FIELDS = ("file", "status", "status_name", "label", "score", "class_id", "candidates", "bundle", "error")
EPILOG = """\
Folders are searched recursively, in sorted order, for files with a common image suffix; a file that is named itself
is sent whatever its suffix. A file that cannot be read or that the server refuses is reported, and the others go on.

With --json there is one line per image, in that order, and the summary on the last line. Where the server gave no
status, it is null, and error says why.
  {"file", "status", "status_name", "label", "score", "class_id", "candidates", "bundle", "error"}
  {"summary": {"images", "answered", "not_answered", "model"}}

exit status: 0 all images answered; 1 some were not; 2 wrong usage; 3 the server cannot be reached or used
"""

Names = tuple[str, ...]
Row = dict[str, Any]
File = tuple[str, str | None]  # a path, and the reason why there is nothing to send


class ServerError(Exception):
    """A call that failed: the server refused it, did not answer in time, or is not there."""


class Client(Protocol):
    """The few calls in which tritonclient's gRPC and HTTP sides differ. Each raises ServerError."""

    def check_live(self) -> None: ...
    def models(self) -> list[str]: ...
    def config(self, model: str) -> dict[str, Any]: ...
    def infer(self, model: str, images_n1: NDArray[Any], outputs: Names) -> dict[str, NDArray[Any]]: ...


def main(about: str, *, port: int, connect: Callable[[str, float], Client]) -> int:
    """The whole of both scripts; returns the exit status."""
    args = parse_arguments(about, port=port)
    try:
        return run(connect(args.url, args.timeout_s), args)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 3
    except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C, or `| head`: nothing is left to tell
        os._exit(130)


def parse_arguments(about: str, *, port: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="an image file, or a folder of them")
    add("--model", required=True, help="the classifier's name")
    add("--url", default=f"127.0.0.1:{port}", help="host:port of tritonserver; default: %(default)s")
    add(
        "--batch-size",
        type=int,
        default=8,
        help="most images per request; default: %(default)s",
    )
    add("--timeout-s", type=float, default=10.0, help="deadline of each request, 0.01 s or more; default: %(default)s")
    add("--json", action="store_true", help="JSON lines in place of the table")
    add("--full", action="store_true", help='with --json: also "probability" of each class and "embedding", if any')
    args = parser.parse_args()
    if args.batch_size < 1:
        parser.error(f"--batch-size is {args.batch_size}; use 1 or more")
    if not 0.01 <= args.timeout_s <= 3600:
        parser.error(f"--timeout-s is {args.timeout_s}; use 0.01 to 3600 seconds")
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[1-6]?\d{1,4}", args.url):
        parser.error(f"--url is {args.url!r}; use host:port without a scheme, such as 127.0.0.1:{port}")
    if args.full and not args.json:
        parser.error("--full gives too many numbers for a table: add --json")
    return args


def run(client: Client, args: argparse.Namespace) -> int:
    """Classify every path, report each as it is answered, and return the exit status."""
    model = f"{args.model}_full" if args.full else args.model
    batch_size, served = check_model(client, model, url=args.url, batch_size=args.batch_size)
    wanted = OUTPUTS + FULL_OUTPUTS if args.full else OUTPUTS
    outputs = tuple(name for name in wanted if name in served)  # a network may have no EMBEDDING
    files = list(find_files(args.paths))
    rows: list[Row] = []
    exit_status = None
    try:
        for row in classify(client, model, files, batch_size, outputs):
            rows.append(row)
            if args.json:
                print(json.dumps(row), flush=True)
            if sys.stderr.isatty():
                progress = f"{len(rows)} of {len(files)} images" if len(rows) < len(files) else ""
                print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)
    except ServerError as error:
        print(f"{args.url} stopped answering after {len(rows)} of {len(files)} images ({error})", file=sys.stderr)
        exit_status = 3
    answered = sum(row["status"] == 0 for row in rows)
    summary = {"images": len(files), "answered": answered, "not_answered": len(files) - answered, "model": model}
    print(json.dumps({"summary": summary}) if args.json else f"{table(rows)}\n\n{answered} of {len(files)} answered")
    return exit_status or (0 if answered == len(files) else 1)


def check_model(client: Client, model: str, *, url: str, batch_size: int) -> tuple[int, set[str]]:
    """The batch size to use, and what `model` answers, once it is sure that it is a classifier that is ready."""
    try:
        client.check_live()
    except ServerError as error:
        raise ServerError(f"no tritonserver answers at {url}: start one, or name one with --url ({error})") from None
    try:
        config = client.config(model)
    except ServerError as error:
        raise ServerError(f"model {model!r} cannot be used ({error}); {ready(client)}") from None
    limit = int(config.get("max_batch_size", 0))
    served = {tensor["name"] for tensor in config.get("output", [])}
    if limit < 1 or not served >= set(OUTPUTS):
        raise ServerError(f"model {model!r} is not a classifier of Slipway; {ready(client)}")
    if batch_size > limit:
        print(f"{model} takes at most {limit} images a request: sending {limit}, not {batch_size}", file=sys.stderr)
    return min(batch_size, limit), served


def ready(client: Client) -> str:
    """The classifiers that can be named: the ensembles' steps and the `_full` twins are left out."""
    others = re.compile("(preprocess|guard|decode|engine|post|answer|fused)_|.*_full$")
    try:
        names = [name for name in client.models() if not others.match(name)]
    except ServerError as error:
        return f"the server does not list its models ({error})"
    return f"give --model one that is ready: {', '.join(sorted(names))}" if names else "no classifier is ready"


def find_files(paths: list[str]) -> Iterator[File]:
    for path in paths:
        if not os.path.isdir(path):
            yield path, None
            continue
        problems: list[OSError] = []
        found = [os.path.join(d, name) for d, _, names in os.walk(path, onerror=problems.append) for name in names]
        images = sorted(file for file in found if os.path.splitext(file)[1].lower() in SUFFIXES)
        if len(found) > len(images):
            print(f"{path}: left out {len(found) - len(images)} file(s) without an image suffix", file=sys.stderr)
        yield from ((image, None) for image in images)
        unread = [(str(problem.filename), f"cannot be read: {problem.strerror}") for problem in problems]
        yield from unread or ([] if images else [(path, "no image in this folder")])


def read(path: str) -> tuple[bytes, str | None]:
    """The file's bytes, or the reason why there are none."""
    try:
        if os.path.getsize(path) > MAX_FILE_BYTES or not os.path.isfile(path):
            return b"", f"not a regular file of at most {MAX_FILE_BYTES} bytes"
        with open(path, "rb") as file:
            return file.read(), None
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"


def classify(client: Client, model: str, files: list[File], batch_size: int, outputs: Names) -> Iterator[Row]:
    """Yield one row per file, in order; a request that fails costs its own images only, unless the server is gone."""
    for start in range(0, len(files), batch_size):
        chunk = files[start : start + batch_size]
        contents = [(b"", problem) if problem else read(path) for path, problem in chunk]
        images = [[data] for data, problem in contents if not problem]
        tensors, failure = {}, ""
        if images:
            try:
                tensors = client.infer(model, np.array(images, dtype=np.object_), outputs)
            except ServerError as error:
                client.check_live()
                failure = f"the request failed: {error}"
        answers = iter(zip(*tensors.values(), strict=True))
        for (path, _), (_, problem) in zip(chunk, contents, strict=True):
            row: Row = {**dict.fromkeys(FIELDS), "file": path, "candidates": [], "error": problem or failure or None}
            yield row if row["error"] else row | interpret(dict(zip(outputs, next(answers), strict=True)))


def interpret(tensors: dict[str, NDArray[Any]]) -> Row:
    """One image's tensors as plain values; padding is dropped."""
    status = int(tensors["STATUS"][0])
    ranked = zip(*(tensors[name].tolist() for name in ("LABEL", "SCORE", "CLASS_ID")), strict=True)
    best_first = [{"label": name.decode(), "score": p, "class_id": class_id} for name, p, class_id in ranked if name]
    row: Row = {"status": status, "status_name": STATUS_NAMES.get(status, f"status {status}")}
    row |= {name.lower(): tensors[name].tolist() for name in FULL_OUTPUTS if name in tensors}
    row |= best_first[0] if best_first else {}
    return row | {"candidates": best_first[1:], "bundle": tensors["BUNDLE"][0].decode()}


def table(rows: list[Row]) -> str:
    lines: list[tuple[str, ...]] = [("file", "label", "score", "next candidates", "status")]
    for row in rows:
        score = f"{row['score']:.3f}" if row["label"] else ""
        candidates = ", ".join(f"{c['label']} {c['score']:.3f}" for c in row["candidates"])
        cells = (row["file"], row["label"] or "", score, candidates, row["status_name"] or row["error"])
        lines.append(tuple(cell if cell.isprintable() else ascii(cell) for cell in cells))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
