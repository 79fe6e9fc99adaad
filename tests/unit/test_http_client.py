"""The lean HTTP client, against a real HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from slipway.benchmark.http_client import HttpClient, HttpError, message

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def echo(request: web.Request) -> web.Response:
    """The body after as many hundredths of a second as its length; who asked, in a header."""
    body = await request.read()
    await asyncio.sleep(len(body) / 100)
    assert request.transport
    port = request.transport.get_extra_info("peername")[1]
    return web.Response(body=body, headers={"X-Client-Port": str(port)})


def posts(address: str, *bodies: bytes) -> list[bytes]:
    return [message(f"http://{address}/", body, {"X-Kind": "test"}) for body in bodies]


def test_messages_one_after_the_other_share_a_connection_and_those_at_once_do_not() -> None:
    async def asked() -> tuple[list[bytes], list[str]]:
        async with server(echo) as address, HttpClient(address) as client:
            first, second, *together = posts(address, b"a", b"", b"abc", b"ab")
            answers = [await client.post(first, deadline_s=2), await client.post(second, deadline_s=2)]
            answers += await asyncio.gather(*(client.post(each, deadline_s=2) for each in together))
        assert {status for status, _, _ in answers} == {200}
        return [body for *_, body in answers], [headers["x-client-port"] for _, headers, _ in answers]

    bodies, ports = asyncio.run(asked())
    assert bodies == [b"a", b"", b"abc", b"ab"]
    assert ports[0] == ports[1]
    assert len(set(ports)) == 2


def test_an_answer_that_comes_late_is_not_taken_for_that_of_the_next() -> None:
    async def asked() -> bytes:
        async with server(echo) as address, HttpClient(address) as client:
            slow, quick = posts(address, b"slow" * 10, b"b")
            with pytest.raises(TimeoutError):
                await client.post(slow, deadline_s=0.05)
            await asyncio.sleep(0.4)
            return (await client.post(quick, deadline_s=2))[2]

    assert asyncio.run(asked()) == b"b"


def test_a_large_answer_arrives_whole() -> None:
    async def large(request: web.Request) -> web.Response:
        return web.Response(body=await request.read() * 1000)

    async def asked() -> bytes:
        async with server(large) as address, HttpClient(address) as client:
            return (await client.post(posts(address, bytes(range(256)) * 4)[0], deadline_s=5))[2]

    assert asyncio.run(asked()) == bytes(range(256)) * 4000


def test_an_answer_without_its_length_is_an_error_at_once() -> None:
    async def chunked(_: web.Request) -> web.Response:
        answer = web.Response(body=b"text")
        answer.enable_chunked_encoding()
        return answer

    async def asked() -> None:
        async with server(chunked) as address, HttpClient(address) as client:
            await client.post(posts(address, b"")[0], deadline_s=5)

    with pytest.raises(HttpError, match="status 200 without a content-length"):
        asyncio.run(asked())


def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async def closing(request: web.Request) -> web.Response:
        answer = web.Response(body=await request.read())
        answer.force_close()
        return answer

    async def asked() -> list[int]:
        async with server(closing) as address, HttpClient(address) as client:
            statuses = []
            for post in posts(address, b"a", b"b"):
                statuses.append((await client.post(post, deadline_s=2))[0])
                await asyncio.sleep(0.05)
            return statuses

    assert asyncio.run(asked()) == [200, 200]


def test_nobody_listens() -> None:
    async def asked() -> None:
        async with HttpClient("127.0.0.1:9") as client:
            await client.post(posts("127.0.0.1:9", b"")[0], deadline_s=1)

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(asked())
