"""Bodies of every size and type, many at once, and the commands that the documents give: all are answered."""

import asyncio
import re
import resource
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from PIL import Image

from slipway.steps.guard import EMPTY, OK, TOO_LARGE, UNSUPPORTED
from tests.support.documented_curl import documented_commands, needs_curl
from tests.support.image_files import encode
from tests.support.v2_requests import IMAGE, RED, http_request, message, posted

MIB = 2**20
FORM, BYTES = "application/x-www-form-urlencoded", "application/octet-stream"
AT_ONCE = [1000, pytest.param(4096, marks=pytest.mark.nightly)]
"""The server's queue holds 1,024 new connections; more are tried again by the kernel, each time later, and can wait for
minutes on a busy machine."""
PATIENCE_S = 400


def noise(width: int, height: int) -> bytes:
    """A PNG of three bytes a pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return encode(Image.fromarray(pixels), "PNG", compress_level=1)


OVER_4_MIB, OVER_16_MIB = noise(1200, 1200), noise(2400, 2400)


def post(server: Any, body: bytes, content_type: str | None = BYTES) -> tuple[int, bytes]:
    """The raw request: the body is the image, in the type that curl or urllib would say."""
    headers = {"Inference-Header-Content-Length": "0"} | ({"Content-Type": content_type} if content_type else {})
    return posted(server, "/v2/models/colours/infer", body, headers)


def status(content: bytes) -> int:
    """STATUS is the first output of the raw answer."""
    described, _, values = content.partition(b"}]}")
    assert described.index(b'"STATUS"') < described.index(b'"BUNDLE"')
    return int.from_bytes(values[:4], "little")


@pytest.mark.parametrize("content_type", [FORM, BYTES, None])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", EMPTY),
        (b"x", UNSUPPORTED),
        (OVER_4_MIB, OK),
        (OVER_16_MIB, OK),
        *((RED + bytes(size - len(RED)), OK) for size in (4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB, 32 * MIB)),
        (RED + bytes(64 * MIB), TOO_LARGE),
    ],
    ids=["0", "1", "PNG of 4 MiB", "PNG of 16 MiB", "4 MiB - 1", "4 MiB", "4 MiB + 1", "8 MiB", "32 MiB", "64 MiB"],
)
def test_a_body_of_any_size_and_type_is_answered(
    unharmed: Any, body: bytes, expected: int, content_type: str | None
) -> None:
    code, content = post(unharmed, body, content_type)
    assert (code, status(content)) == (200, expected)


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", FORM])
@pytest.mark.parametrize("parts", [b"&" * 100_000, b"=" * 100_000, b"%" * 100_000, b"a=&" * 100_000])
def test_a_form_of_empty_parts_is_refused_as_an_image(unharmed: Any, parts: bytes, content_type: str) -> None:
    code, content = post(unharmed, parts, content_type)
    assert (code, status(content)) == (200, UNSUPPORTED)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("image", [OVER_4_MIB, OVER_16_MIB], ids=["4 MiB", "16 MiB"])
def test_large_images_and_empty_ones_share_a_request(
    unharmed: Any, connect: Callable[..., Any], protocol: str, image: bytes
) -> None:
    answer = connect(unharmed, protocol).ask("colours", [image, b"", RED, image])
    assert answer["STATUS"][:, 0].tolist() == [OK, EMPTY, OK, OK]
    assert answer["LABEL"][2, 0] == b"red"


@pytest.fixture
def many_files(at_once: int) -> Iterator[None]:
    """This process may have a connection for each request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < at_once + 512:
        pytest.skip(f"a process may have {hard} files open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("at_once", AT_ONCE)
@pytest.mark.usefixtures("many_files")
def test_many_http_connections_at_once_are_each_answered_or_refused(unharmed: Any, at_once: int) -> None:
    request = b"".join(http_request(RED))

    lines: Counter[bytes] = Counter()
    writers: list[asyncio.StreamWriter] = []

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", unharmed.ports.http)
        writers.append(writer)
        writer.write(request)
        lines[await reader.readline()] += 1

    async def all_of_them() -> None:
        try:
            await asyncio.wait([asyncio.create_task(ask()) for _ in range(at_once)], timeout=PATIENCE_S)
        finally:  # nobody leaves before everybody has come
            for writer in writers:
                writer.close()

    asyncio.run(all_of_them())
    assert len(writers) == at_once
    assert lines.total() == at_once
    assert lines[b"HTTP/1.1 200 OK\r\n"] > 0
    assert {line.split()[1] for line in lines} <= {b"200", b"400", b"429", b"500", b"503"}


@pytest.mark.parametrize("at_once", AT_ONCE)
def test_many_grpc_calls_at_once_are_each_answered_or_refused(unharmed: Any, at_once: int) -> None:
    client = triton_grpc.InferenceServerClient(unharmed.grpc_url)
    calls = [client._client_stub.ModelInfer.future(message(IMAGE), timeout=PATIENCE_S) for _ in range(at_once)]
    codes = Counter(call.code().name for call in calls)
    client.close()
    assert codes.total() == at_once
    assert codes["OK"] > 0
    assert set(codes) <= {"OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED"}


POSTING = {where: command for where, command in documented_commands().items() if "--data" in command}


def test_every_documented_curl_that_sends_an_image_says_what_it_sends() -> None:
    assert len(POSTING) >= 2
    for where, command in POSTING.items():
        assert command.count(f"Content-Type: {BYTES}") == command.count("--data"), where


@needs_curl
@pytest.mark.parametrize("image", [OVER_4_MIB, OVER_16_MIB], ids=["4 MiB", "16 MiB"])
@pytest.mark.parametrize("command", POSTING.values(), ids=POSTING.keys())
def test_every_documented_curl_sends_a_large_image(unharmed: Any, tmp_path: Path, command: str, image: bytes) -> None:
    (tmp_path / "image.jpg").write_bytes(image)
    command = command.replace("127.0.0.1:8000", unharmed.http_url)
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert b'"model_name":"colours"' in done.stdout
    assert re.search(rb'"name":"STATUS".*"(data":\[0\]|binary_data_size":4)', done.stdout)
