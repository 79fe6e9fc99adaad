#!/usr/bin/env python3
"""A server of the KServe protocol in a process of its own, whose latencies are known and which writes down what it did.

It answers every request by itself, after a time drawn from a seeded lognormal distribution, or with `--at-once N` at
most N of them at a time, first come, first served. In one planted stall it answers nobody.
"""

import argparse
import asyncio
import json
import math
import os
import selectors
import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

ENSEMBLE, STEP, VERSION = "stub", "step_1", "1"
MAX_BATCH_SIZE = 8
OUTPUTS = {
    "LABEL": ("BYTES", np.array([b"seven"], object)),
    "SCORE": ("FP32", np.array([0.9], np.float32)),
    "CLASS_ID": ("INT32", np.array([7], np.int32)),
    "STATUS": ("INT32", np.array([0], np.int32)),
    "BUNDLE": ("BYTES", np.array([b"0123456789abcdef"], object)),
}
EPILOG = f"""example:
  tests/support/stub_server.py --latency-ms 30 --sigma 0.5 --stall-at-s 10 --log served.jsonl

Serves the ensemble "{ENSEMBLE}" of one step, "{STEP}". One JSON line says when and where it is ready:
  {{"url": "127.0.0.1:41337", "port": 41337, "pid": 4242}}
The log has a line for each answer, in seconds of CLOCK_MONOTONIC, which all processes of a machine share:
  {{"arrived_s": 812.3, "answered_s": 812.33}}
SIGTERM or Ctrl-C ends it."""


class Stub(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # gRPC's generated code has no types
    """The service; `log` is a text file or None. The stall begins `stall_at_s` after the first request."""

    def __init__(
        self,
        *,
        latency_s: float,
        sigma: float,
        seed: int,
        at_once: int,
        stall_at_s: float | None,
        stall_s: float,
        log: TextIO | None,
    ) -> None:
        self.latency_s, self.sigma, self.rng = latency_s, sigma, np.random.default_rng(seed)
        self.free = asyncio.Semaphore(at_once) if at_once else None
        self.stall_at_s, self.stall_s, self.log = stall_at_s, stall_s, log
        self.first_s: float | None = None
        self.answered, self.images, self.queue_ns, self.compute_ns = 0, 0, 0, 0

    async def ModelInfer(self, request: Any, _context: Any) -> Any:
        arrived_s = time.monotonic()
        self.first_s = self.first_s or arrived_s
        latency_s = self.latency_s * math.exp(self.sigma * self.rng.standard_normal())
        async with self.turn():
            started_s = time.monotonic()
            await self.outlast_stall()
            await asyncio.sleep(latency_s)
            await self.outlast_stall()
        answered_s = time.monotonic()
        rows = request.inputs[0].shape[0] if len(request.inputs[0].shape) > 1 else 1
        self.answered, self.images = self.answered + 1, self.images + rows
        self.queue_ns += int((started_s - arrived_s) * 1e9)
        self.compute_ns += int((answered_s - started_s) * 1e9)
        if self.log:
            self.log.write(json.dumps({"arrived_s": arrived_s, "answered_s": answered_s}) + "\n")
        return answer(request, rows=rows)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if not self.free:
            yield
            return
        async with self.free:
            yield

    async def outlast_stall(self) -> None:
        """Wait until the stall is over, if it is now."""
        if self.stall_at_s is not None and self.first_s is not None:
            since_s = time.monotonic() - self.first_s - self.stall_at_s
            if 0 <= since_s < self.stall_s:
                await asyncio.sleep(self.stall_s - since_s)

    async def ServerLive(self, _request: Any, _context: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: Any, _context: Any) -> Any:
        return pb.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: Any, _context: Any) -> Any:
        return pb.ModelReadyResponse(ready=request.name in (ENSEMBLE, STEP))

    async def ServerMetadata(self, _request: Any, _context: Any) -> Any:
        return pb.ServerMetadataResponse(name="stub", version="1.0", extensions=["model_configuration", "statistics"])

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        await known(request, context)
        platform = "ensemble" if request.name == ENSEMBLE else "stub"
        reply = pb.ModelMetadataResponse(name=request.name, versions=[VERSION], platform=platform)
        reply.inputs.add(name="IMAGE", datatype="BYTES", shape=[-1, 1])
        for name, (datatype, _) in OUTPUTS.items():
            reply.outputs.add(name=name, datatype=datatype, shape=[-1, 1])
        return reply

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        await known(request, context)
        reply = pb.ModelConfigResponse()
        config = reply.config
        config.name, config.max_batch_size = request.name, MAX_BATCH_SIZE
        config.input.add(name="IMAGE", data_type="TYPE_STRING", dims=[1])
        for name, (datatype, _) in OUTPUTS.items():
            config.output.add(name=name, data_type=f"TYPE_{datatype.replace('BYTES', 'STRING')}", dims=[1])
        if request.name == ENSEMBLE:
            config.platform = "ensemble"
            step = config.ensemble_scheduling.step.add(model_name=STEP, model_version=-1)
            step.input_map["IMAGE"] = "IMAGE"
            for name in OUTPUTS:
                step.output_map[name] = name
        else:
            config.backend = "stub"
        return reply

    async def ModelStatistics(self, request: Any, _context: Any) -> Any:
        reply = pb.ModelStatisticsResponse()
        for name in (ENSEMBLE, STEP):
            if request.name in ("", name):
                model = reply.model_stats.add(name=name, version=VERSION, inference_count=self.images)
                model.execution_count = self.answered
                # Each with a count, as Triton gives it also to an ensemble: perf_analyzer insists.
                times_ns = dict.fromkeys(("queue", "compute_input", "compute_infer", "compute_output"), 0)
                times_ns["success"] = self.queue_ns + self.compute_ns
                if name == STEP:
                    times_ns |= {"queue": self.queue_ns, "compute_infer": self.compute_ns}
                for field, ns in times_ns.items():
                    duration = getattr(model.inference_stats, field)
                    duration.count, duration.ns = self.answered, ns
        return reply


