"""The open loop and the gate against a real gRPC server of the KServe protocol whose behaviour is known."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from slipway.benchmark import GateOptions, GateResult, Verdict, run_gate, summary
from slipway.benchmark.figures import rates_per_s
from slipway.benchmark.load import Sent, counted, offer, poisson_schedule, precise_loop, rate_per_s
from slipway.benchmark.server import Server
from slipway.cli import gate
from slipway.contract import DataError, ServingError, SpecError


class Stub(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves the ensemble `stub` of one step, one request at a time, in a time of its own choosing.

    The image says what happens to it: b"reject", b"break" and b"bad" as named, b"stall" takes `stall_s`.
    """

    def __init__(self, *, service_s=0.0, stall_s=0.0):
        self.service_s, self.stall_s = service_s, stall_s
        self.answered = 0

    def ModelInfer(self, request, context):
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

    def ServerLive(self, _request, _context):
        return pb.ServerLiveResponse(live=True)

    def ModelReady(self, request, _context):
        return pb.ModelReadyResponse(ready=request.name == "stub")

    def ServerMetadata(self, _request, _context):
        return pb.ServerMetadataResponse(name="stub", version="1.0")

    def ModelConfig(self, _request, _context):
        reply = pb.ModelConfigResponse()
        reply.config.ensemble_scheduling.step.add(model_name="step_1")
        return reply

    def ModelStatistics(self, _request, _context):
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
def serving(stub):
    """Serve the stub on a free port of this machine, with one worker: requests wait for each other, in order."""
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stub, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()


def run_async(coroutine):
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(coroutine)


async def open_loop(url, images, schedule_s, *, deadline_ms=2000.0, warm_up=0):
    """Request `i` sends image `i`."""
    async with Server(url, model="stub", images=images) as server:
        await server.first_answer()
        return await offer(
            schedule_s,
            lambda index: server.ask(index, deadline_s=deadline_ms / 1000),
            warm_up=warm_up,
            deadline_ms=deadline_ms,
        )


async def closed_loop(url, images):
    """The usual way, for comparison: ask, wait, ask again."""
    latencies_ms = []
    async with Server(url, model="stub", images=images) as server:
        for index in range(len(images)):
            started_s = time.perf_counter()
            await server.ask(index, deadline_s=2)
            latencies_ms.append((time.perf_counter() - started_s) * 1000)
    return np.array(latencies_ms)


def schedule(requests, *, rate_per_s, seed=0):
    return poisson_schedule(requests, rate_per_s=rate_per_s, rng=np.random.default_rng(seed))


def test_the_schedule_is_poisson_and_repeatable():
    gaps_s = np.diff(schedule(20_000, rate_per_s=50))
    assert gaps_s.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps_s.std() == pytest.approx(1 / 50, rel=0.03)
    assert (schedule(100, rate_per_s=50) == schedule(100, rate_per_s=50)).all()
    assert (schedule(100, rate_per_s=50) != schedule(100, rate_per_s=50, seed=1)).all()


@pytest.mark.nightly
def test_a_stall_is_charged_to_every_request_that_it_delayed():
    images = [b"fine"] * 100
    images[30] = b"stall"
    schedule_s = schedule(100, rate_per_s=100)
    with serving(Stub(service_s=0.001, stall_s=0.4)) as url:
        block = run_async(open_loop(url, images, schedule_s))
        closed_ms = run_async(closed_loop(url, images))
    delayed = (schedule_s >= schedule_s[30]) & (schedule_s < schedule_s[30] + 0.28)
    assert delayed.sum() > 20
    assert (block.latencies_ms[delayed] > 100).all()
    assert (closed_ms > 100).sum() == 1
    assert not block.failures


def test_latencies_are_those_of_the_queue():
    """First come, first served, 20 ms each: the waiting times follow from the schedule alone.

    So long that what a busy machine adds to each is little beside it.
    """
    service_s, schedule_s = 0.02, schedule(150, rate_per_s=25)
    with serving(Stub(service_s=service_s)) as url:
        block = run_async(open_loop(url, [b"fine"] * 150, schedule_s, warm_up=20))
    done_s = np.empty_like(schedule_s)
    free_s = 0.0
    for index, due_s in enumerate(schedule_s):
        done_s[index] = free_s = max(free_s, due_s) + service_s
    extra_ms = block.latencies_ms - (done_s - schedule_s)[20:] * 1000
    assert extra_ms.min() > -0.1
    assert np.quantile(extra_ms, 0.25) < 1000 * service_s
    assert np.median(block.schedule_errors_ms) < 500 * service_s
    assert block.latencies_ms.size == 130
    assert block.warm_up_s >= schedule_s[19]
    assert rate_per_s([block.answered]) == pytest.approx(rate_per_s([block.due]), rel=0.05)


