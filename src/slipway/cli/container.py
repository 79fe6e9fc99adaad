"""Compile plans and serve the gpu lane in NVIDIA's container images: prints the docker command, or runs it."""

import argparse
import os
import re
import secrets
import shlex
import shutil
import subprocess
from pathlib import Path

from slipway.contract import (
    Bundle,
    CompileError,
    Lane,
    Manifest,
    RepositoryError,
    ServingError,
    SlipwayError,
    SpecError,
)
from slipway.system.arguments import port
from slipway.system.json_line import add_json, print_json
from slipway.system.process import child

EPILOG = """example:
  slipway container compile runs/digits/bundle --graphs runs/digits/graphs --out runs/digits/engines --run
  slipway container serve model_repository/gpu --run

A plan needs the TensorRT version that built it, so both images have the same release. Run compile in a clone of Slipway
that contains the bundle, the graphs and the data set; it installs Slipway in the container, which takes some minutes.
serve listens on 127.0.0.1. Both need docker and NVIDIA's container toolkit."""

RELEASE = "26.06"  # earlier servers lack fixes that production needs
COMPILER, SERVER = "nvcr.io/nvidia/tensorrt", "nvcr.io/nvidia/tritonserver"
CLONE, MODELS = "/slipway", "/models"  # in the container; the DALI backend takes no path with odd characters
DOCKER_TIMEOUT_S = 20


def main(arguments: argparse.Namespace) -> None:
    command = arguments.command_of(arguments)
    print(shlex.join(command))
    print_json(arguments, {"command": command})
    if arguments.run:
        execute(command, failure=arguments.failure)


def compile_command(arguments: argparse.Namespace) -> list[str]:
    """The docker command for `slipway compile --target tensorrt` in the TensorRT image, run as the current user."""
    if not Path("build/compile.py").is_file():
        raise SpecError(
            f"{Path.cwd()}: not a clone of Slipway (no build/compile.py); run this in one, since it is mounted"
        )
    Bundle.open(arguments.bundle)
    bundle, graphs, out = (inside(path) for path in (arguments.bundle, arguments.graphs, arguments.out))
    compiling = ["python3", "build/compile.py", bundle, "--graphs", graphs, "--out", out, "--target", "tensorrt"]
    environment = {
        "HOME": "/tmp",
        "USER": "slipway",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
    }  # the user has no home in the image
    return [
        *docker_run(arguments),
        *("--user", f"{os.getuid()}:{os.getgid()}"),
        *(part for name, value in environment.items() for part in ("--env", f"{name}={value}")),
        *mount(Path.cwd(), CLONE),
        *("--workdir", CLONE),
        f"{COMPILER}:{arguments.release}-py3",
        *("bash", "-c", f"python3 -m pip install --quiet --editable '.[gpu]' && {shlex.join(compiling)}"),
    ]


def serve_command(arguments: argparse.Namespace) -> list[str]:
    """The docker command for tritonserver on a gpu lane, hardened as in `slipway.serving`."""
    Manifest.open(arguments.repository, kind="repository")
    lane = Lane.read(arguments.repository / "lane.json")
    if not lane.needs_gpu:
        raise RepositoryError(
            f"{arguments.repository}: a {lane.lane} lane, which needs no container: "
            f"slipway serve {shlex.quote(str(arguments.repository))}"
        )
    ports = {arguments.http_port: 8000, arguments.grpc_port: 8001, arguments.metrics_port: 8002}
    if len(ports) < 3:
        raise SpecError(f"ports {sorted(ports)}: give three different ones, for HTTP, gRPC and metrics")
    restricted = f"shared-memory,model-repository,logging,trace:slipway-admin={secrets.token_urlsafe(24)}"
    flags = {
        "model-repository": MODELS,
        "model-control-mode": "none",
        "exit-timeout-secs": "3",
        "grpc-max-connection-age": "300000",
        "http-restricted-api": restricted,
        "grpc-restricted-protocol": restricted,
        "allow-client-shm": "false",
    }
    backend_config = [f"python,shm-default-byte-size={lane.shm_default_bytes}"]
    if lane.tensorrt_version_compatible:
        backend_config.append("tensorrt,version-compatible=true")
    return [
        *docker_run(arguments),
        *(part for port, inner in ports.items() for part in ("--publish", f"127.0.0.1:{port}:{inner}")),
        *mount(arguments.repository, MODELS, readonly=True),
        f"{SERVER}:{arguments.release}-py3",
        *("tritonserver", "--disable-auto-complete-config"),
        *(f"--{name}={value}" for name, value in flags.items()),
        *(f"--backend-config={value}" for value in backend_config),
        *lane.memory_options,
    ]


