"""`slipway.client` and fork, with real forks: a child is answered or told, at once, and its parent is unharmed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.client_sides import address, encode

PROGRAM = """
import os, signal, sys
from slipway.client import AsyncClient, Client, ClientError, Options

parent_url, child_url, what, image = sys.argv[1:]
options = Options(deadline_s=10)

def say(client):
    try:
        print(client.classify(image).label, flush=True)
    except ClientError as error:
        print(error, flush=True)

client = Client(parent_url, model="colours", options=options)
if what != "unused":
    say(client)
if what == "under way":
    results = client.classify_many([image] * 100)
    next(results)
if what == "closed":
    client.close()
pid = os.fork()
if pid == 0:
    signal.alarm(30)  # a child that hangs ends with 14
    if what in ("new", "closed"):
        with Client(child_url, model="colours", options=options) as other:
            say(other)
    elif what == "under way":
        try:
            list(results)
        except ClientError as error:
            print(error, flush=True)
    else:
        say(client)
        client.close()
    sys.exit(0)
_, status = os.waitpid(pid, 0)
print("child", status, flush=True)
if what != "closed":
    say(client)
    client.close()
"""
USED = (
    "this client was used before this process was forked; make another one here, with an http:// address, or start "
    "workers by spawn"
)
GRPC = "this process was forked from one that had a gRPC client, and gRPC would end it or hang; use an http://"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fork") / "red.jpg"
    path.write_bytes(encode("red"))
    return path


@pytest.mark.parametrize(
    ("protocols", "what", "answers"),
    [
        (("grpc", "grpc"), "used", ["red", USED, "child 0", "red"]),
        (("http", "http"), "used", ["red", USED, "child 0", "red"]),
        (("grpc", "grpc"), "unused", ["red", "child 0", "red"]),
        (("grpc", "grpc"), "new", ["red", GRPC, "child 0", "red"]),
        (("grpc", "http"), "new", ["red", "red", "child 0", "red"]),
        (("http", "http"), "new", ["red", "red", "child 0", "red"]),
        (("http", "grpc"), "new", ["red", "red", "child 0", "red"]),
        (("grpc", "grpc"), "closed", ["red", GRPC, "child 0"]),
    ],
)
def test_a_forked_child_is_answered_or_told_why_not_and_its_parent_goes_on(
    example_server: Any, image: Path, protocols: tuple[str, str], what: str, answers: list[str]
) -> None:
    urls = [address(example_server, protocol) for protocol in protocols]
    command = [sys.executable, "-c", PROGRAM, *urls, what, str(image)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.splitlines()
    assert len(said) == len(answers), done.stdout + done.stderr
    assert all(line.startswith(start) for line, start in zip(said, answers, strict=True)), done.stdout
    assert [line for line in done.stderr.splitlines() if "fork_posix.cc" not in line] == []


def test_a_child_that_is_forked_during_a_grpc_call_ends_at_once_and_its_parent_goes_on(
    example_server: Any, image: Path
) -> None:
    """gRPC skips its own fork handlers then, and 7 of 80 children died in Python's handler, or later."""
    url = address(example_server, "grpc")
    command = [sys.executable, "-c", PROGRAM, url, url, "under way", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    first, *child, last = done.stdout.splitlines()
    assert (first, last) == ("red", "red"), done.stdout + done.stderr
    assert "".join(child) in (f"{USED}child 0", f"{USED}child 11", "child 11"), done.stdout + done.stderr
