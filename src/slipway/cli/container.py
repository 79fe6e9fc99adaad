"""Build the images of the lanes, compile plans in one, and serve in one: prints the docker command, or runs it."""

import argparse
import csv
import io
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from slipway.cli.docker import execute
from slipway.contract import CompileError, Lane, ServingError, SlipwayError, SpecError
from slipway.contract.base_bundle import open_network
from slipway.contract.installed import Installed, differences
from slipway.contract.nvidia_releases import NEWEST, release
from slipway.contract.shared_rules import listed
from slipway.serving.container import FALLBACK_START_S, INNER_PORTS, MODELS, TRITON_USER, ULIMITS, shm_bytes, tmp_bytes
from slipway.serving.ports import SPOKEN
from slipway.system.arguments import add_action, parsed, port
from slipway.system.json_line import add_json, print_json, verb_parser
from slipway.system.text import command as shell_line

EPILOG = """example, at the root of a clone:
  slipway container build compile --run
  slipway container compile runs/digits/bundle --graphs runs/digits/graphs --out runs/digits/engines --run
  slipway container build gpu --run
  slipway container serve model_repository/gpu --run
  docker exec slipway slipway reload        # in another terminal, after slipway assemble has rewritten the repository

A plan needs the TensorRT version that built it, so all images have the same release. compile sees the present folder
alone, which must contain the bundle, the graphs and the data set. serve listens on 127.0.0.1, and takes the image of
the repository's lane. All need docker, and those of the gpu lane NVIDIA's container toolkit."""

IMAGES: Mapping[str, str] = {
    "gpu": "serves a gpu lane",
    "cpu": "serves a cpu lane",
    "compile": "compiles plans for a GPU",
}
WORK = "/work"  # in the container
LOGGED = ("--log-driver", "local")
"""Docker's driver that keeps the newest 100 MB; its default keeps everything."""
HARDENED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")
LIMITS = tuple(part for name, value in ULIMITS.items() for part in ("--ulimit", f"{name}={value}"))


def main(arguments: argparse.Namespace) -> None:
    command = arguments.command_of(arguments)
    print(shlex.join(command))
    print_json(arguments, {"command": command})
    if arguments.run:
        build = shell_line("slipway container build", arguments.image, "--release", arguments.release, "--run")
        execute(command, failure=arguments.failure, build=build)


def build_command(arguments: argparse.Namespace) -> list[str]:
    """The docker command that builds one image, at the root of a clone."""
    dockerfile = Path("build/images", arguments.image, "Dockerfile")
    if not dockerfile.is_file():
        raise SpecError(
            f"{Path.cwd()}: not a clone of Slipway (no {dockerfile}); run this at the root of one: its code goes into "
            "the image"
        )
    options = {
        "file": str(dockerfile),
        "build-arg": f"RELEASE={arguments.release}",
        "tag": image(arguments),
    }
    return ["docker", "build", *(part for name, value in options.items() for part in (f"--{name}", value)), "."]


def compile_command(arguments: argparse.Namespace) -> list[str]:
    """The docker command for `slipway compile --target tensorrt`, as the current user, who owns what it writes; if that
    is root, as the owner of the present folder, since root without its capabilities can write nowhere else.

    TensorRT's timing cache stays beside the engines, where the next job finds it.
    """
    spec = open_network(arguments.bundle).spec
    for precision in sorted({*listed(spec, lane="gpu")} - {"fp32"}):
        if not (folder := arguments.graphs / precision).is_dir():
            make = shell_line("slipway quantize", arguments.bundle, "--precision", precision, "--out", folder)
            raise SpecError(f"{folder}: no graph for {precision}, which the spec lists; make it: {make}")
    here = Path.cwd().stat()
    user = f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{here.st_uid}:{here.st_gid}"
    bundle, graphs, out = (inside(path) for path in (arguments.bundle, arguments.graphs, arguments.out))
    return [
        *docker_run(user=user, tmpfs="/tmp"),
        *("--gpus", arguments.gpus),
        *mount(Path.cwd(), WORK),
        image(arguments),
        *("compile", bundle, "--graphs", graphs, "--out", out, "--target", "tensorrt"),
    ]


def _release_that_serves(arguments: argparse.Namespace, lane: Lane) -> str:
    """The release that was asked for, else the one that compiled the plans, else the newest.

    Raises:
        SpecError: it is not supported, or its server is known to have another library than the plans need.
    """
    chosen = release(arguments.release or lane.release or NEWEST.name)
    known = Installed(chosen.name, chosen.tensorrt, chosen.dali, chosen.nvimgcodec)
    needed = {name: version for name, version in lane.libraries.items() if getattr(known, name) is not None}
    for difference in differences(needed, known):
        if chosen.name == lane.release:
            options = ("--graphs", "GRAPHS", "--out", "ENGINES", "--release", chosen.name, "--run")
            compile_again = shell_line("slipway container compile", "BUNDLE", *options)
            remedy = (
                f"its plans say that they are of this release too: compile them again in its image ({compile_again}); "
                "if that gives the same version, slipway.contract.nvidia_releases is wrong"
            )
        else:
            remedy = f"serve it in release {lane.release or 'of its plans'}"
        raise SpecError(f"{arguments.repository}: {difference}; {remedy}")
    return chosen.name


