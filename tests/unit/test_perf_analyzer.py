"""perf_analyzer: the files that it reads and writes, and what is said when it is not there or fails."""

import json
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from slipway.benchmark.perf_analyzer import PerfAnalyzer
from slipway.benchmark.perf_analyzer_inputs import Driven
from slipway.benchmark.perf_analyzer_result import read_latencies_ms, read_run, table
from slipway.contract import ServingError, SpecError
from slipway.contract.evidence.latency import Latency, PerfAnalyzerOptions, PerfAnalyzerResult
from slipway.contract.evidence.origin import Machine
from tests.support.scripts import run_here

TABLE = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency\n"
    "2,665.897,2,1081,1,49,1587,264,2,2551,3045,4565,8095\n"
)
REPORT = """
Request concurrency: 2
  Client:
    Request count: 672
    Throughput: 665.897 infer/sec
  Server:
    Inference count: 672
    Successful request count: 672
    Avg request latency: 2167 usec (overhead 0 usec + queue 341 usec + compute 1901 usec)

  Composing models:
  engine_889a4dbdd9b4, version: 1
      Avg request latency: 494 usec (overhead 1 usec + queue 120 usec + compute input 15 usec + compute infer 280 usec)
"""
START_NS = 1_790_000_000_000_000_000


@pytest.fixture
def table_file(tmp_path):
    """`table_file(text)` is what perf_analyzer writes with `-f`."""

    def table_file(text=TABLE):
        (tmp_path / "table.csv").write_text(text)
        return tmp_path / "table.csv"

    return table_file


@pytest.fixture
def export_file(tmp_path):
    """`export_file(latencies_ms)` is what perf_analyzer writes with `--profile-export-file`."""

    def export_file(latencies_ms):
        requests = [
            {
                "timestamp": START_NS + index * 10**7,
                "request_inputs": {"IMAGE": "\u00ff\u00d8\u00ff"},
                "response_timestamps": [START_NS + index * 10**7 + int(ms * 1e6)],
            }
            for index, ms in enumerate(latencies_ms)
        ]
        text = json.dumps({"experiments": [{"requests": requests}], "version": "2.51.0"}, ensure_ascii=False)
        (tmp_path / "export.json").write_text(text, encoding="latin-1")
        return tmp_path / "export.json"

    return export_file


def test_a_run_is_read_from_the_table_and_from_what_is_said(table_file):
    run = read_run("colours", table=table_file(), report=REPORT)
    assert (run.requests, run.throughput_per_s) == (672, 665.897)
    assert (run.p50_us, run.p90_us, run.p99_us) == (2551, 3045, 8095)
    assert (run.compute_input_us, run.compute_infer_us, run.compute_output_us) == (49, 1587, 264)
    assert run.queue_us == 341, "the sum over the steps, and not the ensemble's own 1"


@pytest.mark.parametrize(
    "text", ["", TABLE.splitlines()[0], TABLE.replace("p99 latency", "99 %"), TABLE.replace("1587", "")]
)
def test_a_table_of_another_form_is_an_error_that_names_the_model(table_file, text):
    with pytest.raises(ServingError, match=r"step: not a report of perf_analyzer 2\.51"):
        read_run("step", table=table_file(text), report=REPORT)


@pytest.mark.parametrize("report", ["", REPORT.replace("queue", "wait"), REPORT.replace("Request count", "Requests")])
def test_a_report_in_other_words_is_an_error_that_names_the_model(table_file, report):
    with pytest.raises(ServingError, match=r"step: not a report of perf_analyzer 2\.51"):
        read_run("step", table=table_file(), report=report)


def test_a_missing_table_is_an_error_that_names_the_model(tmp_path):
    with pytest.raises(ServingError, match=r"step: not a report of perf_analyzer 2\.51: FileNotFoundError"):
        read_run("step", table=tmp_path / "table.csv", report=REPORT)


def test_latencies_are_read_beside_images_that_are_no_utf8(export_file):
    export = export_file(range(1, 101))
    with pytest.raises(UnicodeDecodeError):
        export.read_text(encoding="utf-8")
    assert read_latencies_ms(export) == pytest.approx(np.arange(1, 101))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", '{"experiments": []}', '{"experiments": [{}, {}]}', '{"experiments": [{"requests": 3}]}'),
        '{"experiments": [{"requests": []}]}',
        '{"experiments": [{"requests": [{"timestamp": 1, "response_timestamps": []}]}]}',
        '{"experiments": [{"requests": [{"timestamp": "x", "response_timestamps": [2]}]}]}',
    ],
)
def test_an_export_of_another_form_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(ServingError, match=r"export\.json: not an export of perf_analyzer 2\.51"):
        read_latencies_ms(tmp_path / "export.json")


def test_tensors_are_written_raw_without_the_batch_and_strings_after_their_length(tmp_path):
    pixels_nchw = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    requests = ({"IMAGE": np.array([[b"abc"]], np.object_), "pixels_nchw": pixels_nchw},) * 2
    Driven("step", requests).write(tmp_path / "inputs.json")
    first, second = json.loads((tmp_path / "inputs.json").read_text())["data"]
    assert first == second
    assert first["IMAGE"]["shape"] == [1]
    assert b64decode(first["IMAGE"]["content"]["b64"]) == b"\x03\0\0\0abc"
    assert first["pixels_nchw"]["shape"] == [3, 2, 2]
    assert b64decode(first["pixels_nchw"]["content"]["b64"]) == pixels_nchw.astype("<f4").tobytes()


def test_what_is_not_there_is_named_with_the_command_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    with pytest.raises(ServingError, match=r"bin/perf_analyzer is missing.*: make perf_analyzer"):
        PerfAnalyzer.find()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/perf_analyzer").touch()
    with pytest.raises(ServingError, match=r"libb64\.so\.0d is missing.*: make perf_analyzer"):
        PerfAnalyzer.find()


@pytest.fixture
def tool(tmp_path):
    """`tool(shell)` is a perf_analyzer that does just that."""

    def tool(shell):
        binary = tmp_path / "perf_analyzer"
        binary.write_text(f"#!/bin/sh\n{shell}\n")
        binary.chmod(0o755)
        return PerfAnalyzer(binary, tmp_path / "lib")

    return tool


def test_a_run_that_fails_ends_with_its_last_words(tool):
    failing = tool("echo one >&2; echo two >&2; echo three >&2; echo 'Thread [0] had error: refused' >&2; exit 99")
    with pytest.raises(ServingError, match=r"ended with 99: two; three; Thread \[0\] had error: refused$"):
        failing.run("-m", "step", timeout_s=10)
    with pytest.raises(ServingError, match="ended with 1: no output"):
        tool("exit 1").run(timeout_s=10)


def test_a_run_that_takes_too_long_is_ended(tool):
    with pytest.raises(ServingError, match=r"stopped after 0\.2 s: the server answers too slowly"):
        tool("exec sleep 60").run(timeout_s=0.2)


def test_the_libraries_come_before_those_of_the_environment(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    assert tool('echo "$LD_LIBRARY_PATH"').run(timeout_s=10).strip() == f"{tmp_path}/lib:/elsewhere"


@pytest.mark.parametrize("load", [{}, {"concurrency": 2, "rate_per_s": 5.0}])
def test_one_load_is_asked_for(load):
    with pytest.raises(SpecError, match="either concurrency or rate_per_s"):
        PerfAnalyzerOptions.parse({"model": "colours", "images": "photos", **load}, source="test")


def test_the_table_has_a_row_for_each_model_and_says_what_the_figures_are_not(table_file):
    run = read_run("colours", table=table_file(), report=REPORT)
    result = PerfAnalyzerResult(
        options=PerfAnalyzerOptions(model="colours", images=Path("photos"), concurrency=1),
        caveats=("a closed loop",),
        bundle="0" * 64,
        distinct_images=9,
        runs=(run, run.model_copy(update={"model": "step"})),
        latency=Latency(p50_ms=2.55, p90_ms=3, p99_ms=8.1, p999_ms=20.04, max_ms=30),
        histogram="",
        shares_cores_with_server=True,
        server="triton 2.51.0",
        machine=Machine.this(),
        versions={},
        commit=None,
        created="2026-11-24T00:00:00+00:00",
    )
    heading, first, second, *rest = table(result).splitlines()
    figures = ["672", "665.9", "2.55", "3.04", "8.10", "341", "49", "1,587", "264"]
    assert [first.split(), second.split()] == [["colours", *figures], ["step", *figures]]
    assert len(heading) == len(first) == len(second)
    last = "colours: P99.9 20.0 ms, max 30.0 ms; the client shares the server's cores"
    assert rest == ["", last, "a closed loop"]


@pytest.mark.parametrize("load", [[], ["--concurrency", "1", "--rate", "5"], ["--concurrency", "0"]])
def test_wrong_usage_ends_with_two_and_says_what_is_allowed(load, tmp_path):
    done = run_here("perf-analyzer", "colours", "--images", tmp_path, *load, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "--concurrency" in done.stderr
