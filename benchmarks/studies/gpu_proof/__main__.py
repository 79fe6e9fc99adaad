#!/usr/bin/env python3
"""Run the proofs that need a GPU, prepared on a machine without one: see docs/gpu-proof.md.

`prepare` and `judge` need the full .venv. `run` needs Python 3.12 with numpy and torch, and what `prepare` wrote.
"""

import argparse
import importlib.util
import math
import signal
import sys
from pathlib import Path

from benchmarks.studies.gpu_proof.folder import DEFAULT, ROOT, ProofError
from benchmarks.studies.gpu_proof.running import LIMITS_S, prove, run

EPILOG = """example:
  python -m benchmarks.studies.gpu_proof prepare                    here: inputs and wheels, and what to carry
  python -m benchmarks.studies.gpu_proof run                        there: every proof (make gpu-proof)
  python -m benchmarks.studies.gpu_proof run codec --device cpu     a rehearsal
  python -m benchmarks.studies.gpu_proof judge                      here: benchmarks/results/gpu_proof_<name>.json

exit status: 0 every proof passed; 1 one failed, or could not run"""


def main(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("slipway") is None:  # on a bare machine it is not installed
        sys.path.insert(0, str(ROOT / "src"))
    folder: Path = arguments.folder.resolve()
    if arguments.verb == "prepare":
        from benchmarks.studies.gpu_proof.prepare import prepare  # not at the top: a bare machine lacks its imports

        prepare(
            folder,
            run=arguments.run,
            proofs=arguments.proofs or list(LIMITS_S),
            small=arguments.small,
            seed=arguments.seed,
        )
        return 0
    if arguments.verb == "judge":
        from benchmarks.studies.gpu_proof.judging import judge

        return judge(arguments.results or folder / "results", folder=folder, out=arguments.out)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends every proof and server
    if arguments.verb == "prove":
        return prove(
            arguments.proof,
            folder=folder,
            result=arguments.result,
            device=arguments.device,
            installed=arguments.installed,
        )
    return run(
        arguments.proofs or list(LIMITS_S),
        folder=folder,
        out=(arguments.out or folder / "results").resolve(),
        device=arguments.device,
        installed=arguments.installed,
        scale=arguments.limit_scale,
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("prepare", "write inputs and wheels (here)"),
        ("run", "run proofs (on the GPU machine)"),
        ("judge", "judge the results and publish them (here)"),
        ("prove", "run one proof in this process; `run` calls it"),
    ):
        add = verbs.add_parser(verb, help=text).add_argument
        add("--folder", type=Path, default=DEFAULT, help="default: .gpu-proof in the clone")
        if verb in {"run", "prepare"}:
            add("proofs", nargs="*", metavar="NAME", help=f"proofs to run, of {', '.join(LIMITS_S)}; default: all")
        if verb in {"run", "prove"}:
            add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal")
            add("--installed", action="store_true", help="use this Python's own packages, not carried wheels")
        if verb == "run":
            add("--out", type=Path, help="folder for the results; default: results in the folder")
            add("--limit-scale", type=float, default=1.0, help="factor for the time limit of each proof")
        if verb == "prepare":
            add("--run", type=Path, default=Path("runs/digits"), help="bundle and graphs; make demo writes runs/digits")
            add("--small", action="store_true", help="few images and no wheels: a rehearsal of minutes")
            add("--seed", type=int, default=0, help="seed of the images and the damage; default: %(default)s")
        if verb == "judge":
            add("--results", type=Path, help="default: results in the folder")
            add("--out", type=Path, default=ROOT / "benchmarks/results", help="folder for what is published")
        if verb == "prove":
            add("proof", choices=tuple(LIMITS_S))
            add("--result", type=Path, required=True)
    return parser


if __name__ == "__main__":
    command = parser()
    given = command.parse_args()
    if unknown := [name for name in getattr(given, "proofs", ()) if name not in LIMITS_S]:
        command.error(f"no proof is named {', '.join(unknown)}; there are {', '.join(LIMITS_S)}")
    if not 0 < getattr(given, "limit_scale", 1) < math.inf:
        command.error(f"--limit-scale {given.limit_scale}: give a number above 0, such as 2 on a slow machine")
    try:
        sys.exit(main(given))
    except ProofError as error:
        sys.exit(f"gpu_proof: {error}")