def test_whatever_is_not_a_right_answer_counts_as_the_deadline():
    images = [b"fine", b"reject", b"break", b"bad", b"bad", b"fine", b"stall"]
    with serving(Stub(stall_s=0.5)) as url:
        block = run_async(open_loop(url, images, np.arange(1, 8) / 20, deadline_ms=300.0))
    assert block.failures == {"rejected": 1, "error INTERNAL": 1, "STATUS 3": 2, "timed out": 1}
    assert (block.latencies_ms[[1, 2, 3, 4, 6]] >= 300).all()
    assert (block.latencies_ms[[0, 5]] < 300).all()
    assert block.answered.count + 1 == 2


def block_of(due_s, done_s, *, right):
    """As `counted` makes it, with a deadline of 1 s."""
    outcomes = [None if ok else "rejected" for ok in right]
    return counted(due_s, Sent(due_s, done_s, outcomes), warm_up=0, deadline_ms=1000)


def test_the_achieved_rate_is_that_of_right_answers_and_of_backlogs_beyond_the_limit():
    due_s = np.arange(100) / 100
    all_right = np.ones(100, bool)

    def share(done_s, right=all_right):
        offered_per_s, achieved_per_s = rates_per_s([block_of(due_s, done_s, right=right)], limit_ms=50)
        return achieved_per_s / offered_per_s

    assert share(due_s + 0.01) == 1
    assert share(due_s + np.linspace(0.01, 0.05, 100)) == 1  # the last a little later than the first: no backlog
    assert share(due_s + np.linspace(0.01, 1.01, 100)) == pytest.approx(0.99 / (1.99 - 0.05))
    # Quick refusals are no answers, nor is silence from the middle on.
    assert share(due_s + 0.01, right=np.arange(100) % 2 == 0) == pytest.approx(0.5, abs=0.02)
    assert share(due_s + 0.01, right=np.arange(100) < 50) == pytest.approx(0.5, abs=0.02)


def test_a_server_that_cannot_keep_up_is_seen_in_the_achieved_rate():
    with serving(Stub(service_s=0.01)) as url:
        block = run_async(open_loop(url, [b"fine"] * 60, schedule(60, rate_per_s=200), deadline_ms=5000.0))
    assert not block.failures
    assert rate_per_s([block.answered]) < 0.7 * rate_per_s([block.due])


@pytest.fixture
def images(tmp_path):
    (tmp_path / "three").mkdir()
    for number in range(3):
        (tmp_path / "three" / f"{number}.jpg").write_bytes(b"image %d" % number)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_the_gate_measures_judges_and_writes_it_all_down(images, tmp_path):
    options = GateOptions(
        model="stub",
        images=images,
        rate_per_s=400,
        limit_ms=20_000,  # so that no machine is too busy for it
        deadline_ms=30_000,
        blocks=2,
        requests_per_block=480,
        warm_up_requests=20,
        minutes=0.01,
    )
    with serving(Stub()) as url:
        result = run_gate(options.model_copy(update={"url": url, "server_pid": os.getpid()}))
    assert result.verdict is Verdict.PASS, result.reason
    assert (result.bundle, result.server, result.distinct_images) == ("0123456789abcdef", "stub 1.0", 3)
    assert "3 distinct images" in result.caveats[0]
    assert result.generator.shares_cores_with_server
    assert result.generator.schedule_error_limit_ms == 2000
    assert result.generator.schedule_error_p50_ms <= result.generator.schedule_error_p99_ms
    assert result.server_use.processes >= 1
    assert result.server_use.peak_rss_mib > 20
    assert result.achieved_per_s > 0.99 * result.offered_per_s

    ensemble, step = result.steps
    assert (ensemble.model, step.model, step.requests) == ("stub", "step_1", 1000)
    assert (step.queue_us, step.compute_infer_us, step.compute_output_us) == (20, 300, 0)
    assert (ensemble.images_per_execution, step.images_per_execution) == (0, 2)

    result.write(tmp_path / "result.json")
    assert GateResult.read(tmp_path / "result.json") == result
    again = HdrHistogram.decode(result.blocks[0].histogram)
    assert again.get_total_count() == 480
    assert again.get_value_at_percentile(99) / 1000 == result.blocks[0].latency.p99_ms

    text = summary(result)
    (look,) = result.looks
    assert (look.verdict, look.requests, look.over_limit) == (Verdict.PASS, 960, 0)
    assert look.needed <= look.independent <= 960
    assert look.after_s > 2 * 500 / 400 * 0.8
    for part in (
        "P99.9",
        "block 2",
        "look  after s",
        "step_1",
        "achieved",
        "generators  1",
        "sent late",
        "first answer",
        "PASS: P99",
    ):
        assert part in text