async def known(request: Any, context: Any) -> None:
    if request.name not in (ENSEMBLE, STEP):
        await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")


def answer(request: Any, *, rows: int) -> Any:
    """The same for every image; the outputs that were asked for, or all."""
    reply = pb.ModelInferResponse(model_name=request.model_name, model_version=VERSION, id=request.id)
    for name in [output.name for output in request.outputs] or OUTPUTS:
        datatype, row = OUTPUTS[name]
        values = np.tile(row, rows)
        reply.outputs.add(name=name, datatype=datatype, shape=[rows, 1])
        raw = serialize_byte_tensor(values).item() if datatype == "BYTES" else values.tobytes()
        reply.raw_output_contents.append(raw)
    return reply


async def main(arguments: argparse.Namespace) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    with ExitStack() as files:
        # Line by line, so that it can be read at any time.
        log = files.enter_context(arguments.log.open("w", buffering=1)) if arguments.log else None
        stub = Stub(
            latency_s=arguments.latency_ms / 1000,
            sigma=arguments.sigma,
            seed=arguments.seed,
            at_once=arguments.at_once,
            stall_at_s=arguments.stall_at_s,
            stall_s=arguments.stall_s,
            log=log,
        )
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stub, server)
        port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
        await server.start()
        print(json.dumps({"url": f"127.0.0.1:{port}", "port": port, "pid": os.getpid()}), flush=True)
        await over.wait()
        await server.stop(grace=None)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--port", type=int, default=0, help="of gRPC on this machine; 0 is a free one (%(default)s)")
    add("--latency-ms", type=float, default=30.0, help="the median (%(default)g)")
    add("--sigma", type=float, default=0.0, help="of the latency's logarithm; 0 makes them all the same (%(default)g)")
    add("--seed", type=int, default=0, help="of the latencies, drawn in the order of arrival (%(default)s)")
    add("--at-once", type=int, default=0, metavar="N", help="requests served at a time; 0: all of them (%(default)s)")
    add("--stall-at-s", type=float, metavar="S", help="answer nobody from so many seconds after the first request on")
    add("--stall-s", type=float, default=2.0, metavar="S", help="how long (%(default)g)")
    add("--log", type=Path, metavar="FILE", help="a JSON line for each request")
    return parser


if __name__ == "__main__":
    # The default loop rounds every sleep up to a whole millisecond (epoll).
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(main(parser().parse_args()))
