"""Find similar images, by the embedding of a served classifier."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.client import Client, Options, Result, find_images
from slipway.contract import SpecError
from slipway.contract.shared_rules import IMAGE_SUFFIXES
from slipway.system.arguments import above_zero, add_action, count
from slipway.system.json_line import add_json, print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import command, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slipway.client.image_index import ImageIndex

URL = "grpc://127.0.0.1:8001"
LEAST = 0.95
EPILOG = f"""example:
  slipway index build photographs --model pets --out index
  slipway index like index new/cat.jpg new/dog.jpg --count 5
  slipway index duplicates index

build sends each image of the folder once to <model>_full, and keeps its EMBEDDING. All heads of a base have the same
embedding, so any of them will do. like embeds the given images, and first one image of the index: if its embedding has
changed, the index was built with another base or engine; build it again.

Similarity is the cosine of two embeddings, less the mean of the index: 1 for the same image, about 0 for any two. It
says how alike images are to the network. Look at some pairs before you choose --least, which is {LEAST:g} by default.

The search is exact: it compares with every image, so its recall is 1."""


def main(arguments: argparse.Namespace) -> None:
    arguments.run(arguments)


def build(arguments: argparse.Namespace) -> None:
    from slipway.client.image_index import ImageIndex  # not at the top: --help needs no library

    if not arguments.folder.is_dir():
        raise SpecError(f"{arguments.folder} is not a folder; give one with images")
    check_folder(arguments.out, kind="index", inputs=[arguments.folder])
    with _client(arguments.url, arguments.model) as client:
        index = ImageIndex.of(_answers(client, arguments.folder), model=arguments.model, folder=arguments.folder)
    index.write(arguments.out)
    images, size = index.embedding_nd.shape
    for name, reason in index.settings.skipped.items():
        print(f"left out: {shown(name)}: {shown(reason)}", file=sys.stderr)
    print(f"{arguments.out}: {images:,} images, {size} numbers each; {len(index.settings.skipped)} left out")
    print(f"  next: {command('slipway index duplicates', arguments.out)}")
    print_json(arguments, {"index": str(arguments.out), "images": images, "skipped": index.settings.skipped})


def like(arguments: argparse.Namespace) -> None:
    from slipway.client.image_index import ImageIndex

    if folder := next((path for path in arguments.image if path.is_dir()), None):
        raise SpecError(f"{folder} is a folder; give images, such as {folder}/*.jpg")
    index = ImageIndex.open(arguments.index)
    found = {}
    with _client(arguments.url, arguments.model or index.settings.model) as client:
        _check(index, client)
        for path, result in zip(arguments.image, client.classify_many(arguments.image, full=True), strict=True):
            matches = index.like(_embedding(result), count=arguments.count)
            print(shown(path))
            for match in matches:
                print(f"  {match.similarity:6.3f}  {shown(match.file)}")
            found[str(path)] = [vars(match) for match in matches]
    print(f"of {len(index.settings.files):,} images, by exact search: recall 1")
    print_json(arguments, {"like": found, "recall": 1.0})


def duplicates(arguments: argparse.Namespace) -> None:
    from slipway.client.image_index import ImageIndex

    index = ImageIndex.open(arguments.index)
    groups = index.duplicates(least=arguments.least)
    for group in groups:
        print("  ".join(f"{shown(match.file)} ({match.similarity:.3f})" for match in group))
    alike = sum(map(len, groups))
    print(
        f"{alike} of {len(index.settings.files):,} images in {len(groups)} groups, alike by {arguments.least:g} or more"
    )
    print_json(arguments, {"groups": [[vars(match) for match in group] for group in groups], "least": arguments.least})


def _client(url: str, model: str) -> Client:
    return Client(url, model=model, options=Options(deadline_s=30.0))


def _answers(client: Client, folder: Path) -> Iterator[tuple[str, Result]]:
    from tqdm import tqdm

    paths = list(find_images(folder))
    if paths == [folder]:
        raise SpecError(f"{folder}: no image in it; an index needs two, of any of {', '.join(sorted(IMAGE_SUFFIXES))}")
    answers = client.classify_many(paths, full=True)
    for path, result in zip(paths, tqdm(answers, total=len(paths), unit="image", disable=None), strict=True):
        yield os.path.relpath(path, folder), result


def _check(index: "ImageIndex", client: Client) -> None:
    from slipway.client.image_index import rows_that_exist

    rows = rows_that_exist(index.settings)
    if not rows:
        raise SpecError(f"{index.settings.folder}: none of the images of the index is there; build the index again")
    path = Path(index.settings.folder) / index.settings.files[rows[0]]
    index.check_same_space(_embedding(client.classify(path, full=True)), rows[0])


def _embedding(result: Result) -> "NDArray[np.float32]":
    if result.error is not None:
        raise result.error
    if not result.ok or result.embedding is None:
        reason = f"refused: {result.status_name}" if not result.ok else "answered without an embedding"
        raise SpecError(f"{result.source!s}: {reason}; give another image, or a classifier with an embedding")
    return result.embedding


def _similarity(text: str) -> float:
    return above_zero(text, f"invalid similarity {text!r}; use a number above 0, up to 1", most=1)


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    commands = parser.add_subparsers(prog="slipway index", required=True, metavar="build | like | duplicates")
    building = add_action(commands, "build", "ask a server for the embedding of each image of a folder")
    building.add_argument("folder", type=Path, help="folder with the images")
    building.add_argument("--model", required=True, help="the classifier's name")
    building.add_argument("--out", required=True, type=Path, help="folder to write the index to")
    building.set_defaults(run=build)
    asking = add_action(commands, "like", "find the images of an index that are like others")
    asking.add_argument("index", type=Path, help="folder that build wrote")
    asking.add_argument("image", type=Path, nargs="+", help="an image")
    asking.add_argument("--count", type=count, default=10, help="number of images to find")
    asking.add_argument("--model", help="the classifier's name; default: the one that built the index")
    asking.set_defaults(run=like)
    comparing = add_action(commands, "duplicates", "find images of an index that are alike")
    comparing.add_argument("index", type=Path, help="folder that build wrote")
    comparing.add_argument("--least", type=_similarity, default=LEAST, help="least similarity")
    comparing.set_defaults(run=duplicates)
    for one in (building, asking):
        one.add_argument("--url", default=URL, help="grpc://host:port or http://host:port")
    for one in (building, asking, comparing):
        add_json(one)
    return parser
