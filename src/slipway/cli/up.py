"""Turn a spec into a model repository: run every stage that is not current, and print how to serve the result."""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import Bundle, Choice, Manifest, SlipwayError, Spec, SpecError
from slipway.contract.engine import Target
from slipway.contract.evidence.build import BundleMeasured, CheckpointMeasured, EngineMeasured
from slipway.contract.evidence.evaluation import read_engine_evaluation
from slipway.contract.evidence.gate import AccuracyResult
from slipway.contract.labels import read_label_list
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.shared_rules import SERVED, listed
from slipway.contract.spec import AFTER_TRAINING
from slipway.system.files import sha256_file
from slipway.system.json_line import print_json, verb_parser
from slipway.system.process import child
from slipway.system.targets import check_folder
from slipway.system.text import command

EPILOG = """examples:
  slipway init photographs                     writes photographs.yaml, a spec with every choice explained
  slipway up photographs.yaml                  images to a repository
  slipway up pets.yaml --onnx pets.onnx --labels labels.txt      a network that you have already

The stages are train --check, inspect, train, export (or import), engines, choose, report and assemble: each is a verb
of its own, and its command is printed before it runs. A stage is current if the manifest that it wrote has the hashes
of its present inputs. So after a change, an error or Ctrl-C the same command continues where it has to; an interrupted
training resumes.

exit status: 0 if the repository is current, otherwise that of the stage that failed"""


@dataclass(frozen=True)
class Run:
    """The folders and options of one classifier's stages."""

    spec: Spec
    spec_path: Path
    folder: Path
    repository: Path
    targets: tuple[Target, ...]
    network: tuple[str, ...]
    """The options of `slipway import`; empty where a network is trained."""

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def engines(self) -> Path:
        return self.folder / "engines"


