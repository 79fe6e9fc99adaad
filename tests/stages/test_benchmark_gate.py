"""The gate against a real gRPC server of the KServe protocol whose behaviour is known."""

import os

import pytest
from hdrh.histogram import HdrHistogram

from slipway.benchmark import GateOptions, LatencyResult, LatencyVerdict, run_gate, summary
from slipway.cli import gate
from slipway.contract import DataError, ServingError, SpecError
from tests.support.kserve_stub import Stub, serving


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
    assert result.verdict is LatencyVerdict.PASS, result.reason
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
    assert LatencyResult.read(tmp_path / "result.json") == result
    again = HdrHistogram.decode(result.blocks[0].histogram)
    assert again.get_total_count() == 480
    assert again.get_value_at_percentile(99) / 1000 == result.blocks[0].latency.p99_ms

    text = summary(result)
    (look,) = result.looks
    assert (look.verdict, look.requests, look.over_limit) == (LatencyVerdict.PASS, 960, 0)
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
    assert [look.verdict for look in result.looks] == [LatencyVerdict.TOO_FEW, LatencyVerdict.PASS], result.reason
    assert [look.requests for look in result.looks] == [600, 930]
    assert [block.requests for block in result.blocks] == [300, 300, 330]
    assert result.looks[0].after_s < result.looks[1].after_s
    assert result.verdict is LatencyVerdict.PASS


PATIENT = "--limit-ms 20000 --deadline-ms 30000"
"""No machine is so busy that its own delays, up to a tenth of the limit, decide a verdict."""


@pytest.mark.parametrize(("image", "requests", "code"), [(b"fine", 480, 0), (b"bad", 460, 1), (b"fine", 20, 3)])
def test_the_script_exits_by_the_verdict(tmp_path, capsys, image, requests, code):
    (tmp_path / "image.jpg").write_bytes(image)
    size = f"--blocks 2 --requests-per-block {requests} --minutes 0.01"
    line = f"stub --images {tmp_path} --rate 400 {PATIENT} {size} --json"
    assert run_script(line, Stub()) == code
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert LatencyResult.model_validate_json(last_line).options.limit_ms == 20_000


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


class Reloaded(Stub):
    """Exchanges its step after the first answers, or begins its counters anew."""

    def __init__(self, *, unloads):
        super().__init__()
        self.unloads = unloads

    def ModelStatistics(self, request, context):
        reply = super().ModelStatistics(request, context)
        if self.answered > 10:
            step = reply.model_stats[1]
            step.name, step.inference_stats.success.count = ("step_2" if self.unloads else "step_1"), 0
        return reply


@pytest.mark.parametrize("unloads", [True, False])
def test_a_reload_during_the_measurement_is_an_error_in_words(images, unloads):
    options = {"blocks": 2, "requests_per_block": 100, "warm_up_requests": 0, "minutes": 0.01}
    with (
        serving(Reloaded(unloads=unloads)) as url,
        pytest.raises(ServingError, match="step_1 was unloaded or restarted during the measurement"),
    ):
        run_gate(GateOptions(url=url, model="stub", images=images, rate_per_s=400, **options))


def test_no_images_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        run_gate(GateOptions(model="stub", images=tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no image in or below it"):
        run_gate(GateOptions(model="stub", images=tmp_path))
