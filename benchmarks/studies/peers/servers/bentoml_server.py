"""BentoML as a peer: POST /classify with the JPEG itself as the body; GET /readyz answers 200 once a worker is ready.

Each worker is a uvicorn that batches its own requests (BentoML's adaptive batching, in which no wait can be set) and
classifies in one thread. All workers accept from one socket, and a connection stays with the worker that was first: a
worker with many connections leaves the others idle. BentoML takes raw bytes, but not for a batchable method, which it
has take
and return lists: `Images` and `Answers` say how a request is a list of one. uvicorn finds uvloop and httptools. Off:
access log, metrics, tracing, usage tracking.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import bentoml
from classifier import HOST, open_work, settings_given, settings_left
from starlette.requests import Request
from starlette.responses import JSONResponse

settings = settings_given() if __name__ == "__main__" else settings_left()
os.chdir(Path(__file__).parent)  # from where BentoML's workers import this file


class Images(bentoml.IODescriptor):
    images: list[bytes]

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> "Images":  # noqa: ARG003
        return cls(images=[await request.body()])


class Answers(bentoml.IODescriptor):
    @classmethod
    async def to_http_response(cls, obj: list[dict[str, Any]], serde: object) -> JSONResponse:  # noqa: ARG003
        return JSONResponse(obj[0])


@bentoml.service(
    workers=settings.workers,
    threads=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Peer:
    def __init__(self) -> None:
        self._classifier = open_work(settings)

    @bentoml.api(
        input_spec=Images,
        output_spec=Answers,
        batchable=settings.max_batch > 1,
        max_batch_size=max(2, settings.max_batch),  # BentoML refuses 1
    )
    def classify(self, images: list[bytes]) -> list[dict[str, Any]]:
        return self._classifier.classify(images)


if __name__ == "__main__":
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    with tempfile.TemporaryDirectory() as home:
        os.environ["BENTOML_HOME"] = home
        service: Any = Peer  # the class as BentoML's decorator returned it
        service.serve_http(host=HOST, port=settings.port)
