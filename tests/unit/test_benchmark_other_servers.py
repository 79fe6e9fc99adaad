"""The gate asked for a server that is no tritonserver with an ensemble of ours: an error that says what it lacks."""

import asyncio
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from slipway.benchmark import GateOptions, run_gate
from slipway.benchmark.server import HttpConnection
from slipway.contract import ServingError
from tests.support.kserve_stub import serving

OURS = "give an ensemble that Slipway assembled: IMAGE in; LABEL, SCORE, STATUS and BUNDLE out"
TRITON = "the gate needs Triton's model configuration and statistics"
TEXT, NUMBER = np.array([b"seven"], object), np.array([1], np.int32)
RIGHT = {
    "LABEL": ("BYTES", TEXT),
    "SCORE": ("FP32", np.array([0.9], np.float32)),
    "STATUS": ("INT32", np.array([0], np.int32)),
    "BUNDLE": ("BYTES", TEXT),
}


class V2(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A server of the KServe protocol and of nothing beyond it; what it does not define is UNIMPLEMENTED."""

    tensors = RIGHT

    def ServerLive(self, _request, _context):
        return pb.ServerLiveResponse(live=True)

    def ServerMetadata(self, _request, _context):
        return pb.ServerMetadataResponse(name="other", version="1")

    def ModelReady(self, request, context):
        if request.name != "model":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Model {request.name} not found")
        return pb.ModelReadyResponse(ready=True)

    def ModelInfer(self, _request, _context):
        reply = pb.ModelInferResponse(model_name="model")
        for name, (datatype, values) in self.tensors.items():
            reply.outputs.add(name=name, datatype=datatype, shape=[values.size])
            reply.raw_output_contents.append(
                (serialize_byte_tensor(values).item() if values.size else b"")
                if datatype == "BYTES"
                else values.tobytes()
            )
        return reply


class Configured(V2):
    """With Triton's configuration; its statistics know other models."""

    def ModelConfig(self, _request, _context):
        reply = pb.ModelConfigResponse()
        reply.config.ensemble_scheduling.step.add(model_name="step_1")
        return reply

    def ModelStatistics(self, _request, _context):
        reply = pb.ModelStatisticsResponse()
        reply.model_stats.add(name="model", version="1")
        return reply


class WithoutStatistics(Configured):
    def ModelStatistics(self, _request, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "the server does not support statistics")


class Restricted(Configured):
    def ModelStatistics(self, _request, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'key'")


class OtherInput(Configured):
    def ModelInfer(self, _request, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unexpected inference input 'IMAGE' for model 'model'")


def answering(**tensors):
    return type("Answering", (Configured,), {"tensors": tensors})()


@contextmanager
def web_server():
    """Answers every request with a page."""

    class Page(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "image.jpg").write_bytes(b"image")
    return folder


@pytest.mark.parametrize(
    ("stub", "said"),
    [
        (V2(), (TRITON,)),
        (WithoutStatistics(), ("does not support statistics", TRITON)),
        (Restricted(), ("This protocol is restricted",)),
        (Configured(), ("no statistics for step_1", TRITON)),
        (OtherInput(), ("unexpected inference input 'IMAGE'", OURS)),
        (answering(output=("FP32", np.array([0.5], np.float32))), ("answers with other tensors", OURS)),
        (answering(), ("answers with other tensors", OURS)),
        (answering(**RIGHT | {"BUNDLE": ("INT32", NUMBER)}), ("answers with other tensors", OURS)),
        (answering(**RIGHT | {"SCORE": ("BYTES", TEXT)}), ("answers with other tensors", OURS)),
        (answering(**RIGHT | {"LABEL": ("BYTES", TEXT[:0])}), ("answers with other tensors", OURS)),
        (service_pb2_grpc.GRPCInferenceServiceServicer(), ("no tritonserver answers gRPC at 127.0.0.1",)),
    ],
)
def test_a_server_that_is_not_ours_is_an_error_that_says_what_it_lacks(images, stub, said):
    with serving(stub) as url, pytest.raises(ServingError) as raised:
        run_gate(GateOptions(model="model", images=images, url=url))
    for part in (url, *said):
        assert part in str(raised.value)


def test_a_model_that_another_server_does_not_know_is_not_served(images):
    with serving(Configured()) as url, pytest.raises(ServingError, match="does not serve 'digits'; it serves model"):
        run_gate(GateOptions(model="digits", images=images, url=url))


def test_a_port_that_speaks_http_is_said_not_to_speak_grpc(images):
    with web_server() as url, pytest.raises(ServingError, match=f"at {url} .*does not speak gRPC.*; give the gRPC"):
        run_gate(GateOptions(model="model", images=images, url=url))


def test_an_http_answer_with_other_tensors_counts_as_a_failure():
    async def asked(url):
        async with HttpConnection("127.0.0.1:9", http_url=url, model="model", images=[b"image"]) as server:
            return await server.answer(0, deadline_s=5)

    with web_server() as url:
        assert asyncio.run(asked(url)) == "other tensors"
