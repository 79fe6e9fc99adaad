"""LitServe as a peer: POST /predict with the JPEG itself as the body; GET /health is 200 once all workers are ready.

LitServe hands requests to its workers through one queue of Python's multiprocessing, and a worker with a batch to fill
asks it each millisecond. One HTTP process; uvloop and httptools come with LitServe. Off: access log, client file.
"""

import multiprocessing
import signal
from typing import Annotated, Any, NoReturn

from classifier import HOST, open_work, settings_given, settings_left
from fastapi import Body
from litserve import LitAPI, LitServer

BATCH_WAIT_S = 0.001
"""Seconds to wait for a batch to fill. At 0 LitServe's workers poll the queue without a pause, and idle ones take the
cores."""


class Peer(LitAPI):
    """One image in each request, as a list of one: so `predict` is the same with batches and, at 1, without."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        self._classifier = open_work(settings_left())

    def decode_request(self, request: Annotated[bytes, Body()]) -> list[bytes]:  # the body as it is, not JSON
        return [request]

    def batch(self, inputs: list[list[bytes]]) -> list[bytes]:
        return [image for images in inputs for image in images]

    def predict(self, images: list[bytes]) -> list[dict[str, Any]]:
        return self._classifier.classify(images)

    def unbatch(self, output: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return [[answer] for answer in output]

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        return output[0]


def end(*_: object) -> NoReturn:
    """End as on Ctrl+C at SIGTERM, at which LitServe would leave its children behind. No child prints a traceback."""
    raise SystemExit if multiprocessing.parent_process() else KeyboardInterrupt


if __name__ == "__main__":
    settings = settings_given()
    signal.signal(signal.SIGTERM, end)
    server = LitServer(
        Peer(max_batch_size=settings.max_batch, batch_timeout=BATCH_WAIT_S if settings.max_batch > 1 else 0),
        accelerator="cpu",
        workers_per_device=settings.workers,
    )
    try:
        server.run(
            host=HOST,
            port=settings.port,
            num_api_servers=1,
            log_level="warning",
            access_log=False,
            generate_client_file=False,
        )
    finally:
        for child in multiprocessing.active_children():  # LitServe ends them itself only once it serves
            child.terminate()
