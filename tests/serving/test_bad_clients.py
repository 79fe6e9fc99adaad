"""Clients that give up, go away, or stop in the middle of a request harm nobody."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from tests.support.image_files import encode, photo
from tests.support.v2_requests import IMAGE, RED, http_request, message


def test_client_deadlines_of_one_to_four_milliseconds_are_survived(unharmed: Any) -> None:
    image = np.array([[encode(photo(400, 300, seed=seed), "PNG")] for seed in range(4)], np.object_)

    def impatient(offset: int) -> list[str]:
        client = triton_grpc.InferenceServerClient(unharmed.grpc_url)
        tensor = triton_grpc.InferInput("IMAGE", image.shape, "BYTES")
        tensor.set_data_from_numpy(image)
        failures = []
        for index in range(40):
            try:
                client.infer("colours", [tensor], client_timeout=0.001 * (1 + (index + offset) % 4))
            except InferenceServerException as error:
                failures.append(error.message())
        client.close()
        return failures

    with ThreadPoolExecutor(4) as pool:
        failures = [failure for failures in pool.map(impatient, range(4)) for failure in failures]
    assert failures, "some deadlines were missed, or nothing is tested here"
    assert {"Deadline Exceeded" in failure for failure in failures} == {True}, set(failures)


def test_http_clients_that_wait_one_to_four_milliseconds_are_survived(unharmed: Any) -> None:
    head, body = http_request(encode(photo(400, 300), "PNG"))
    missed = 0
    for index in range(40):
        with socket.create_connection(("127.0.0.1", unharmed.ports.http), timeout=5) as connection:
            connection.sendall(head + body)
            connection.settimeout(0.001 * (1 + index % 4))
            try:
                connection.recv(1)
            except TimeoutError:
                missed += 1
    assert missed, "some gave up, or nothing is tested here"


def test_clients_that_go_away_harm_nobody(unharmed: Any) -> None:
    client = triton_grpc.InferenceServerClient(unharmed.grpc_url)
    for _ in range(10):
        call = client._client_stub.ModelInfer.future(message(IMAGE))
        time.sleep(0.002)
        call.cancel()
    client.close()
    head, body = http_request(RED)
    for sent in (head[:20], head, head + body[: len(body) // 2], head + body):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", unharmed.ports.http), timeout=5) as connection:
                connection.sendall(sent)