def main(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    run = open_run(arguments)
    check(run)
    for title, why, words in stages(run):
        if why is None:
            print(f"✓ {title}: current", flush=True)
            continue
        code = step(f"{title} ({why})" if why else title, words)
        if code:
            return code
    print_summary(run, seconds=time.monotonic() - started)
    print_json(arguments, {"run": str(run.folder), "repository": str(run.repository)})
    return 0


def check(run: Run) -> None:
    """Raise by the spec and the folders alone what a later stage would raise; `slipway train --check` does the rest.

    Raises:
        SpecError, StorageError: nothing that the spec lists can be served, or a stage may not write where it would.
        CompileError, MissingDependencyError: a compiler is missing.
    """
    from slipway.engines.current import installed
    from slipway.pages import check_page  # not at the top: --help needs no library

    if not listed(run.spec, lane="cpu"):
        raise SpecError(
            f"precisions: {', '.join(run.spec.precisions)} given, but the cpu lane, which slipway up assembles, serves "
            f"{', '.join(SERVED['cpu'])}; list one of these too"
        )
    for target in run.targets:
        installed(target)
    check_folder(run.bundle, kind="bundle")
    check_folder(run.repository, kind="repository")
    check_page(run.folder / "evaluation.html", kind="evaluation")
    check_page(run.folder / "report.html", kind="build report")


def open_run(arguments: argparse.Namespace) -> Run:
    given = {name: getattr(arguments, name) for name in ("onnx", "weights", "labels") if getattr(arguments, name)}
    if given:
        from slipway.training import complete_spec  # not at the top: --help needs no library

        if "labels" not in given or len(given) == 1:
            raise SpecError("an import needs --labels and one of --onnx and --weights; leave all three out to train")
        spec, _ = complete_spec(arguments.spec, onnx=arguments.onnx, labels_given=True, preprocess_from=None)
    else:
        spec = Spec.read(arguments.spec)
    network = tuple(word for name, path in given.items() for word in (f"--{name}", str(path)))
    folder = arguments.run or Path("runs") / spec.name
    repository = arguments.repository or Path("model_repository/cpu")
    return Run(spec, arguments.spec, folder, repository, tuple(arguments.target), network)


def stages(run: Run) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    """Yield each stage: title, reason to run ("" if the verb decides, None if it is current), and the verb's arguments.

    A stage is checked only after those before it have run.
    """
    spec, folder, bundle, engines = (str(path) for path in (run.spec_path, run.folder, run.bundle, run.engines))
    if run.network:
        yield "import", why_import(run), ("import", spec, *run.network, "--out", bundle)
    else:
        why, train = why_train(run), ("train", spec, "--out", str(run.checkpoint), "--resume")
        yield "check", why, (*train, "--check")
        yield "data", why, ("inspect", spec, "--out", f"{folder}/inspection")
        yield "training", why, train
        yield "export", why_export(run), ("export", str(run.checkpoint), "--spec", spec, "--out", bundle)
    yield "page of the evaluation", is_missing(run.folder / "evaluation.html", after=run.bundle), ("evaluate", bundle)
    yield "graphs, engines and accuracy gates", "", ("engines", folder, "--target", *run.targets)
    yield "fastest precision that passed", why_choose(run), ("choose", bundle, "--engines", engines)
    yield "report", is_missing(run.folder / "report.html", after=run.engines), ("report", bundle, "--engines", engines)
    yield "repository", "", ("assemble", bundle, "--engines", engines, "--out", str(run.repository))


def why_train(run: Run) -> str | None:
    """Return the reason why the checkpoint is stale for this spec and these images; None if it is current."""
    try:
        manifest = Manifest.open(run.checkpoint, kind="checkpoint")
    except SlipwayError as error:
        return str(error) if run.checkpoint.is_dir() else "no checkpoint yet"
    if manifest.inputs.get("training") != run.spec.training_sha256:
        return f"{run.spec_path} changed since it was trained"
    from slipway.contract.dataset import FILE_NAME, Dataset
    from slipway.training.data.dataset import scan  # not at the top: --help needs no library

    if scan(run.spec.data, task=run.spec.task) != Dataset.read(run.checkpoint / FILE_NAME):
        return "the images changed since it was trained"
    return None


def why_export(run: Run) -> str | None:
    why = _why_bundle(run, {"checkpoint": sha256_file(run.checkpoint / MANIFEST)})
    if why is not None:
        return why
    exported = Spec.read(run.bundle / "spec.json")
    changed = [name for name in AFTER_TRAINING if getattr(exported, name) != getattr(run.spec, name)]
    return f"{', '.join(changed)} changed in {run.spec_path} since it was exported" if changed else None


def why_import(run: Run) -> str | None:
    files = dict(zip(run.network[::2], map(Path, run.network[1::2]), strict=True))
    labels = read_label_list(files.pop("--labels"))
    why = _why_bundle(run, {name.removeprefix("--"): sha256_file(path) for name, path in files.items()})
    if why is None and Spec.read(run.bundle / "spec.json") != run.spec:
        return f"{run.spec_path} changed since it was imported"
    if why is None and Bundle.open(run.bundle).labels != labels:
        return "the labels changed since it was imported"
    return why


def _why_bundle(run: Run, inputs: dict[str, str]) -> str | None:
    try:
        recorded = Manifest.open(run.bundle, kind="bundle").inputs.values()
    except SlipwayError as error:
        return str(error) if run.bundle.is_dir() else "no bundle yet"
    changed = [name for name, digest in inputs.items() if digest not in recorded]
    return f"made from another {' and '.join(changed)}" if changed else None


def why_choose(run: Run) -> str | None:
    from slipway.repository import pick_engines  # not at the top: --help needs no library

    try:
        pick_engines(Bundle.open(run.bundle), run.engines, lane="cpu")
    except SlipwayError as error:
        return "none yet" if not (run.engines / "choice.json").is_file() else str(error)
    return None


def is_missing(page: Path, *, after: Path) -> str | None:
    """Return the reason to write the page, which is missing or older than its inputs; None if it is current."""
    newest = max((path.stat().st_mtime for path in after.rglob("*.json")), default=0.0)
    if not page.is_file():
        return "not there yet"
    return None if page.stat().st_mtime >= newest else "older than its inputs"


def step(title: str, words: tuple[str, ...]) -> int:
    """Run one verb with its output on this screen, and return its exit code."""
    print(f"\n── {title}: {command('slipway', *words)}", flush=True)
    started = time.monotonic()
    with child([sys.executable, "-m", "slipway", *words]) as process:
        code = process.wait()
    ended = f"stopped with exit code {code}; fix what it reports, and run the same command again" if code else "done"
    print(f"  {ended} ({time.monotonic() - started:.0f} s)", flush=True)
    return code


def print_summary(run: Run, *, seconds: float) -> None:
    bundle = Manifest.read(run.bundle / MANIFEST).read_measured(BundleMeasured)
    engines = sorted(run.engines.glob("openvino-*"))
    proofs = sorted(run.engines.glob("tensorrt_rtx-*"))
    plans = {path.name: Manifest.read(path / MANIFEST).read_measured(EngineMeasured) for path in proofs}
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\n── {run.spec.name}, {seconds:.0f} s, at most {peak_mib:,.0f} MiB in one process")
    if not run.network:
        checkpoint = Manifest.read(run.checkpoint / MANIFEST).read_measured(CheckpointMeasured)
        images = ", ".join(f"{count:,} {split}" for split, count in checkpoint.images.items())
        print(f"  data        {images} images")
        low, high = bundle.ece_interval
        ece = f"ECE {bundle.ece:.4f} ({low:.4f} to {high:.4f})"
        print(f"  training    {checkpoint.epochs} epochs in {checkpoint.train_s:.0f} s; {ece}")
    for folder in engines:
        found = read_engine_evaluation(folder, task=run.spec.task)
        line = f"{found.primary_metrics}, macro-F1 {found.macro_f1:.4f} ({_verdict(found.gate)})"
        print(f"  {folder.name.removeprefix('openvino-').upper():<11} {line}")
    print(f"  served      {Choice.read(run.engines / 'choice.json').reason}")
    if plans:
        sizes = (f"{name.split('-')[1].upper()} {(p.plan_bytes or 0) / 1e6:.1f} MB" for name, p in plans.items())
        print(f"  TensorRT    compiles without a GPU (RTX, never served): {', '.join(sizes)}")
    print(f"  pages       {run.folder}/evaluation.html, {run.folder}/report.html")
    print(f"  repository  {run.repository}")
    name = run.spec.name
    print(f"\n  serve it:   {command('slipway serve', run.repository)}")
    print(f"  then ask:   {command('slipway classify')} FOLDER {command('--model', name, '--out', f'{name}.csv')}")
    print(f"  and gate:   {command('slipway gate', name)} --images FOLDER")


def _verdict(gate: AccuracyResult | None) -> str:
    if gate is None:
        return "the reference"
    overall = gate.overall
    return f"gate: {gate.verdict}, {overall.lost} lost and {overall.gained} gained of {overall.images}"


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("spec", type=Path, help="YAML file; slipway init writes one")
    parser.add_argument("--run", type=Path, help="folder of the stages' results; default: runs/NAME")
    parser.add_argument("--repository", type=Path, help="repository to write; default: model_repository/cpu")
    targets = ("openvino", "tensorrt_rtx")
    parser.add_argument(
        "--target", choices=targets, nargs="+", default=["openvino"], help="engines to build; default: openvino"
    )
    parser.add_argument("--onnx", type=Path, help="import this ONNX file instead of training")
    parser.add_argument("--weights", type=Path, help="import these timm weights (safetensors) instead of training")
    parser.add_argument("--labels", type=Path, help="with --onnx or --weights: text file, one label per line")
    return parser