def serve_command(arguments: argparse.Namespace) -> list[str]:
    """The docker command for `slipway serve` in the image of the repository's lane."""
    from slipway.serving.contents import Contents  # not at the top: --help needs no library

    contents = Contents.open(arguments.repository)
    arguments.image = contents.lane.lane
    arguments.release = _release_that_serves(arguments, contents.lane)
    ports = {getattr(arguments, f"{name}_port"): inner for name, inner in INNER_PORTS.items()}
    if len(ports) < len(INNER_PORTS):
        raise SpecError(f"ports {sorted(ports)}: give four different ones, for HTTP, gRPC, metrics and the supervisor")
    repository = arguments.repository.resolve()
    if repository.parent in (Path("/"), Path.home().resolve()):
        raise SpecError(
            f"{repository}: the container sees the folder above it, so that a new repository can take its place; move "
            f"it out of {repository.parent} into a folder of its own, such as model_repository"
        )
    return [
        *docker_run(
            user=f"{os.getuid()}:{os.getgid()}" if os.getuid() else TRITON_USER,
            tmpfs=f"/tmp:size={tmp_bytes(contents, arguments.repository)}",
        ),
        *("--name", arguments.name),
        *(("--gpus", arguments.gpus) if contents.lane.needs_gpu else ()),
        *("--shm-size", arguments.shm_size or str(shm_bytes(contents))),
        *(part for port, inner in ports.items() for part in ("--publish", f"127.0.0.1:{port}:{inner}")),
        # A new repository takes the place of the old folder, and a mount of that folder would keep the old one.
        *mount(repository.parent, MODELS, readonly=True),
        image(arguments),
        *("serve", f"{MODELS}/{repository.name}", "--host", "0.0.0.0"),
        *(("--timeout-s", str(FALLBACK_START_S)) if contents.lane.fallback else ()),
    ]


def docker_run(*, user: str, tmpfs: str) -> list[str]:
    """`docker run` with the options of both images; `--pull never`, since no registry has these images."""
    return [
        *("docker", "run", "--rm", "--init", "--pull", "never"),
        *("--user", user),
        *LOGGED,
        *HARDENED,
        *("--tmpfs", tmpfs),
        *LIMITS,
    ]


def image(arguments: argparse.Namespace) -> str:
    return f"slipway-{arguments.image}:{arguments.release}"


def mount(folder: Path, target: str, *, readonly: bool = False) -> list[str]:
    """The option that shows `folder` at `target`; docker reads its value as one line of CSV."""
    value = io.StringIO()
    fields = ("type=bind", f"source={folder.resolve()}", f"target={target}", *(("readonly",) if readonly else ()))
    csv.writer(value).writerow(fields)
    return ["--mount", value.getvalue().removesuffix("\r\n")]


def inside(path: Path) -> str:
    """`path`, relative to the mounted folder; `./` keeps a name that begins with a dash from being an option."""
    try:
        relative = path.resolve().relative_to(Path.cwd().resolve()).as_posix()
        return f"./{relative}" if relative.startswith("-") else relative
    except ValueError:
        raise SpecError(
            f"{path}: outside {Path.cwd()}, the only folder that the container sees; move it inside"
        ) from None


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    commands = parser.add_subparsers(prog="slipway container", required=True, metavar="build | compile | serve")
    building = add_action(commands, "build", "build an image, at the root of a clone")
    building.add_argument(
        "image", choices=list(IMAGES), help="; ".join(f"{name} {what}" for name, what in IMAGES.items())
    )
    building.set_defaults(command_of=build_command, failure=SlipwayError)
    compiling = add_action(commands, "compile", "compile plans for the GPU of this machine")
    compiling.add_argument("bundle", type=Path, help="folder that slipway export wrote, or the base of slipway base")
    compiling.add_argument("--graphs", type=Path, required=True, help="folder of graph folders")
    compiling.add_argument("--out", type=Path, required=True, help="folder to write engine folders into")
    compiling.set_defaults(command_of=compile_command, failure=CompileError, image="compile")
    serving = add_action(commands, "serve", "serve a repository on 127.0.0.1, in the image of its lane")
    serving.add_argument("repository", type=Path, help="folder that slipway assemble wrote")
    for name, inner in INNER_PORTS.items():
        serving.add_argument(f"--{name}-port", type=port, default=inner, help=f"local port of {SPOKEN[name]}")
    serving.add_argument("--name", default="slipway", help="name of the container")
    serving.add_argument("--shm-size", help="option --shm-size of docker; default: what the repository needs, in bytes")
    serving.set_defaults(command_of=serve_command, failure=ServingError)
    for command in (compiling, serving):
        command.add_argument("--gpus", default="all", help="option --gpus of docker")
    for command in (building, compiling, serving):
        command.add_argument(
            "--release",
            type=parsed(lambda text: release(text).name),
            default=None if command is serving else NEWEST.name,
            help=f"release of NVIDIA's images, YY.MM; default: {NEWEST.name}, or to serve, that of the plans",
        )
        command.add_argument("--run", action="store_true", help="run the command instead of only printing it")
        add_json(command, help="print the command as one JSON line too")
    return parser
