"""Runs NVIDIA's perf_analyzer 2.51 on the real inputs of each model, and reads its report."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from slipway.benchmark.gate import load_images
from slipway.benchmark.perf_analyzer_inputs import Driven, driven_models
from slipway.benchmark.perf_analyzer_result import read_latencies_ms, read_run
from slipway.benchmark.server import on_this_host
from slipway.benchmark.statistics import histogram_of, latency_of
from slipway.contract.evidence.latency import MIN_DISTINCT_IMAGES, ModelRun, PerfAnalyzerOptions, PerfAnalyzerResult
from slipway.contract.evidence.origin import Origin
from slipway.errors import ServingError
from slipway.system.process import output_of

SHARED_LIBRARIES = ("libb64.so.0d", "libcudart.so.12")
"""Libraries that the binary needs and a plain system lacks. nvidia-pytriton has both; `make perf_analyzer` links
them."""
START_S = 60.0
"""Seconds, beside the measured time, to read inputs, connect and write exports."""
CLOSED_LOOP = (
    "a closed loop: each client waits for its answer, so a stall shows as one slow request; use it for saturation, and "
    "slipway gate for the verdict on P99"
)
ACTUAL_SEND = (
    "timed from the actual send: lateness of the client is not counted; use slipway gate for the verdict on P99"
)
_LIBRARIES = ("grpcio", "hdrhistogram", "tritonclient")


@dataclass(frozen=True)
class PerfAnalyzer:
    """The binary of the tritonclient wheel and the folder of the libraries that the wheel lacks."""

    binary: Path
    libraries: Path

    @classmethod
    def find(cls) -> "PerfAnalyzer":
        """Find perf_analyzer in the environment of the running Python.

        Raises:
            ServingError: it or one of its libraries is missing; the message names the command that installs them.
        """
        found = cls(Path(sys.executable).parent / "perf_analyzer", Path(sys.prefix) / "lib" / "perf_analyzer")
        for path in (found.binary, *(found.libraries / name for name in SHARED_LIBRARIES)):
            if not path.exists():  # also catches a link into a removed package
                raise ServingError(f"perf_analyzer cannot start: {path} is missing; in a clone: make perf_analyzer")
        return found

    def run(self, *arguments: str | Path, timeout_s: float) -> str:
        """Run perf_analyzer and return its standard output.

        Raises:
            ServingError: it failed (the message has its last lines), or it did not end in time and was killed.
        """
        inherited = os.environ.get("LD_LIBRARY_PATH", "")
        path = os.pathsep.join(part for part in (str(self.libraries), inherited) if part)
        no_proxy = next(filter(None, map(os.environ.get, ("no_grpc_proxy", "no_proxy"))), "")
        here = f"{no_proxy},localhost,127.0.0.1".lstrip(",")  # http_proxy must not apply to the machine itself
        try:
            environment = {**os.environ, "LD_LIBRARY_PATH": path, "no_grpc_proxy": here}
            done = output_of([self.binary, *arguments], env=environment, timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            raise ServingError(
                f"perf_analyzer was stopped after {timeout_s:g} s: the server answers too slowly for the load, or never"
            ) from None
        if done.returncode != 0:
            raise ServingError(f"perf_analyzer ended with {done.returncode}: {_last_words(done.stderr or done.stdout)}")
        return done.stdout


def run_perf_analyzer(options: PerfAnalyzerOptions) -> PerfAnalyzerResult:
    """Put load on the ensemble, then on each of its steps alone.

    Raises:
        DataError: the folder has no images, or the classifier refuses some.
        ServingError: perf_analyzer, the server or the model is missing, or a run failed or took too long.
    """
    tool = PerfAnalyzer.find()
    images = load_images(options.images, seed=options.seed)[: options.distinct_images]
    asked = driven_models(options.url, model=options.model, images=images)
    with tempfile.TemporaryDirectory(prefix="slipway_perf_analyzer_") as folder:
        export = Path(folder) / "export.json"
        with tqdm(asked.models, desc="perf_analyzer", unit=" models", disable=None) as models:
            runs = tuple(_run(tool, options, driven, Path(folder), export=export) for driven in models)
        latencies = histogram_of(read_latencies_ms(export))
    distinct = len(set(images))
    return PerfAnalyzerResult(
        options=options,
        caveats=_caveats(options, distinct),
        bundle=asked.bundle,
        distinct_images=distinct,
        runs=runs,
        latency=latency_of(latencies),
        histogram=latencies.encode().decode(),
        shares_cores_with_server=on_this_host(options.url),
        server=asked.server,
        **Origin.here(_LIBRARIES).fields(),
    )


def _run(tool: PerfAnalyzer, options: PerfAnalyzerOptions, driven: Driven, folder: Path, *, export: Path) -> ModelRun:
    inputs, table = folder / "inputs.json", folder / "table.csv"
    driven.write(inputs)
    command = ("-m", driven.model, "-i", "grpc", "-u", options.url, f"--input-data={inputs}", *_load(options))
    if options.warm_up_s:
        tool.run(*command, *_windows(options.warm_up_s), timeout_s=START_S + options.warm_up_s)
    # Its export holds every tensor as text: 3 MB and 0.1 s per request for the pixels of a step.
    exports = [f"--profile-export-file={export}"] if driven.model == options.model else []
    windows, timeout_s = _windows(options.duration_s), START_S + options.duration_s
    report = tool.run(*command, *windows, "-f", table, *exports, timeout_s=timeout_s)
    return read_run(driven.model, table=table, report=report)


def _load(options: PerfAnalyzerOptions) -> tuple[str, ...]:
    if options.rate_per_s is None:
        return (f"--concurrency-range={options.concurrency}:{options.concurrency}",)
    # Without --async a late answer would block the thread's next request.
    return (f"--request-rate-range={options.rate_per_s:g}", "--request-distribution=poisson", "--async")


def _windows(together_s: float) -> tuple[str, ...]:
    """Ask for three windows, the minimum; each runs a fifth longer than asked. 999 % accepts any spread between them.

    --request-count would count time after the last answer into the throughput, and lose early answers.
    """
    return (f"--measurement-interval={together_s * 1000 / 3 / 1.2:.0f}", "-s", "999", "-r", "3")


def _caveats(options: PerfAnalyzerOptions, distinct_images: int) -> tuple[str, ...]:
    load = CLOSED_LOOP if options.rate_per_s is None else ACTUAL_SEND
    if distinct_images >= MIN_DISTINCT_IMAGES:
        return (load,)
    return (load, f"{distinct_images} distinct images; publication takes {MIN_DISTINCT_IMAGES} or more")


def _last_words(output: str) -> str:
    return "; ".join([line.strip() for line in output.splitlines() if line.strip()][-3:]) or "no output"
