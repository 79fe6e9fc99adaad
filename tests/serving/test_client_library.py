"""`slipway.client` against a real tritonserver: over both protocols, with and without an event loop."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from PIL import Image
from tritonclient.utils import InferenceServerException

from slipway.client import AsyncClient, Client, ClientError, ForbiddenError, GoneError, ImageError, ModelError, Options
from slipway.client.images import png
from slipway.client.options import Address
from slipway.client.replies import refusal
from tests.support import client_sides as fixtures
from tests.support.client_sides import COLOURS, Asker, encode

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"


protocol, side, url, asker = fixtures.protocol, fixtures.side, fixtures.url, fixtures.asker
nothing_is_left_behind = fixtures.nothing_is_left_behind


def test_every_kind_of_source_gets_its_label_in_the_order_that_it_was_given(asker: Asker, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for colour in COLOURS:
        (tmp_path / f"folder/{colour}.jpg").write_bytes(encode(colour))
    (tmp_path / "image without suffix").write_bytes(encode("red"))
    pixels = np.full((40, 30, 3), COLOURS["blue"], np.uint8)
    sources = [
        (tmp_path / "image without suffix", "red"),
        (str(tmp_path / "image without suffix"), "red"),
        (encode("green"), "green"),
        (memoryview(encode("blue")), "blue"),
        (Image.new("RGB", (9, 9), COLOURS["green"]), "green"),
        (pixels, "blue"),
        (pixels[:, :, ::-1], "red"),
        (np.dstack([pixels, np.full((40, 30), 255, np.uint8)]), "blue"),
        (np.full((20, 20), 128, np.uint8), "unknown"),
    ]
    given = [source for source, _ in sources]
    results = asker.classify_many([*given[:4], tmp_path / "folder", *given[4:]])
    assert [r.label for r in results] == ["red", "red", "green", "blue", *COLOURS, *(label for _, label in sources[4:])]
    assert all(r.ok and r.error is None and r.status_name == "ok" for r in results)
    assert results[0].source is given[0]
    assert results[4].source == tmp_path / "folder/blue.jpg"
    assert results[0].class_id == 2
    assert results[0].candidates[0].label in {"blue", "green"}
    assert {len(r.bundle or "") for r in results} == {64}
    assert len({r.request_id for r in results}) == 2
    alone = asker.classify(given[0])
    assert (alone.label, alone.score) == ("red", pytest.approx(results[0].score))


def test_a_bad_image_is_a_result_and_the_others_are_answered(asker: Asker, tmp_path: Path) -> None:
    whole = encode("red", (300, 300))
    bad = [whole[: len(whole) // 2], b"", b"no image", tmp_path / "gone.jpg", np.zeros((2, 2, 2), np.uint8), None]
    images = [image for one in bad for image in (encode("red"), one)]
    results = asker.classify_many(images)
    assert [r.label for r in results[::2]] == ["red"] * 6
    refused = results[1::2]
    assert [r.status_name for r in refused] == ["corrupt", "empty", "unsupported format", None, None, None]
    assert [type(r.error) for r in refused] == [type(None)] * 3 + [ImageError] * 3
    assert not any(r.ok or r.label or r.candidates for r in refused)
    with pytest.raises(ImageError, match="No such file"):
        asker.classify(tmp_path / "gone.jpg")
    assert asker.classify(b"no image").status_name == "unsupported format"


def test_a_photograph_that_is_too_large_for_the_server_is_answered_if_the_client_shrinks_it(asker: Asker) -> None:
    photograph = encode("green", (8200, 8200))
    assert asker.classify(photograph).status_name == "too large"
    shrunk = asker.classify(photograph, shrink_px=100)
    assert (shrunk.label, shrunk.source) == ("green", photograph)


def test_full_adds_the_probabilities_and_the_embedding(asker: Asker) -> None:
    red, refused = asker.classify_many([encode("red"), b"no image"], full=True)
    assert red.probability is not None
    assert red.probability.dtype == np.float32
    assert red.probability.shape == (3,)
    assert red.probability[2] == pytest.approx(red.score)
    assert red.embedding is not None
    assert red.embedding.ndim == 1
    assert np.any(red.embedding)
    assert refused.embedding is not None
    assert not np.any(refused.embedding)
    assert asker.classify(encode("red")).probability is None


def test_batches_are_as_large_as_the_model_takes_and_no_larger(asker: Asker) -> None:
    for batch_size, requests in ((None, 3), (64, 3), (5, 4)):
        results = asker.classify_many([encode("red")] * 20, batch_size=batch_size)
        assert [r.label for r in results] == ["red"] * 20
        assert len({r.request_id for r in results}) == requests


def test_images_are_taken_from_the_source_as_answers_are_taken_from_the_client(url: str) -> None:
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(1)
            yield image

    image = encode("red")
    with Client(url, model="colours", options=Options(concurrency=2, batch_size=4)) as client:
        results = client.classify_many(endless())
        assert [next(results).label for _ in range(40)] == ["red"] * 40
        assert len(taken) <= 40 + 2 * 2 * 4

    async def ask() -> None:
        taken.clear()
        async with AsyncClient(url, model="colours", options=Options(concurrency=2, batch_size=4)) as client:
            results = client.classify_many(endless())
            assert [(await anext(results)).label for _ in range(40)] == ["red"] * 40
            assert len(taken) <= 40 + 2 * 2 * 4
            await results.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(ask())


@pytest.mark.parametrize("mebibytes", [5, 9, 31, 40])
def test_an_image_of_many_mebibytes_is_answered(asker: Asker, mebibytes: int) -> None:
    """gRPC's own limit is 4 MiB, aiohttp's 1 and HTTP's windows are smaller; the classifier's is 32."""
    side = int((mebibytes * 2**20 / 3) ** 0.5)
    noise = png(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    assert len(noise) > (mebibytes - 1) * 2**20
    results = asker.classify_many([noise, encode("red")] * 2, deadline_s=60.0)
    assert [r.status_name for r in results] == (["ok", "ok"] if mebibytes < 32 else ["too large", "ok"]) * 2
    assert results[1].label == "red"


def test_an_unknown_model_is_refused_with_those_that_are_ready(asker: Asker) -> None:
    with pytest.raises(ModelError, match=r"model 'shapes': .*serves: colours$"):
        asker.classify(encode("red"), model="shapes")
    with pytest.raises(ModelError, match=r"serves: colours$"):
        asker.classify_many([encode("red")], model="shapes", reconnect_s=60.0)


def test_nobody_listening_is_said_at_once(side: str, protocol: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses for sure
        asker = Asker(side, f"{protocol}://127.0.0.1:{taken.getsockname()[1]}")
        started_s = time.monotonic()
        with pytest.raises(GoneError, match="no tritonserver answers at"):
            asker.classify(encode("red"))
        assert time.monotonic() - started_s < 3
        with pytest.raises(GoneError, match="tried for reconnect_s 1"):
            asker.classify_many([encode("red")], reconnect_s=1.0)
        assert 1 <= time.monotonic() - started_s < 6


def test_the_port_of_the_other_protocol_is_no_server(side: str, protocol: str, example_server: Any) -> None:
    other = example_server.http_url if protocol == "grpc" else example_server.grpc_url
    with pytest.raises(ClientError, match="no tritonserver"):
        Asker(side, f"{protocol}://{other}").classify(encode("red"), deadline_s=2.0)


def test_what_a_server_restricts_is_told_apart_from_overload(example_server: Any) -> None:
    for protocol, module in (("grpc", triton_grpc), ("http", triton_http)):
        client = module.InferenceServerClient(getattr(example_server, f"{protocol}_url"))
        with client, pytest.raises(InferenceServerException) as raised:
            client.get_model_repository_index()
        code = str(raised.value.status()).removeprefix("StatusCode.")
        error = refusal(code, raised.value.message(), address=Address(protocol, "x:1"))
        assert type(error) is ForbiddenError


def test_a_client_works_inside_a_running_loop_and_from_many_threads(url: str) -> None:
    async def notebook() -> str | None:
        with Client(url, model="colours") as client:
            return client.classify(encode("red")).label

    assert asyncio.run(notebook()) == "red"
    with Client(url, model="colours") as client:
        labels: list[str | None] = []
        threads = [
            threading.Thread(target=lambda: labels.append(client.classify(encode("blue")).label)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert labels == ["blue"] * 8
        assert client.classifiers() == ["colours"]


def test_a_request_is_named_as_the_caller_says(url: str) -> None:
    with Client(url, model="colours") as client:
        assert client.classify(encode("red"), request_id="job-7").request_id == "job-7.0"
        ids = [r.request_id for r in client.classify_many([encode("red")] * 10, request_id="job-8")]
    assert ids == ["job-8.0"] * 8 + ["job-8.1"] * 2


@pytest.fixture
def documented(example_server: Any, tmp_path: Path) -> str:
    """docs/clients.md with the addresses of the server; its files are in the temporary folder."""
    (tmp_path / "a/folder").mkdir(parents=True)
    for name in ("image.jpg", "one.jpg", "two.png", "a/folder/image.jpg"):
        (tmp_path / name).write_bytes(encode("red"))
    text = DOCUMENT.read_text(encoding="utf-8").replace("127.0.0.1:8001", example_server.grpc_url)
    return text.replace("127.0.0.1:8000", example_server.http_url)


@pytest.mark.parametrize(("number", "images"), [(0, 2), (1, 2)], ids=["sync", "async"])
def test_the_documented_programs_run(documented: str, tmp_path: Path, number: int, images: int) -> None:
    program = documented.split("```python\n")[1 + number].split("```", maxsplit=1)[0]
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("red") == images
    assert done.stderr == ""


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("perl"), reason="there is no curl or no perl here")
def test_the_documented_curl_lines_classify_a_jpeg(documented: str, tmp_path: Path) -> None:
    raw, binary = (block.split("```", maxsplit=1)[0] for block in documented.split("```bash\n")[1:])
    assert bash(raw, tmp_path).endswith("redblue")
    outputs = {output["name"]: output["data"] for output in json.loads(bash(binary, tmp_path))["outputs"]}
    assert (outputs["STATUS"], outputs["LABEL"]) == ([0], ["red", "blue"])


def bash(command: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout
