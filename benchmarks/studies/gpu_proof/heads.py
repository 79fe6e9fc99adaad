"""Proof `heads`: a group of heads on one base in the real tritonserver, the base's engine in torch on the GPU.

The group holds one head that is damaged. Each other head must answer as numpy does to the embedding that the
server gave, and that embedding must be near the CPU's. A second server has one head alone, to compare P99 in turns and
to find the memory of a head.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.gpu_proof.folder import ProofError, read_arrays, read_json
from benchmarks.studies.gpu_proof.http_load import Load, Tensors, arrive, summary, tensors_of
from benchmarks.studies.gpu_proof.lane import Lane, by_any_way, photographs
from benchmarks.studies.gpu_proof.report import Report
from benchmarks.studies.gpu_proof.triton import Served

OUTPUTS = ("LABEL", "SCORE", "CLASS_ID", "STATUS", "EMBEDDING")
SCORE = 1e-5
"""Difference between scores that counts as rounding: the group computes in other batches than this proof."""
COSINE = 0.99
"""Least cosine between an embedding and the CPU's, as for the embeddings of a plan in tests/gpu."""
CONCURRENCY = 16
RATE_PER_S, RATE_S, ROUNDS = 200, 5.0, 4


def prove(inputs: Path, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="gpu-proof-", ignore_cleanup_errors=True) as work:
        by_any_way(report, Proof(inputs, report, Path(work)).whole)


