"""Clients that ask a server all the while something happens to it, and remember every answer."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent, how long it took, and what came back."""

    sent: float
    """`time.monotonic()`."""
    seconds: float
    label: str
    bundle: str
    error: str


@contextmanager
def asking(
    grpc_url: str, model: str, image: bytes, *, clients: int = 4, per_second: float = 40.0
) -> Iterator[list[Asked]]:
    """For the duration of the block, `clients` threads send one image each so often that there are `per_second`."""
    asked: list[Asked] = []
    over = threading.Event()

    def work(offset_s: float) -> None:
        client = triton_grpc.InferenceServerClient(grpc_url)
        due = time.monotonic() + offset_s
        while not over.wait(max(due - time.monotonic(), 0)):
            asked.append(ask(client, model, image))
            due = max(due + clients / per_second, time.monotonic())
        client.close()

    threads = [threading.Thread(target=work, args=(index / per_second,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()


def ask(client: triton_grpc.InferenceServerClient, model: str, image: bytes) -> Asked:
    tensor = triton_grpc.InferInput("IMAGE", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[image]], np.object_))
    sent = time.monotonic()
    try:
        answer = client.infer(model, [tensor], client_timeout=TIMEOUT_S)
    except InferenceServerException as error:
        return Asked(sent, time.monotonic() - sent, "", "", str(error.message()) or "no message")
    label, bundle = (answer.as_numpy(name)[0, 0].decode() for name in ("LABEL", "BUNDLE"))
    return Asked(sent, time.monotonic() - sent, label, bundle, "")


def seconds_without(asked: Sequence[Asked], label: str, *, since: float) -> float:
    """From `since` to the end of the first right answer to a request that was sent afterwards."""
    ends = [one.sent + one.seconds for one in asked if one.sent >= since and one.label == label]
    return min(ends, default=float("inf")) - since


def get(launched: Any, path: str) -> tuple[int, Any]:
    """Status code and content of the supervisor's own HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", launched.ports.status, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    return response.status, body if path == "/metrics" else json.loads(body)


def wait_until(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value
