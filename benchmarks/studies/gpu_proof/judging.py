"""Reads what came back from the GPU machine, applies the accuracy gate, and publishes results and their table."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.gpu_proof.folder import ROOT, ProofError, read_arrays, read_json
from benchmarks.studies.gpu_proof.precision import LOGITS
from slipway.contract.evidence.gate import FAIL
from slipway.contract.evidence.gate import AccuracyResult as Gated
from slipway.contract.evidence.gpu_proof import Agreement, GpuProofResult, KeptFacts
from slipway.errors import SpecError
from slipway.evaluation.gate import compare
from slipway.system.targets import write_file

PAGE = ROOT / "docs/gpu-proof.md"
START, END = "<!-- results: written by judge -->", "<!-- end of results -->"
PUBLISHED = ROOT / "benchmarks/results"


def judge(results: Path, *, folder: Path, out: Path) -> int:
    """Write `<out>/gpu_proof_<name>.json` for each result; 0 if all pass.

    Raises:
        ProofError: no result, one that is not whole, or a rehearsal that is to be published.
    """
    paths = sorted(results.glob("gpu_proof_*.json"))
    if not paths:
        raise ProofError(
            f"{results}: no gpu_proof_*.json; bring the results of `run` there, or name their folder with --results"
        )
    judged = []
    for path in paths:
        result = _read(path)
        if result.device != "cuda" and out.resolve() == PUBLISHED:
            raise ProofError(
                f"{path}: a rehearsal on the {result.device} is not published; give another folder with --out"
            )
        if result.proof == "precision" and result.verdict != "could not run":
            result = _gated(result, results / LOGITS, folder / "kept")
        judged.append(result)
    out.mkdir(parents=True, exist_ok=True)
    for result in judged:
        write_file(out / f"gpu_proof_{result.proof}.json", result.to_json())
    lines = table(judged)
    print("\n".join(lines))
    if out.resolve() == PUBLISHED:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text("\n".join([f"{before}{START}", "", *lines, "", f"{END}{after}"]), encoding="utf-8")
    return int(any(result.verdict != "pass" for result in judged))


def _read(path: Path) -> GpuProofResult:
    """Read a result. Raises ProofError: not a result, or one that another commit's run wrote."""
    try:
        return GpuProofResult.parse(read_json(path), source=str(path))
    except SpecError as error:
        raise ProofError(f"{error}\nrun the proof again with this commit") from None


def _gated(result: GpuProofResult, logits: Path, kept: Path) -> GpuProofResult:
    """Add to a result the gate of trained networks, the agreement of random ones, and the reasons against a pass."""
    answered = read_arrays(logits)
    gates: dict[str, Gated] = {}
    agreement: dict[str, Agreement] = {}
    reasons = list(result.reasons)
    for path in sorted(kept.glob("*.npz")):
        arrays = read_arrays(path)
        for graph in ("fp16", "int8"):
            typed_nc, name = answered.get(f"{path.stem}/{graph}/typed"), f"{path.stem}, {graph}"
            if typed_nc is None or len(typed_nc) != len(arrays["fp32"]):
                raise ProofError(
                    f"{logits}: has not the logits of {name} for the images in {path}; bring the results of the inputs "
                    "that were prepared last"
                )
            if "truth_n" not in arrays:
                agreement[name] = _agreement(typed_nc, arrays["fp32"])
                continue
            facts = KeptFacts.parse(json.loads(str(arrays["facts"])), source=str(path))
            reference_n, candidate_n = arrays["fp32"].argmax(axis=1), typed_nc.argmax(axis=1)
            gates[name] = compare(arrays["truth_n"], reference_n, candidate_n, facts.labels, facts.accuracy)
            if gates[name].verdict == FAIL:
                reasons.append(f"{name}: {gates[name]}")
    verdict = "fail" if reasons else result.verdict
    found = {"gates": gates, "agreement": agreement, "reasons": tuple(reasons), "verdict": verdict}
    return result.model_copy(update=found)


def _agreement(typed_nc: Any, reference_nc: Any) -> Agreement:
    centre_c = reference_nc.mean(axis=0)
    one, other = typed_nc - centre_c, reference_nc - centre_c
    cosine_n = (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    same = (typed_nc.argmax(axis=1) == reference_nc.argmax(axis=1)).mean()
    return Agreement(cosine=float(cosine_n.mean()), same_class=float(same), images=len(typed_nc))


def table(results: list[GpuProofResult]) -> list[str]:
    """Render the table in Markdown: one row a proof, and one for each of its measurements."""
    first = results[0]
    lines = [
        f"{first.machine.gpu or 'CPU (rehearsal)'}, driver {first.machine.driver}, CUDA {first.machine.cuda}; "
        f"commit {(first.commit or 'unknown')[:12]}, {first.created[:10]}.",
        "",
        "| proof | verdict | found |",
        "| --- | --- | --- |",
    ]
    for result in results:
        lines.append(
            f"| {result.proof} | {result.verdict} | {'; '.join(map(_cell, result.reasons)) or 'nothing against it'} |"
        )
        lines += [f"| | | {_cell(f'{name}: {_short(value)}')} |" for name, value in result.measured.items()]
        lines += [f"| | | gate, {name}: {_cell(str(gate))} |" for name, gate in (result.gates or {}).items()]
        lines += [
            f"| | | {name}, random weights: cosine {found.cosine:.5f}, same class {found.same_class:.1%} |"
            for name, found in (result.agreement or {}).items()
        ]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "; ".join(map(_short, value))
    return str(value)
