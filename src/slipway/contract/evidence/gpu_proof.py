"""The results of `benchmarks.studies.gpu_proof`: what was proved on a GPU, proof by proof."""

from typing import Literal

from pydantic import JsonValue

from slipway.contract.evidence.gate import AccuracyResult
from slipway.contract.spec import AccuracyGate
from slipway.contract.typed_file import Evidence

ProofVerdict = Literal["pass", "fail", "could not run"]


class GpuMachine(Evidence):
    """The machine that ran a proof; a rehearsal on a CPU leaves out what is the GPU's."""

    system: str
    cores: int
    """The cores that the proof may use."""
    gpu: str | None = None
    compute_capability: str | None = None
    multiprocessors: int | None = None
    memory_gib: float | None = None
    cuda: str | None = None
    """The CUDA version that torch was built with."""
    driver: str | None = None
    """Version of NVIDIA's driver; None where nvidia-smi did not answer."""


class KeptFacts(Evidence):
    """Facts that `judge` needs beside the kept logits of a network with trained weights."""

    labels: tuple[str, ...]
    accuracy: AccuracyGate
    """Limits of the accuracy gate."""


class Agreement(Evidence):
    """Logits of a network without trained weights, against FP32 on a CPU."""

    cosine: float
    """Mean cosine similarity of the centred logits."""
    same_class: float
    """Share of images with the same best class."""
    images: int


class GpuProofResult(Evidence):
    """One proof: its verdict, the reasons against it, and everything that it measured."""

    proof: Literal["codec", "precision", "dali", "server", "heads"]
    verdict: ProofVerdict
    reasons: tuple[str, ...]
    """Everything that stands in the way of a pass."""
    device: Literal["cuda", "cpu"]
    """`cpu` is a rehearsal, and is not published."""
    part: str
    """The last part that began; `done` where all were run."""
    seconds: float
    created: str
    """The time in UTC."""
    commit: str | None
    """The commit that prepared the proof, with `changed since` where other code ran."""
    seed: int
    versions: dict[str, str]
    machine: GpuMachine
    measured: dict[str, JsonValue]
    gates: dict[str, AccuracyResult] | None = None
    """Results of the accuracy gate against FP32 on a CPU, by graph, for the networks with trained weights."""
    agreement: dict[str, Agreement] | None = None
    """Agreement with FP32 on a CPU, by graph, for the networks with random weights."""
