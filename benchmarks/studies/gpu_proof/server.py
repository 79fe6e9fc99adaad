"""Proof `server`: the real tritonserver on a GPU: isolated decode, a torch engine in TensorRT's place, and post.

It compares answers with the CPU's, sends damaged images alone, in a request and in dynamic batches, tries a CUDA pool
that is too small, and measures P99 by rate with post on the CPU and on the GPU. The tritonserver is the wheel's 2.51,
so its own speed is not that of NVIDIA's image.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.studies.gpu_proof.folder import CorpusFile, Expected, ProofError, read_files, read_json
from benchmarks.studies.gpu_proof.http_load import HttpAnswer, arrive, ask_all, summary
from benchmarks.studies.gpu_proof.lane import Lane, attempt, by_any_way, photographs
from benchmarks.studies.gpu_proof.report import Report
from benchmarks.studies.gpu_proof.triton import Served

SMALL_POOL = 1 << 20
"""Bytes of CUDA memory that hold 21 images of 64 pixels."""
SCORE = 0.05
RATES = (100, 200, 400, 800, 1200, 1600, 2400, 3200)
RATE_S, LIMIT_MS = 5.0, 50.0


def prove(inputs: Path, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="gpu-proof-", ignore_cleanup_errors=True) as work:
        proof = Proof(inputs, report, Path(work))
        force = by_any_way(report, proof.first)
        if force is None:
            return
        if report.device == "cuda":
            post = "KIND_CPU" if proof.post == "KIND_GPU" else "KIND_GPU"
            with attempt(report, f"post as {post}"), proof.server(force_cpu=force, post=post) as served:
                proof.rates(served.port, f"post as {post}")
        with attempt(report, "a CUDA pool that is too small"):
            proof.exhaust(force)


class Proof:
    """The inputs, and the servers that are started on copies of the repository in `work`."""

    def __init__(self, inputs: Path, report: Report, work: Path) -> None:
        self._inputs, self._report = inputs, report
        lane = Lane(inputs, report, work, proof="server")
        repository = lane.repository("server/repository")
        self.model = next(iter(read_json(repository / "lane.json")["classifiers"]))
        self.photographs = photographs(inputs)
        self.server: Callable[..., AbstractContextManager[Served]] = partial(lane.serve, repository)
        (config,) = repository.glob("post_*/config.pbtxt")
        self.post = "KIND_GPU" if "KIND_GPU" in config.read_text(encoding="utf-8") else "KIND_CPU"

    def first(self, force_cpu: str) -> None:
        """Measure answers, damaged images and rates of the lane as assembled. Raises ProofError: it does not answer."""
        with self.server(force_cpu=force_cpu) as served:
            self.correct(served)
            self.rates(served.port, f"post as {self.post}, as assembled")

    def correct(self, served: Served) -> None:
        """Check the answers. Raises ProofError: no question is answered at all."""
        port = served.port
        questions, expected = read_files(self._inputs / "server/questions.npz", Expected)
        answers = [answer for (answer,) in ask_all(port, self.model, [[q] for q in questions], concurrency=8)]
        if all(answer.error for answer in answers):
            raise ProofError(f"no image is answered: {answers[0].error}")
        other = [
            f"{fact.label} {fact.score:.3f} on the CPU, {answer}"
            for answer, fact in zip(answers, expected, strict=True)
            if answer.error or answer.label != fact.label or abs(answer.score - fact.score) > SCORE
        ]
        where = sorted(set(re.findall(r"gpu_proof: pixels arrive on the (\w+)", served.said())))
        found = {
            "asked": len(answers),
            "other than the CPU's": len(other),
            "examples": other[:5],
            "pixels arrive on": where,
        }
        self._report.measure("answers", found)
        self._report.require(
            len(other) <= len(answers) / 100, f"{len(other)} of {len(answers)} answers differ: {other[:3]}"
        )
        self._report.part("damaged images")
        self._isolate(port, list(zip(questions, answers, strict=True)))

    def _isolate(self, port: int, good: Sequence[tuple[bytes, HttpAnswer]]) -> None:
        files, facts = read_files(self._inputs / "corpus.npz", CorpusFile)
        statuses = np.load(self._inputs / "server/statuses.npy").tolist()
        bad = [(f, s) for f, fact, s in zip(files, facts, statuses, strict=True) if fact.damage is not None]
        alone = ask_all(port, self.model, [[file] for file, _ in bad], concurrency=1)
        groups = [bad[start : start + 4] for start in range(0, len(bad), 4)]
        mixed = [
            [image for i, (file, _) in enumerate(group) for image in (file, good[i % len(good)][0])] for group in groups
        ]
        together = ask_all(port, self.model, mixed, concurrency=2)
        singles = [image for group in mixed for image in group]
        merged = [answer for (answer,) in ask_all(port, self.model, [[image] for image in singles], concurrency=48)]
        ways = {"in a request": [a for answers in together for a in answers], "in dynamic batches": merged}
        found: dict[str, object] = {"alone": dict(Counter(said(answer) for (answer,) in alone))}
        found["alone, status other than the CPU's"] = sum(
            a.status != s for (a,), (_, s) in zip(alone, bad, strict=True)
        )
        for way, answers in ways.items():
            own = [answers[index] for index in range(0, len(answers), 2)]
            beside = [answers[index] for index in range(1, len(answers), 2)]
            expected = [good[i % len(good)][1] for group in groups for i in range(len(group))]
            harmed = sum(not same(a, b) for a, b in zip(beside, expected, strict=True))
            changed = sum(a.status != b.status for a, (b,) in zip(own, alone, strict=True))
            found[way] = {
                "neighbours": len(beside),
                "harmed": harmed,
                "damaged with another status than alone": changed,
            }
            self._report.require(harmed == 0, f"{way}: {harmed} of {len(beside)} good neighbours were harmed")
            self._report.require(changed == 0, f"{way}: {changed} damaged images had another STATUS than alone")
        self._report.measure("damaged images", found)
        errors = sum(bool(answer.error) for (answer,) in alone)
        self._report.require(errors == 0, f"{errors} damaged images alone got an error in place of a STATUS")

    def rates(self, port: int, name: str) -> None:
        """Measure P99 by rate up to saturation: over the limit, or less than 99 % of the offered rate."""
        self._report.part(f"rates, {name}")
        found = []
        rates, seconds = (RATES, RATE_S) if self._report.device == "cuda" else ((5,), 2.0)
        for rate in rates:
            load = arrive(port, self.model, self.photographs, rate_per_s=rate, seconds=seconds, seed=rate)
            run = summary([load])
            found.append(run)
            print(f"   {rate}/s: P99 {run['p99_ms']} ms, {run['achieved_per_s']}/s", flush=True)
            self._report.measure(f"rates, {name}", found)
            if run["p99_ms"] > LIMIT_MS or run["failed"] or run["achieved_per_s"] < 0.99 * run["offered_per_s"]:
                break

    def exhaust(self, force_cpu: str) -> None:
        """Send more pixels at once than the pool holds, and check that every image is still answered rightly."""
        self._report.part("a CUDA pool that is too small")
        questions, _ = read_files(self._inputs / "server/questions.npz", Expected)
        with self.server(force_cpu=force_cpu, pool=SMALL_POOL) as served:
            port = served.port
            before = [answer for (answer,) in ask_all(port, self.model, [[q] for q in questions], concurrency=1)]
            seen = len(served.said())
            at_once = [(questions * 32)[:32]] * 24
            answers = [answer for answers in ask_all(port, self.model, at_once, concurrency=12) for answer in answers]
            expected = (before * 32)[:32] * 24
            said_by_server = served.said()[seen:].splitlines()
            found: Mapping[str, object] = {
                "pool_bytes": SMALL_POOL,
                "images at once": 12 * 32,
                "answers": dict(Counter(said(answer) for answer in answers)),
                "other than alone": sum(not same(a, b) for a, b in zip(answers, expected, strict=True)),
                "warnings": [
                    line[:200] for line in said_by_server if re.search("pool|pinned|alloc", line, re.IGNORECASE)
                ][:5],
            }
        self._report.measure("a CUDA pool that is too small", found)
        self._report.require(
            not found["other than alone"],
            f"a small pool: {found['other than alone']} answers differ: {found['answers']}",
        )


def same(one: HttpAnswer, other: HttpAnswer) -> bool:
    return (one.error, one.label, one.status) == (other.error, other.label, other.status) and abs(
        one.score - other.score
    ) <= SCORE


def said(answer: HttpAnswer) -> str:
    return answer.error or f"STATUS {answer.status}"
