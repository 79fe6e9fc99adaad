"""MLServer as a peer: a custom runtime in MLServer's pool of workers, asked over gRPC in the V2 protocol as `peer`.

It does what `mlserver start` does, without the files that it would read. A message goes through the main process, which
batches it (MLServer's adaptive batching), to the next worker in turn. Off: metrics, and debug, which also logs each
access. The HTTP server cannot be switched off, and listens at the port after gRPC's.
"""

import asyncio
import tempfile

from classifier import HOST, open_work, settings_given, settings_left
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.logging import configure_logger
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.utils import install_uvloop_event_loop

BATCH_WAIT_S = 0.003
"""Seconds to wait for a batch to fill. Each request waits so long, even if workers are free. At 1 ms few batches have
two images."""


class Peer(MLModel):
    """Takes IMAGE BYTES `[n, 1]`; gives LABEL BYTES, SCORE FP32, STATUS INT32 and BUNDLE BYTES `[n, 1]`."""

    async def load(self) -> bool:
        self._classifier = open_work(settings_left())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self._classifier.classify(payload.inputs[0].data.root)  # as MLServer's runtimes do, on the event loop
        outputs = {
            "LABEL": ("BYTES", [answer["label"].encode() for answer in answers]),
            "SCORE": ("FP32", [answer["score"] for answer in answers]),
            "STATUS": ("INT32", [answer["status"] for answer in answers]),
            "BUNDLE": ("BYTES", [b"peer"] * len(answers)),
        }
        shape = [len(answers), 1]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name=name, shape=shape, datatype=datatype, data=data)
                for name, (datatype, data) in outputs.items()
            ],
        )


async def serve(scratch: str) -> None:
    settings = settings_given()
    server = MLServer(
        Settings(
            debug=False,
            host=HOST,
            grpc_port=settings.port,
            http_port=settings.port + 1,
            metrics_endpoint=None,
            metrics_dir=scratch,  # written even without metrics
            environments_dir=scratch,
            parallel_workers=settings.workers,
        )
    )
    model = ModelSettings(
        name="peer",
        implementation="mlserver_server.Peer",  # by a name, which the workers can import too
        max_batch_size=settings.max_batch,
        max_batch_time=BATCH_WAIT_S,
    )
    await server.start([model])


if __name__ == "__main__":
    configure_logger()
    install_uvloop_event_loop()
    with tempfile.TemporaryDirectory() as scratch_folder:
        asyncio.run(serve(scratch_folder))