def test_the_gate_goes_on_until_it_can_tell(images):
    """Two blocks of 300 cannot show enough at the first look; a third makes 930."""
    options = GateOptions(
        model="stub",
        images=images,
        rate_per_s=400,
        limit_ms=20_000,
        deadline_ms=30_000,
        blocks=2,
        requests_per_block=300,
        warm_up_requests=10,
        minutes=0.04,
    )
    with serving(Stub()) as url:
        result = run_gate(options.model_copy(update={"url": url}))
    assert [look.verdict for look in result.looks] == [Verdict.TOO_FEW, Verdict.PASS], result.reason
    assert [look.requests for look in result.looks] == [600, 930]
    assert [block.requests for block in result.blocks] == [300, 300, 330]
    assert result.looks[0].after_s < result.looks[1].after_s
    assert result.verdict is Verdict.PASS


PATIENT = "--limit-ms 20000 --deadline-ms 30000"
"""No machine is so busy that its own delays, up to a tenth of the limit, decide a verdict."""


@pytest.mark.parametrize(("image", "requests", "code"), [(b"fine", 480, 0), (b"bad", 460, 1), (b"fine", 20, 3)])
def test_the_script_exits_by_the_verdict(tmp_path, capsys, image, requests, code):
    (tmp_path / "image.jpg").write_bytes(image)
    size = f"--blocks 2 --requests-per-block {requests} --minutes 0.01"
    line = f"stub --images {tmp_path} --rate 400 {PATIENT} {size} --json"
    assert run_script(line, Stub()) == code
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert GateResult.model_validate_json(last_line).options.limit_ms == 20_000


def test_a_generator_that_cannot_be_on_time_is_told_from_a_slow_server(images, capsys):
    """No process wakes up within a microsecond, a tenth of this limit: whatever the server does, it is not judged."""
    line = f"stub --images {images} --rate 400 --blocks 2 --limit-ms 0.01 --requests-per-block 460"
    assert run_script(line, Stub()) == 4
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line.startswith("GENERATOR LATE: P99")
    assert "are not the server's alone" in last_line


def run_script(line, stub):
    with serving(stub) as url:
        return gate.main(gate.parser().parse_args([*line.split(), "--url", url, "--warm-up-requests", "10"]))


@pytest.mark.parametrize(
    ("rate_per_s", "minutes", "said"),
    [
        (50, 5, ["for about 66 s (3 blocks of 1,000 requests, and 100 before each", "or up to 300 s for a verdict"]),
        (20, 1, ["for 165 s, longer than the 60 s of --minutes", "; --requests-per-block 300 would fit"]),
        (20, 0.5, ["for 165 s, longer than the 30 s of --minutes", "; a higher --rate is faster"]),
    ],
)
def test_the_script_says_first_how_long_it_takes_and_what_would_fit(images, rate_per_s, minutes, said):
    options = GateOptions(model="stub", images=images, rate_per_s=rate_per_s, minutes=minutes)
    assert all(part in gate.duration(options) for part in said), gate.duration(options)
    if "would fit" in said[1]:
        assert "for about 60 s" in gate.duration(options.model_copy(update={"requests_per_block": 300}))


def test_the_script_has_the_defaults_of_the_library(images):
    arguments = vars(gate.parser().parse_args(["stub", "--images", str(images)]))
    for name in gate.NOT_OPTIONS:
        del arguments[name]
    assert GateOptions(**arguments) == GateOptions(model="stub", images=images)


def test_a_wrong_option_is_a_usage_error_that_names_it(images, capsys):
    with pytest.raises(SystemExit) as exit_info:
        gate.main(gate.parser().parse_args(["stub", "--images", str(images), "--blocks", "1"]))
    assert exit_info.value.code == 2
    assert "blocks: Input should be greater than or equal to 2; given 1" in capsys.readouterr().err
    with pytest.raises(SpecError, match="deadline_ms 40 must be above limit_ms 50"):
        GateOptions.parse({"model": "stub", "images": images, "deadline_ms": 40}, source="options")


def test_no_server_is_an_error_that_says_how_to_start_one(images):
    with pytest.raises(ServingError, match=r"127\.0\.0\.1:9 .*slipway serve REPOSITORY"):
        run_gate(GateOptions(model="stub", images=images, url="127.0.0.1:9"))


def test_an_unknown_model_is_an_error_that_names_the_known_ones(images):
    with serving(Stub()) as url, pytest.raises(ServingError, match=r"does not serve 'stubb'; it serves step_1, stub"):
        run_gate(GateOptions(model="stubb", images=images, url=url))


def test_no_images_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        run_gate(GateOptions(model="stub", images=tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no image in or below it"):
        run_gate(GateOptions(model="stub", images=tmp_path))
