"""A gRPC server of the KServe protocol in the test's own process, whose behaviour is known."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor


class Stub(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # gRPC's generated code has no types
    """Serves the ensemble `stub` of one step, one request at a time, in a time of its own choosing.

    The image says what happens to it: b"reject", b"break" and b"bad" as named, b"stall" takes `stall_s`.
    """

    def __init__(self, *, service_s: float = 0.0, stall_s: float = 0.0) -> None:
        self.service_s, self.stall_s = service_s, stall_s
        self.answered = 0

    def ModelInfer(self, request: Any, context: Any) -> Any:
        image = request.raw_input_contents[0][4:]
        time.sleep(self.stall_s if image == b"stall" else self.service_s)
        if image == b"reject":
            context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        if image == b"break":
            context.abort(grpc.StatusCode.INTERNAL, "a step failed")
        self.answered += 1
        outputs = {
            "LABEL": ("BYTES", np.array([b"seven"], object)),
            "SCORE": ("FP32", np.array([0.9], np.float32)),
            "STATUS": ("INT32", np.array([3 if image == b"bad" else 0], np.int32)),
            "BUNDLE": ("BYTES", np.array([b"0123456789abcdef"], object)),
        }
        reply = pb.ModelInferResponse(model_name=request.model_name)
        for wanted in request.outputs:
            kind, values = outputs[wanted.name]
            reply.outputs.add(name=wanted.name, datatype=kind, shape=[1, 1])
            raw = serialize_byte_tensor(values).item() if kind == "BYTES" else values.tobytes()
            reply.raw_output_contents.append(raw)
        return reply

    def ServerLive(self, _request: Any, _context: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    def ModelReady(self, request: Any, _context: Any) -> Any:
        return pb.ModelReadyResponse(ready=request.name == "stub")

    def ServerMetadata(self, _request: Any, _context: Any) -> Any:
        return pb.ServerMetadataResponse(name="stub", version="1.0")

    def ModelConfig(self, _request: Any, _context: Any) -> Any:
        reply = pb.ModelConfigResponse()
        reply.config.ensemble_scheduling.step.add(model_name="step_1")
        return reply

    def ModelStatistics(self, _request: Any, _context: Any) -> Any:
        """Every request is said to have queued for 20 µs and computed for 300 µs, in batches of two."""
        reply = pb.ModelStatisticsResponse()
        for name in ("stub", "step_1"):
            model = reply.model_stats.add(name=name, version="1", inference_count=self.answered)
            model.execution_count = self.answered // 2 if name == "step_1" else 0
            for field, ns in (("success", 320_000), ("queue", 20_000), ("compute_infer", 300_000)):
                duration = getattr(model.inference_stats, field)
                duration.count, duration.ns = self.answered, self.answered * ns
        return reply


@contextmanager
def serving(stub: Any, *, workers: int = 1) -> Iterator[str]:
    """Serve the stub on a free port of this machine; with one worker, requests wait for each other, in order."""
    server = grpc.server(ThreadPoolExecutor(max_workers=workers))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stub, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