class Proof:
    """The repositories of one head alone and of the group, and the CPU's embeddings of the photographs."""

    def __init__(self, inputs: Path, report: Report, work: Path) -> None:
        self._report = report
        self._lane = Lane(inputs, report, work, proof="heads")
        self._alone, self._among = (self._lane.repository(f"heads/{name}") for name in ("alone", "among"))
        *self._heads, self._broken = sorted(read_json(self._among / "lane.json")["classifiers"])
        self._photographs = photographs(inputs)
        self._expected_nd = read_arrays(inputs / "heads/embeddings.npz")["embedding_nd"]

    def whole(self, force_cpu: str) -> None:
        """Run the whole proof. Raises ProofError: a server does not start, or no head answers."""
        free_mib = [self._free_mib()]
        with ExitStack() as stack:
            alone = stack.enter_context(self._lane.serve(self._alone, force_cpu=force_cpu))
            self._ask(alone, self._heads[:1])
            free_mib.append(self._free_mib())
            serve = self._lane.serve(self._among, force_cpu=force_cpu, change=self._damage)
            among = stack.enter_context(serve)
            self._correct(self._ask(among, self._heads))
            free_mib.append(self._free_mib())
            self._left_out(among)
            self._memory(alone, among, free_mib)
            self._latency(alone, among)

    def _ask(self, served: Served, heads: Sequence[str]) -> dict[str, Tensors | str]:
        """Ask each head for all photographs. Raises ProofError: no head answers."""
        models = [f"{head}_full" for head in heads]
        found = tensors_of(served.port, models, self._photographs, OUTPUTS, concurrency=CONCURRENCY)
        if all(isinstance(answer, str) for answer in found):
            raise ProofError(f"no head answers: {found[0]}")
        return dict(zip(heads, found, strict=True))

    def _correct(self, answers: Mapping[str, Tensors | str]) -> None:
        (group,) = self._among.glob("heads_*/1/heads")
        other = {head: why for head, answer in answers.items() if (why := difference(answer, group / head))}
        embedded = [answer["EMBEDDING"] for answer in answers.values() if not isinstance(answer, str)]
        lowest = min(float(_cosine(embedding_nd, self._expected_nd).min()) for embedding_nd in embedded)
        found = {
            "heads": len(answers),
            "images": len(self._photographs),
            "heads that answer other than offline": len(other),
            "examples": [f"{head}: {why}" for head, why in other.items()][:5],
            "lowest cosine to the CPU's embedding": round(lowest, 6),
        }
        self._report.measure("answers", found)
        self._report.require(
            not other, f"{len(other)} of {len(answers)} heads answer other than offline: {found['examples']}"
        )
        self._report.require(lowest >= COSINE, f"an embedding has a cosine of only {lowest:.4f} to the CPU's")

    def _damage(self, repository: Path) -> None:
        (weights,) = repository.glob(f"heads_*/1/heads/{self._broken}/head.npz")
        data = weights.read_bytes()
        weights.write_bytes(data[: len(data) // 2])

    def _left_out(self, among: Served) -> None:
        (said,) = tensors_of(among.port, [self._broken], self._photographs[:1], ("LABEL",), concurrency=1)
        self._report.measure("a damaged head", said if isinstance(said, str) else "answers")
        named = f"head {self._broken} is left out: "
        self._report.require(
            isinstance(said, str) and named in said and named in among.said(),
            f"a damaged head is not left out by its name: {said}",
        )

    def _memory(self, alone: Served, among: Served, free_mib: Sequence[float]) -> None:
        self._report.part("memory")
        further = len(self._heads) - 1
        one_mib, group_mib = alone.memory_mib(), among.memory_mib()
        found = {"one head": round(one_mib), "the group": round(group_mib)}
        each = {"each further head": round((group_mib - one_mib) / further, 3)}
        self._report.measure("memory of the server, MiB (PSS)", {**found, **each})
        if self._report.device == "cuda":
            one_mib, group_mib = free_mib[0] - free_mib[1], free_mib[1] - free_mib[2]
            found = {"one head": round(one_mib), "the group": round(group_mib)}
            self._report.measure("memory of the GPU, MiB", found)

    def _free_mib(self) -> float:
        """Return the free memory of the GPU; 0 in a rehearsal."""
        if self._report.device != "cuda":
            return 0.0
        import torch

        return float(torch.cuda.mem_get_info()[0]) / 2**20

    def _latency(self, alone: Served, among: Served) -> None:
        """Measure P99 of the first head in both servers, in turns, with the same arrivals in a round."""
        self._report.part("P99 of a head alone and among the group")
        rate, seconds, rounds = (RATE_PER_S, RATE_S, ROUNDS) if self._report.device == "cuda" else (5, 2.0, 1)
        sides = {"alone": alone.port, "among": among.port}
        loads: dict[str, list[Load]] = {side: [] for side in sides}
        for number in range(rounds):
            for side in sorted(sides, reverse=bool(number % 2)):
                load = arrive(
                    sides[side], self._heads[0], self._photographs, rate_per_s=rate, seconds=seconds, seed=number
                )
                loads[side].append(load)
        found = {side: summary(its) for side, its in loads.items()}
        by_round = [
            round(summary([a])["p99_ms"] / summary([b])["p99_ms"], 3)
            for a, b in zip(loads["among"], loads["alone"], strict=True)
        ]
        ratio = round(found["among"]["p99_ms"] / found["alone"]["p99_ms"], 3)
        self._report.measure("P99 of a head", {**found, "among to alone": ratio, "among to alone, by round": by_round})
        for side in sides:
            self._report.require(not found[side]["failed"], f"{side}: requests failed: {found[side]['failed']}")


def difference(answer: Tensors | str, folder: Path) -> str:
    """Return the reason why an answer with `OUTPUTS` is not that of the head in `folder` on the same embedding, or "".

    Args:
        answer: the tensors, or the reason why the answer has none, which is returned.
        folder: `head.npz`, `decision.json` and `labels.txt`.
    """
    from slipway.steps.head import Head
    from slipway.steps.postprocess import Postprocessor, public_tensors

    if isinstance(answer, str):
        return answer
    embedding_nd, status_n = answer["EMBEDDING"].astype(np.float32), answer["STATUS"][:, 0].astype(np.int32)
    if status_n.any():
        return f"STATUS {status_n.tolist()}"
    logits_nc = Head.read(folder / "head.npz").run(embedding_nd)
    offline = public_tensors(Postprocessor.read(folder).run(logits_nc, status_n, embedding_nd), bundle=b"")
    offline["LABEL"] = np.array([[label.decode() for label in row] for row in offline["LABEL"]])
    for name in ("LABEL", "CLASS_ID"):
        if (answer[name] != offline[name]).any():
            return f"{name} is {answer[name].tolist()}, offline {offline[name].tolist()}"[:400]
    apart = float(np.abs(answer["SCORE"] - offline["SCORE"]).max())
    return f"SCORE is {apart:.2g} apart" if apart > SCORE else ""


def _cosine(one_nd: Any, other_nd: Any) -> Any:
    return (one_nd * other_nd).sum(axis=1) / (np.linalg.norm(one_nd, axis=1) * np.linalg.norm(other_nd, axis=1))
