"""`slipway.client` when things go wrong: late, cancelled, closed, refused for load, and a server that is killed."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.client import AsyncClient, Client, ClientError, DeadlineError, GoneError, Options, OverloadedError, Result
from tests.support import client_sides as fixtures
from tests.support.client_sides import COLOURS, Asker, address, answered_and_refused, encode
from tests.support.processes import running_process

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


@pytest.fixture(scope="module")
def slow() -> bytes:
    """An image that takes about a tenth of a second."""
    return encode("green", (2000, 2000), "PNG")


protocol, side, url, asker = fixtures.protocol, fixtures.side, fixtures.url, fixtures.asker
nothing_is_left_behind = fixtures.nothing_is_left_behind


def test_a_deadline_ends_the_request_and_the_server_goes_on(asker: Asker, slow: bytes) -> None:
    started_s = time.monotonic()
    results = asker.classify_many([slow] * 8, deadline_s=0.05)
    assert [type(r.error) for r in results] == [DeadlineError] * 8
    assert f"(request {results[0].request_id})" in str(results[0].error)
    assert time.monotonic() - started_s < 3
    assert asker.classify(encode("red"), deadline_s=60.0).label == "red"


def test_cancelling_ends_the_requests_under_way_and_the_client_goes_on(url: str, slow: bytes) -> None:
    async def ask() -> None:
        async with AsyncClient(url, model="colours", options=Options(deadline_s=60.0)) as client:
            await client.classify(encode("red"))
            calls = [asyncio.create_task(client.classify(slow)) for _ in range(8)]
            await asyncio.sleep(0.1)
            for call in calls:
                call.cancel()
            started_s = time.monotonic()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - started_s < 5
            assert sum(isinstance(one, asyncio.CancelledError) for one in ended) >= 6
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert (await client.classify(encode("blue"))).label == "blue"

    asyncio.run(ask())


def test_closing_ends_what_is_under_way_and_a_closed_client_says_so(url: str, slow: bytes) -> None:
    client = Client(url, model="colours", options=Options(batch_size=1))
    results = client.classify_many([slow] * 16)
    next(results)
    started_s = time.monotonic()
    client.close()
    client.close()
    assert time.monotonic() - started_s < 2
    with pytest.raises(ClientError, match="closed"):
        list(results)
    with pytest.raises(ClientError, match="this client is closed; make another one"):
        client.classify(encode("red"))

    async def ask() -> None:
        client = AsyncClient(url, model="colours")
        await client.classify(encode("red"))
        calls = [asyncio.create_task(client.classify(slow)) for _ in range(8)]
        await asyncio.sleep(0.05)
        await client.close()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(one, ClientError) and "closed" in str(one) for one in ended) >= 6
        with pytest.raises(ClientError, match="this client is closed"):
            await client.classify(encode("red"))

    asyncio.run(ask())


ENDLESS = """
import itertools, sys
from pathlib import Path
from slipway.client import Client
with Client(sys.argv[1], model="colours") as client:
    for result in client.classify_many(itertools.repeat(Path(sys.argv[2]))):
        print(result.label, flush=True)
"""


def test_ctrl_c_ends_a_program_at_once(url: str, tmp_path: Path) -> None:
    (tmp_path / "red.jpg").write_bytes(encode("red"))
    command = ["env", "--default-signal=INT", sys.executable, "-c", ENDLESS, url, tmp_path / "red.jpg"]
    with running_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "red\n"
        process.send_signal(2)
        _, said = process.communicate(timeout=20)  # the images have no end
    assert process.returncode == -2
    # A line of its own, not always the last: caught before its call was handed over, Python adds that it never ran.
    assert "KeyboardInterrupt" in said.splitlines()
    assert "Task was destroyed" not in said


@pytest.fixture(scope="module")
def impatient_server(
    start: Callable[[Path], Any], assemble_colours: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Refuses what has waited for more than 20 ms."""
    return start(assemble_colours(tmp_path_factory.mktemp("impatient"), serving={"queue_timeout_ms": 20}))


def test_refusals_for_load_are_asked_again_within_the_budget(protocol: str, side: str, impatient_server: Any) -> None:
    asker = Asker(side, address(impatient_server, protocol))
    image = encode("green", (1000, 1000), "PNG")
    before = answered_and_refused(impatient_server, "colours")
    results = asker.classify_many([image] * 200, batch_size=1, concurrency=16, deadline_s=10.0)
    after = answered_and_refused(impatient_server, "colours")
    answered, refused = after[0] - before[0], (after[1] - before[1]) // 2  # 2.51 counts a step's refusal twice
    assert len(results) == 200
    assert sum(r.ok for r in results) == answered
    assert {type(r.error) for r in results if not r.ok} <= {OverloadedError}
    retries = answered + refused - 200
    assert 5 <= retries <= 10 + 200 / 10
    assert "Request timeout expired" in next(str(r.error) for r in results if not r.ok)


def linked(folder: Path, count: int) -> list[Path]:
    """So many image files, named by their colour."""
    folder.mkdir()
    paths = [folder / f"{index:05d}_{sorted(COLOURS)[index % 3]}.png" for index in range(count)]
    for path in paths[:3]:
        path.write_bytes(encode(path.stem.split("_")[1], kind="PNG"))
    for index, path in enumerate(paths[3:]):
        os.link(paths[index % 3], path)
    return paths


def kill_at(launched: Any, results: list[Result], count: int) -> None:
    if len(results) == count:
        launched.server().kill()


@pytest.mark.parametrize(
    ("protocol", "side", "images"),
    [
        ("grpc", "async", 2_000),
        ("http", "sync", 2_000),
        pytest.param("grpc", "async", 10_000, marks=pytest.mark.nightly),
    ],
)
def test_every_image_is_answered_once_through_a_restart_of_the_server(
    launch: Callable[..., Any], tmp_path: Path, protocol: str, side: str, images: int
) -> None:
    paths = linked(tmp_path / "images", images)
    launched = launch(EXAMPLE)
    launched.wait_for("ready after")
    url = f"{protocol}://127.0.0.1:{getattr(launched.ports, protocol)}"
    options = Options(reconnect_s=60.0, deadline_s=30.0, concurrency=8)
    results: list[Result] = []

    def sync() -> None:
        with Client(url, model="colours", options=options) as client:
            for result in client.classify_many(paths):
                results.append(result)
                kill_at(launched, results, images // 3)

    async def concurrent() -> None:
        async with AsyncClient(url, model="colours", options=options) as client:
            async for result in client.classify_many(paths):
                results.append(result)
                kill_at(launched, results, images // 3)

    sync() if side == "sync" else asyncio.run(concurrent())
    assert [r.source for r in results] == paths
    assert [r for r in results if r.label != Path(str(r.source)).stem.split("_")[1]] == []
    assert len(launched.events("ready")) == 2
    launched.server().kill()
    with pytest.raises(GoneError, match="set reconnect_s to wait for a restart"):
        Asker(side, url).classify_many(paths)
