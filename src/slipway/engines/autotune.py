"""ModelOpt's autotune: Q/DQ nodes only where TensorRT is faster with them, as trtexec measures on the GPU at hand.

ModelOpt 0.47 can also time plans by TensorRT's Python API, but not with TensorRT 11, which has no `EXPLICIT_BATCH`.
"""

import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from slipway.contract import Bundle, QuantizeError
from slipway.contract.base_bundle import Base
from slipway.contract.card import Card
from slipway.contract.evidence.build import Autotuned
from slipway.engines.tensorrt_library import require_card
from slipway.onnx_graph import INPUT

LEFT = "left by autotune: TensorRT was not faster with Q/DQ nodes there"
_MEDIAN = re.compile(r"\[I\]\s+Latency:.*?median\s*=\s*([\d.]+)\s*ms", re.IGNORECASE)
"""ModelOpt's own pattern: it took no time that this does not find."""
_VERSION = re.compile(r"\[(TensorRT v\d+)\]")


@dataclass(frozen=True)
class Autotune:
    """One search for the places of Q/DQ nodes.

    Args:
        folder: for ModelOpt's graphs and the logs of trtexec.
        shapes: options of trtexec: the profile of the plan that will be served, and no copies to and from the GPU.
    """

    folder: Path
    shapes: str
    batch_size: int
    """The batch size that is timed."""
    card: Card

    def added_to(self, quantise: Callable[..., None]) -> Callable[..., None]:
        """ModelOpt's `quantize`, told to search."""
        return partial(
            quantise,
            autotune=True,
            autotune_use_trtexec=True,
            autotune_trtexec_args=self.shapes,
            autotune_output_dir=str(self.folder),
            autotune_timing_cache=str(self.folder / "timing.cache"),
        )

    def measured(self) -> Autotuned:
        """Return the measurements of the search, once ModelOpt has returned a graph with Q/DQ nodes."""
        logs = self.folder / "logs"
        placed, plain = (_read(logs / f"calibrated_{name}.log") for name in ("candidate", "baseline"))
        version = _VERSION.search(placed)
        return Autotuned(
            card=self.card,
            batch_size=self.batch_size,
            plans=len(list(logs.glob("*.log"))),
            with_ms=_median_ms(placed),
            without_ms=_median_ms(plain),
            version=None if version is None else version[1],
        )


@contextmanager
def autotuning(bundle: Bundle | Base) -> Iterator[Autotune]:
    """A search with the batch sizes of the spec, and a line of progress while it runs.

    Raises:
        QuantizeError: trtexec is not on PATH.
        CompileError: this machine has no GPU.
    """
    if shutil.which("trtexec") is None:
        raise QuantizeError(
            "autotune times plans with TensorRT's trtexec, which is not on PATH; run it in NVIDIA's TensorRT image on "
            "the GPU that will serve (docs/containers.md), or quantise without --autotune"
        )
    card, preprocess = require_card("autotune"), bundle.preprocess
    largest = bundle.spec.serving.gpu.max_batch_size
    optimal = bundle.spec.tensorrt.optimal_batch_size or largest
    sizes = {"min": 1, "opt": optimal, "max": largest}
    shapes = [
        f"--{name}Shapes={INPUT}:{size}x3x{preprocess.input_height}x{preprocess.input_width}"
        for name, size in sizes.items()
    ]
    with tempfile.TemporaryDirectory(prefix="slipway-autotune-") as folder:
        search = Autotune(Path(folder), " ".join([*shapes, "--noDataTransfers"]), optimal, card)
        with _counted(search.folder / "logs"):
            yield search


@contextmanager
def _counted(logs: Path) -> Iterator[None]:
    """Show the number of plans that were timed. ModelOpt writes a log for each, and does not know how many it takes."""
    ended = threading.Event()
    with tqdm(desc="autotune", unit="plan", leave=False, disable=None) as progress:

        def count() -> None:
            while not ended.wait(1):
                progress.n = len(list(logs.glob("*.log")))
                progress.refresh()

        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _read(log: Path) -> str:
    """The text of a log; empty if ModelOpt could not write it, which does not stop its search."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _median_ms(text: str) -> float | None:
    found = _MEDIAN.search(text)
    return None if found is None else float(found[1])
