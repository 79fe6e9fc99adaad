"""Writes everything that a bare GPU machine needs, and says what to carry and what to run there."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.studies.gpu_proof import inputs as make
from benchmarks.studies.gpu_proof.folder import ROOT, Carried, Prepared, code_sha256
from benchmarks.studies.gpu_proof.wheels import NEEDED, ORDER, completes, cut, download, locked, pack

MIB = 1 << 20
CARRIED = 64 * MIB
"""The most that one transfer takes, the clone's own files included."""
RESERVE = 2 * MIB
PIECE = 60_000_000


def prepare(folder: Path, *, run: Path, proofs: Sequence[str], small: bool, seed: int) -> None:
    """Write `inputs/`, `kept/` and, unless it is a small rehearsal, `pieces/` for `proofs`.

    Raises:
        ProofError: something that the proofs need is missing; the text says how to make it.
    """
    from slipway.contract.evidence.origin import commit

    made: dict[str, object] = {}
    for old in ("inputs", "kept", "pieces"):
        shutil.rmtree(folder / old, ignore_errors=True)
    inputs, kept = folder / "inputs", folder / "kept"
    kept.mkdir(parents=True)
    print(f"inputs for {', '.join(proofs)}", flush=True)
    if set(proofs) - {"precision"}:
        made["corpus"] = make.write_corpus(inputs / "corpus.npz", seed=seed, small=small)
        make.write_preprocess(inputs / "preprocess.json")
        made["photographs"] = make.write_photographs(inputs / "photographs.npz", small=small)
    if {"precision", "server", "heads"} & set(proofs):
        made["precision"] = make.write_precision(inputs / "precision", kept, run, small=small)
    if "server" in proofs:
        from benchmarks.studies.gpu_proof.server_inputs import write_server

        made["server"] = write_server(inputs, run, small=small)
    if "heads" in proofs:
        from benchmarks.studies.gpu_proof.heads_inputs import write_heads

        made["heads"] = write_heads(inputs, run, small=small, seed=seed)
    names = [name for name in ORDER if any(name in NEEDED[proof] for proof in proofs)]
    carried = Carried() if small else _wheels(folder, names, _size(inputs))
    prepared = Prepared(commit(), code_sha256(), seed, small, versions=locked(names), wheels=carried, inputs=made)
    prepared.write(folder)
    if not small:
        _say(folder, carried, proofs)


def _wheels(folder: Path, names: Sequence[str], inputs_bytes: int) -> Carried:
    print(f"wheels: {', '.join(names)}", flush=True)
    if not names:
        return Carried()
    downloaded = download(names, folder / "wheels")
    packed = {name: pack(wheel, folder / "wheels") for name, wheel in zip(names, downloaded, strict=True)}
    room = CARRIED - RESERVE - _clone_bytes()
    return cut(packed, folder / "pieces", first=min(PIECE, room - inputs_bytes), each=min(PIECE, room))


def _clone_bytes() -> int:
    """Return the size of the files that travel with every piece: tracked ones, and new ones that git does not
    ignore."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    return sum(path.stat().st_size for name in names if name and (path := ROOT / name).is_file())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _say(folder: Path, carried: Carried, proofs: Sequence[str]) -> None:
    place = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    ready, verb = completes(carried), "python3 -m benchmarks.studies.gpu_proof run"
    print(
        f"\nclone {_clone_bytes() / 1e6:.1f} MB, inputs {_size(folder / 'inputs') / 1e6:.1f} MB, "
        f"{len(carried.wheels)} wheels, {sum(carried.pieces) / 1e6:.1f} MB"
    )
    print("Carry these in turn, each with the clone, and run there what stands beside them:\n")
    for number in range(1, max(len(carried.pieces), 1) + 1):
        paths = [*([f"{place}/inputs"] if number == 1 else []), f"{place}/pieces/{number}"]
        size = carried.pieces[number - 1] if carried.pieces else 0
        now = [proof for proof in ready.get(number, proofs if not carried.pieces else []) if proof in proofs]
        command = f'{verb} {" ".join(now)} --out "$OUT"' if now else "true   (only carried)"
        print(f"  {number}  {' '.join(paths)}   {size / 1e6:.1f} MB\n     {command}")
    print(
        "\nBring back what lies under $OUT, put it into "
        f"{place}/results, and run: python -m benchmarks.studies.gpu_proof judge"
    )
