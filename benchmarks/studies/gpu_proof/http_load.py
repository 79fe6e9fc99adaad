"""A small asyncio client of Triton's HTTP interface: requests at once, and an open loop at a rate."""

import asyncio
import json
import random
import struct
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

HOST = "127.0.0.1"
OUTPUTS = ("LABEL", "SCORE", "STATUS")
MAX_CONNECTIONS = 512
TIMEOUT_S = 20


@dataclass(frozen=True)
class Answer:
    """One image's answer; `error` is that of its whole request."""

    label: str = ""
    score: float = 0.0
    status: int = -1
    error: str = ""


def request(model: str, images: Sequence[bytes]) -> bytes:
    """A whole HTTP request for `images`, in Triton's binary form; the answer comes as JSON."""
    tensor = b"".join(struct.pack("<I", len(image)) + image for image in images)
    described: dict[str, Any] = {
        "inputs": [
            {
                "name": "IMAGE",
                "shape": [len(images), 1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": False}} for name in OUTPUTS],
    }
    head = json.dumps(described).encode()
    lines = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(head) + len(tensor)}\r\n"
    return f"{lines}Inference-Header-Content-Length: {len(head)}\r\n\r\n".encode() + head + tensor


class Client:
    """Keeps connections to one server, and opens another where all are busy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    async def send(self, raw: bytes) -> tuple[int, bytes]:
        """HTTP status and body. A connection that broke is not used again."""
        async with self._room:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(HOST, self._port)
            try:
                writer.write(raw)
                await writer.drain()
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
                body = await reader.readexactly(length)
            except BaseException:
                writer.close()
                raise
            self._idle.append((reader, writer))
            return int(head.split(" ", 2)[1]), body

    async def ask(self, raw: bytes, images: int) -> list[Answer]:
        """An answer for each image; every failure is an answer too."""
        try:
            status, body = await asyncio.wait_for(self.send(raw), TIMEOUT_S)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, StopIteration) as error:
            return [Answer(error=type(error).__name__)] * images
        content = json.loads(body or b"{}")
        if status != 200:
            return [Answer(error=f"{status}: {str(content.get('error'))[:200]}")] * images
        outputs = {output["name"]: output["data"] for output in content["outputs"]}
        columns = len(outputs["LABEL"]) // images
        return [
            Answer(
                str(outputs["LABEL"][row * columns]),
                float(outputs["SCORE"][row * columns]),
                int(outputs["STATUS"][row]),
            )
            for row in range(images)
        ]

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def ask_all(port: int, model: str, requests: Sequence[Sequence[bytes]], *, concurrency: int) -> list[list[Answer]]:
    """Every request, `concurrency` at a time, in their order."""

    async def run() -> list[list[Answer]]:
        client, room = Client(port), asyncio.Semaphore(concurrency)

        async def one(images: Sequence[bytes]) -> list[Answer]:
            async with room:
                return await client.ask(request(model, images), len(images))

        try:
            return await asyncio.gather(*(one(images) for images in requests))
        finally:
            client.close()

    return asyncio.run(run())


def open_loop(
    port: int, model: str, images: Sequence[bytes], *, rate_per_s: float, seconds: float, seed: int
) -> dict[str, Any]:
    """Poisson arrivals of single images; each is timed from its scheduled send, and a failure counts as no answer."""
    raws = [request(model, [image]) for image in images]
    rng = random.Random(seed)
    due, scheduled = 0.0, []
    while (due := due + rng.expovariate(rate_per_s)) < seconds:
        scheduled.append(due)

    async def run() -> tuple[list[float], list[float], Counter[str], float]:
        client, took_s, late_s, failed = Client(port), list[float](), list[float](), Counter[str]()
        await asyncio.gather(*(client.ask(raw, 1) for raw in raws[:32]))  # connections, and a last warm-up
        start = time.perf_counter() + 0.05

        async def one(raw: bytes, at: float) -> None:
            late_s.append(time.perf_counter() - at)
            (answer,) = await client.ask(raw, 1)
            took_s.append(time.perf_counter() - at)
            if answer.error or answer.status != 0:
                failed[answer.error or f"STATUS {answer.status}"] += 1

        tasks = []
        for index, offset in enumerate(scheduled):
            if (wait := start + offset - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(one(raws[index % len(raws)], start + offset)))
        await asyncio.gather(*tasks)
        ended = time.perf_counter() - start
        client.close()
        return took_s, late_s, failed, ended

    took_s, late_s, failed, ended = asyncio.run(run())
    ms = {f"p{q:g}_ms": round(1000 * float(np.percentile(took_s, q)), 2) for q in (50, 90, 99, 99.9)}
    return {
        "offered_per_s": round(len(scheduled) / seconds, 1),
        "achieved_per_s": round((len(took_s) - failed.total()) / max(ended, seconds), 1),
        "requests": len(took_s),
        **ms,
        "max_ms": round(1000 * max(took_s), 2),
        "late_p99_ms": round(1000 * float(np.percentile(late_s, 99)), 2),
        "failed": dict(failed),
    }
