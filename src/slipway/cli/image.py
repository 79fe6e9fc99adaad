"""Ship a model repository as a signed OCI image: build, sign, push, pull, verify and unpack it, without docker."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import OciImageError
from slipway.oci.reference import LayoutReference, RegistryReference
from slipway.system.arguments import add_action, parsed
from slipway.system.json_line import add_json, print_json, verb_parser
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.oci.documents import Descriptor
    from slipway.oci.layout import ImageLayout
    from slipway.oci.transfer import Moved, Progress

EPILOG = """example:
  slipway image build model_repository/example images:v1
  slipway image sbom images:v1
  slipway image sign images:v1 --key private.pem
  slipway image push images:v1 registry.example:5000/team/colours:v1
  slipway image pull registry.example:5000/team/colours:v1 here:v1      # on another machine
  slipway image verify here:v1 --key public.pem
  slipway serve oci-layout:here:v1 --key public.pem

An image is FOLDER:TAG or FOLDER@sha256:DIGEST; for a folder with one image, FOLDER is enough. Equal repositories give
equal digests on any machine. Each step is a layer, so a new version transfers only the changed
steps. docs/oci-image.md"""


def main(arguments: argparse.Namespace) -> None:
    arguments.run(arguments)


def build(arguments: argparse.Namespace) -> None:
    from slipway.oci.build import build as build_image  # not at the top: --help needs no library

    built = build_image(arguments.repository, arguments.image)
    tag = arguments.image.tag or "latest"
    new = sum(layer.size for layer in built.written)
    print(f"{arguments.image.folder}:{tag} is {built.image.digest}")
    print(f"  {len(built.manifest.layers)} layers: {len(built.written)} new of {new:,} bytes, {built.reused} reused")
    image = {"digest": built.image.digest, "tag": tag, "layers": len(built.manifest.layers)}
    print_json(arguments, {**image, "new_layers": len(built.written), "new_bytes": new})


def verify(arguments: argparse.Namespace) -> None:
    from slipway.oci.verify import verify as verify_image

    layout, image = _open(arguments)
    signed = check_signature(layout, image, arguments.key)
    verified = verify_image(layout, image)
    print(f"{image.digest}: {verified.files} files in {len(verified.manifest.layers)} layers are as they were built")
    print(f"  {signed_line(arguments.key, signed)}")
    if not verified.sboms:
        print("  no SBOM is beside it")
    facts = {"digest": image.digest, "lane": verified.lane.lane, "files": verified.files, "bytes": verified.bytes}
    print_json(arguments, {**facts, "signed": signed, "sboms": verified.sboms})


def unpack(arguments: argparse.Namespace) -> None:
    from slipway.oci.verify import unpack as unpack_image

    layout, image = _open(arguments)
    signed = check_signature(layout, image, arguments.key)
    unpack_image(layout, image, arguments.folder)
    print(f"{arguments.folder}: the repository of {image.digest}, every file as it was built")
    print(f"  {signed_line(arguments.key, signed)}")
    print(f"  next: {command('slipway serve', arguments.folder)}")
    print_json(arguments, {"digest": image.digest, "folder": str(arguments.folder), "signed": signed})


def sbom(arguments: argparse.Namespace) -> None:
    from slipway.oci.artefacts import SBOM
    from slipway.oci.layout import ImageLayout
    from slipway.oci.sbom import Lock
    from slipway.oci.sbom import sbom as write_sbom
    from slipway.oci.verify import verify as verify_image

    ImageLayout.open(arguments.image.folder)
    with ImageLayout.writing(arguments.image.folder) as layout:
        image = layout.find(arguments.image)
        verified = verify_image(layout, image)
        path = arguments.lock or Path("build/images", verified.lane.lane, "requirements.lock")
        lock = Lock.read(path)
        artefact = layout.attach(image, write_sbom(image, verified.manifest, verified.lane, lock), SBOM)
    print(f"{image.digest}: the SBOM lists {len(lock.packages)} packages of {path}")
    print(f"  next: {command('slipway image sign', str(arguments.image), '--key', 'PRIVATE')}")
    print_json(arguments, {"digest": image.digest, "sbom": artefact.digest, "packages": len(lock.packages)})


def push(arguments: argparse.Namespace) -> None:
    from slipway.oci.registry import Registry
    from slipway.oci.transfer import push as push_image

    layout, image = _open(arguments)
    registry = Registry(arguments.registry, plain_http=arguments.plain_http)
    with _progress("pushing") as progress:
        moved = push_image(layout, image, arguments.registry, registry, progress)
    _say_moved(arguments, moved, f"{arguments.registry} is {image.digest}")


def pull(arguments: argparse.Namespace) -> None:
    from slipway.oci.layout import ImageLayout
    from slipway.oci.registry import Registry
    from slipway.oci.transfer import pull as pull_image

    tag = arguments.image.tag or arguments.registry.tag or "latest"
    if arguments.image.digest is not None:
        raise OciImageError(f"{arguments.image}: give a tag; the digest follows from the image")
    registry = Registry(arguments.registry, plain_http=arguments.plain_http)
    with ImageLayout.writing(arguments.image.folder) as layout, _progress("pulling") as progress:
        moved = pull_image(
            registry,
            arguments.registry,
            layout,
            tag=tag,
            lane=arguments.lane,
            trust=lambda image: check_signature(layout, image, arguments.key),
            progress=progress,
        )
    _say_moved(arguments, moved, f"{arguments.image.folder}:{tag} is {moved.image.digest}")


def _say_moved(arguments: argparse.Namespace, moved: "Moved", line: str) -> None:
    print(line)
    print(
        f"  moved {moved.moved_bytes:,} bytes in {moved.moved} parts, skipped {moved.skipped_bytes:,} bytes in "
        f"{moved.skipped} parts that were there"
    )
    facts = {"digest": moved.image.digest, "moved_bytes": moved.moved_bytes, "skipped_bytes": moved.skipped_bytes}
    print_json(arguments, {**facts, "moved": moved.moved, "skipped": moved.skipped})


@contextmanager
def _progress(what: str) -> "Iterator[Progress]":
    from tqdm import tqdm

    with tqdm(desc=what, unit="B", unit_scale=True, leave=False, disable=None, delay=1) as bar:
        yield bar.update


def sign(arguments: argparse.Namespace) -> None:
    from slipway.oci.layout import ImageLayout
    from slipway.oci.signing import sign as sign_image
    from slipway.oci.verify import verify as verify_image

    ImageLayout.open(arguments.image.folder)
    with ImageLayout.writing(arguments.image.folder) as layout:
        image = layout.find(arguments.image)
        verify_image(layout, image)  # nobody should sign what is damaged
        made = sign_image(layout, image, key=arguments.key)
    said = f"{made} new signature{'s' * (made > 1)}" if made else "signed by this key before"
    print(f"{image.digest}: {said}")
    print_json(arguments, {"digest": image.digest, "signatures": made})


def _open(arguments: argparse.Namespace) -> "tuple[ImageLayout, Descriptor]":
    """The layout of the command line and the image in it, of the lane that was asked for."""
    from slipway.oci.layout import ImageLayout

    layout = ImageLayout.open(arguments.image.folder)
    image = layout.find(arguments.image)
    if arguments.lane is not None:
        check_lane(layout, image, wanted=arguments.lane)
    return layout, image


def check_lane(layout: "ImageLayout", image: "Descriptor", *, wanted: str) -> None:
    from slipway.oci.documents import LANE
    from slipway.oci.verify import open_image

    found = open_image(layout, image).annotation(LANE)
    if found != wanted:
        raise OciImageError(f"{image.digest}: of the {found} lane, and the {wanted} lane is wanted; give another image")


def check_signature(layout: "ImageLayout", image: "Descriptor", key: Path | None) -> int:
    """The number of manifests that the owner of `key` signed; 0 without a key."""
    if key is None:
        return 0
    from slipway.oci.signing import verify_signatures

    return verify_signatures(layout, image, key=key)


def signed_line(key: Path | None, signed: int) -> str:
    if key is None:
        return "no signature was verified, only hashes: give --key PUBLIC to know who built it"
    return f"signed by the owner of {key}: the image" + (f" and {signed - 1} SBOM" if signed > 1 else "")


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    names = "build | verify | unpack | sbom | sign | push | pull"
    commands = parser.add_subparsers(prog="slipway image", required=True, metavar=names)

    def add(name: str, run: Callable[[argparse.Namespace], None], line: str) -> argparse.ArgumentParser:
        one = add_action(commands, name, line)
        one.set_defaults(run=run)
        add_json(one)
        return one

    def add_image(one: argparse.ArgumentParser, help: str = "the image: LAYOUT, LAYOUT:TAG or LAYOUT@sha256:…") -> None:
        one.add_argument("image", type=parsed(LayoutReference.parse), metavar="LAYOUT[:TAG]", help=help)

    def add_registry(one: argparse.ArgumentParser) -> None:
        one.add_argument(
            "registry",
            type=parsed(RegistryReference.parse),
            metavar="REGISTRY/NAME:TAG",
            help="HOST[:PORT]/NAME:TAG or @sha256:…",
        )
        one.add_argument(
            "--plain-http", action="store_true", help="connect without TLS, for a registry on this machine"
        )

    def add_checks(one: argparse.ArgumentParser) -> None:
        one.add_argument("--key", type=Path, metavar="PUBLIC", help="public key; its signature is required")
        one.add_argument("--lane", choices=("cpu", "gpu"), help="lane that it must be of")

    one = add("build", build, "write a repository as an image into a layout")
    one.add_argument("repository", type=Path, help="folder that slipway assemble wrote")
    add_image(one, "folder to write, and its tag; default: latest")
    one = add("verify", verify, "check every byte of an image, and its signature")
    add_image(one)
    add_checks(one)
    one = add("unpack", unpack, "write the repository of an image to a folder")
    add_image(one)
    one.add_argument("folder", type=Path, help="folder to write the repository to")
    add_checks(one)
    one = add("sbom", sbom, "list what an image needs, in CycloneDX's JSON, beside it")
    add_image(one)
    one.add_argument(
        "--lock", type=Path, help="lock file of the lane; default: build/images/LANE/requirements.lock, in a clone"
    )
    one = add("sign", sign, "sign an image and its SBOM")
    add_image(one)
    one.add_argument("--key", type=Path, required=True, metavar="PRIVATE", help="private key in PEM")
    one = add("push", push, "write an image, its SBOM and its signatures to a registry")
    add_image(one)
    add_registry(one)
    one.add_argument("--lane", choices=("cpu", "gpu"), help="lane that it must be of")
    one = add("pull", pull, "write an image of a registry into a layout")
    add_registry(one)
    add_image(one, "folder to write, and its tag; default: the tag in the registry")
    add_checks(one)
    return parser
