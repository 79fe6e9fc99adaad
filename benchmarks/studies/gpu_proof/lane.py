"""A gpu lane that was carried here: its servers, on copies that are completed with weights and fitted to the device."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.studies.gpu_proof.carried import SHADOWING
from benchmarks.studies.gpu_proof.folder import Photograph, ProofError, read_files
from benchmarks.studies.gpu_proof.report import Report
from benchmarks.studies.gpu_proof.triton import Served, serve, step_python

POOL = 256 << 20
"""Bytes of CUDA memory that Triton keeps for tensors between steps."""
LARGEST_SIDE = 512
PLAIN_MEMORY = {"DALI_USE_VMM": "0"}
WAYS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("DLPack", "no", {}),
    ("DLPack, DALI's memory from cudaMalloc", "no", PLAIN_MEMORY),
    ("the CPU", "yes", PLAIN_MEMORY),
)
"""Ways of pixels from the decoder to the engine. A way that fails is a reason against a pass, and the next is tried."""


def by_any_way(report: Report, prove_by: Callable[[str], None]) -> str | None:
    """Call `prove_by` with a value for the engine's FORCE_CPU_ONLY_INPUT_TENSORS, way by way, until it raises no
    ProofError; return that value, or None if every way failed."""
    for path, force_cpu, variables in WAYS:
        report.part(f"answers, pixels by way of {path}")
        os.environ.update(variables)
        with attempt(report, f"pixels by way of {path}"):
            prove_by(force_cpu)
            return force_cpu
    return None


@contextmanager
def attempt(report: Report, what: str) -> Iterator[None]:
    """Run the block. A server that does not start or answer is a reason to fail, and the rest of the proof goes on."""
    try:
        yield
    except ProofError as error:
        report.require(False, f"{what}: {error}")


def photographs(inputs: Path) -> list[bytes]:
    """Read the carried photographs of at most 512 pixels."""
    files, facts = read_files(inputs / "photographs.npz", Photograph)
    return [file for file, fact in zip(files, facts, strict=True) if fact.side <= LARGEST_SIDE]


class Lane:
    """The carried repositories of the proof named `proof`, whose servers write one log, `tritonserver_<proof>.log`."""

    def __init__(self, inputs: Path, report: Report, work: Path, *, proof: str) -> None:
        self._inputs, self._report, self._work, self._proof = inputs, report, work, proof
        self._log = report.folder / f"tritonserver_{proof}.log"
        self._log.unlink(missing_ok=True)
        site = inputs.parent / "site"
        carried = (site / SHADOWING).is_dir()
        self._environment = (
            step_python(work / "python", first=[site / SHADOWING], last=[site / "all"]) if carried else None
        )

    def repository(self, name: str) -> Path:
        """Find the repository. Raises ProofError: it was not prepared, or not carried."""
        found = self._inputs / name
        if not (found / "lane.json").is_file():
            raise ProofError(f"{found}: no repository; run prepare {self._proof}, and carry inputs/ here")
        return found

    @contextmanager
    def serve(
        self,
        repository: Path,
        *,
        force_cpu: str,
        post: str = "",
        pool: int = POOL,
        change: Callable[[Path], None] = lambda _: None,
    ) -> Iterator[Served]:
        """Start a server on a copy of the repository.

        Args:
            force_cpu: `yes` or `no`, whether Triton copies pixels to the CPU before the engine.
            post: KIND_CPU or KIND_GPU of the step `post`; "" leaves it as it is.
            pool: Triton's CUDA memory in bytes.
            change: called with the copy before the server starts.

        Raises:
            ProofError: the server does not start.
        """
        copy = self._copied(repository, force_cpu=force_cpu, post=post)
        change(copy)
        flags = [f"--cuda-memory-pool-byte-size=0:{pool}"] if self._report.device == "cuda" else []
        with serve(copy, self._work, flags=flags, log=self._log, environment=self._environment) as served:
            yield served

    def _copied(self, repository: Path, *, force_cpu: str, post: str) -> Path:
        """Copy the repository, with the engine's weights and with its steps on the device of the report."""
        copy = Path(tempfile.mkdtemp(dir=self._work)) / "repository"
        shutil.copytree(repository, copy)
        for config in copy.glob("*/config.pbtxt"):
            text = config.read_text(encoding="utf-8")
            if config.parent.name.startswith("engine_"):
                (config.parent / "1/weights.npz").symlink_to(self._inputs / "precision/digits/weights.npz")
                text = re.sub(
                    r'(FORCE_CPU_ONLY_INPUT_TENSORS"\s*value\s*{\s*string_value: ")no', rf"\g<1>{force_cpu}", text
                )
            if post and config.parent.name.startswith("post_"):
                text = re.sub(r"KIND_(CPU|GPU)", post, text)
            config.write_text(text if self._report.device == "cuda" else _on_the_cpu(text), encoding="utf-8")
        return copy


def _on_the_cpu(config: str) -> str:
    return re.sub(r"\n\s*gpus: \d+", "", config.replace("KIND_GPU", "KIND_CPU"))