def docker_run(arguments: argparse.Namespace) -> list[str]:
    return ["docker", "run", "--rm", "--init", "--gpus", arguments.gpus, "--shm-size", arguments.shm_size]


def mount(folder: Path, target: str, *, readonly: bool = False) -> list[str]:
    source = str(folder.resolve())
    if "," in source:
        raise SpecError(f"{source}: docker separates a mount's options by commas; use a path without one")
    return ["--mount", f"type=bind,source={source},target={target}" + (",readonly" if readonly else "")]


def inside(path: Path) -> str:
    """`path`, relative to the mounted folder."""
    try:
        return path.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        raise SpecError(
            f"{path}: outside {Path.cwd()}, the only folder that the container sees; move it inside"
        ) from None


def execute(command: list[str], *, failure: type[SlipwayError]) -> None:
    """Run a docker command in the foreground.

    Raises:
        CompileError, ServingError: docker is not installed or not running, or the container failed.
    """
    if shutil.which("docker") is None:
        raise failure(
            "docker is not installed here; install it with NVIDIA's container toolkit, or run the command "
            "above on a machine that has both"
        )
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=DOCKER_TIMEOUT_S,
            check=False,
        )
        problem = asked.stderr.strip() if asked.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"no answer within {DOCKER_TIMEOUT_S} s"
    if problem:
        raise failure(
            f"docker is installed and its daemon cannot be reached: {problem}; start it (systemctl start "
            "docker), or run the command above on a machine where it runs"
        )
    with child(command) as container:
        code = container.wait()
    if code != 0:
        raise failure(f"the container ended with exit code {code}; its own message is above")


def _release(text: str) -> str:
    if not re.fullmatch(r"\d\d[.](0[1-9]|1[0-2])", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a release of NVIDIA's images; give YY.MM, such as {RELEASE}")
    if text < RELEASE:
        raise argparse.ArgumentTypeError(
            f"{text} is older than {RELEASE}, the first release that is safe to serve with"
        )
    return text


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="compile | serve")
    compiling = commands.add_parser(
        "compile", help="compile plans for the GPU of this machine", formatter_class=argparse.RawTextHelpFormatter
    )
    compiling.add_argument("bundle", type=Path, help="folder that slipway export wrote")
    compiling.add_argument("--graphs", type=Path, required=True, help="folder of graph folders")
    compiling.add_argument("--out", type=Path, required=True, help="folder to write engine folders into")
    compiling.set_defaults(command_of=compile_command, failure=CompileError)
    serving = commands.add_parser(
        "serve", help="serve a gpu lane on 127.0.0.1", formatter_class=argparse.RawTextHelpFormatter
    )
    serving.add_argument("repository", type=Path, help="folder that slipway assemble --lane gpu wrote")
    for name, default in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        serving.add_argument(f"--{name}-port", type=port, default=default, help="local port; default: %(default)s")
    serving.set_defaults(command_of=serve_command, failure=ServingError)
    for command in (compiling, serving):
        command.add_argument(
            "--release", type=_release, default=RELEASE, help="release of the image, YY.MM; default: %(default)s"
        )
        command.add_argument("--gpus", default="all", help="option --gpus of docker; default: %(default)s")
        command.add_argument("--shm-size", default="4g", help="option --shm-size of docker; default: %(default)s")
        command.add_argument("--run", action="store_true", help="run the command instead of only printing it")
        add_json(command, help="print the command as one JSON line too")
    return parser
