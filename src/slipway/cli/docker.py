"""Runs a docker command in the foreground, and says what to do about docker's own errors."""

import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Sequence

from slipway.contract import SlipwayError
from slipway.system.process import child, output_of

DOCKER_TIMEOUT_S = 20
LAST_LINES = 40
REMEDIES = {
    "no space left on device": "the disk of docker's images is full (docker system df): free some with docker system "
    "prune, or move its data-root; an image of NVIDIA takes over 20 GB",
    "No such image": "the image was not built here; build it: {build}",
    "could not select device driver": "docker knows no GPU: install NVIDIA's container toolkit, then "
    "nvidia-ctk runtime configure --runtime=docker and systemctl restart docker",
    "nvidia-container-cli": "NVIDIA's container toolkit found no usable GPU or driver: see nvidia-smi on this machine",
    "cannot set both Count and DeviceIDs": "docker reads a list of GPUs in quotes of its own: --gpus '\"device=0,1\"'",
    "port is already allocated": "a port is taken: choose others with --http-port, --grpc-port, --metrics-port and "
    "--status-port",
    "address already in use": "a port is taken: choose others with --http-port, --grpc-port, --metrics-port and "
    "--status-port",
    "is already in use by container": "a container of that name exists: stop it (docker stop), or give another --name",
    "manifest unknown": "NVIDIA has no image of that release (yet): give another --release",
    "failed to resolve source metadata": "the registry did not give the image: look whether NVIDIA has that release, "
    "and whether this machine reaches nvcr.io",
}
"""Words in docker's own messages to the remedy."""


def execute(command: Sequence[str], *, failure: type[SlipwayError], build: str) -> None:
    """Run a docker command; `build` is the command that builds its image.

    Raises:
        failure: docker is not installed or not running, or the command failed.
    """
    _require_docker(failure)
    last: deque[str] = deque(maxlen=LAST_LINES)
    with child(command, stderr=subprocess.PIPE, text=True, errors="replace") as docker:
        assert docker.stderr is not None
        for line in docker.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            last.append(line)
        code = docker.wait()
    if code != 0:
        raise failure(_explained("".join(last), code).format(build=build))


def _explained(said: str, code: int) -> str:
    for words, remedy in REMEDIES.items():
        if words in said:
            return remedy
    return f"docker ended with exit code {code}; the message above is the container's, or docker's own"


def _require_docker(failure: type[SlipwayError]) -> None:
    if shutil.which("docker") is None:
        raise failure(
            "docker is not installed here; install it with NVIDIA's container toolkit, or run the command "
            "above on a machine that has both"
        )
    try:
        asked = output_of(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=DOCKER_TIMEOUT_S)
        problem = asked.stderr.strip() or f"exit code {asked.returncode}" if asked.returncode else ""
    except OSError as error:
        raise failure(f"docker is installed and cannot be started: {error}; install it again") from None
    except subprocess.TimeoutExpired:
        problem = f"no answer within {DOCKER_TIMEOUT_S} s"
    if problem:
        raise failure(
            f"docker is installed and its daemon cannot be reached: {problem}; start it (systemctl start "
            "docker), or run the command above on a machine where it runs"
        )
