"""Bundles and engines to a model repository that Triton loads, whole or not at all."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from slipway.contract import Lane, Manifest, RepositoryError
from slipway.contract.files import complete_folder, sha256_bytes, sha256_file
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.manifest import hashes
from slipway.repository.classifier import Classifier
from slipway.repository.config import ModelConfig, to_pbtxt

VERSION = "1"  # content is in the names of the steps, so Triton's version folders never change


def assemble(classifiers: Sequence[Classifier], out: Path) -> Lane:
    """Write the cpu lane for `classifiers` to `out`; equal input gives equal bytes.

    Raises:
        RepositoryError: no classifier or two of one name, an engine that did not pass its gate, or labels that are
            not one a logit.
        SpecError: `out` is something else than a repository of ours.
    """
    _check(classifiers)
    with complete_folder(out, marker="lane.json") as staging:
        for classifier in classifiers:
            _add(classifier, staging)
        lane = Lane(
            lane="cpu",
            classifiers={c.name: c.bundle.id for c in classifiers},
            shm_default_bytes=max(c.shm_bytes() for c in classifiers),
        )
        lane.write(staging / "lane.json")
        # Versions, times and commits are in the manifests of bundle and engine, which are named here by hash.
        manifest = Manifest(
            kind="repository",
            name=lane.lane,
            inputs={
                f"{c.name}/{part.manifest.kind}": sha256_file(part.path / MANIFEST)
                for c in classifiers
                for part in (c.bundle, c.engine)
            },
            outputs=hashes(staging),
        )
        manifest.write(staging / MANIFEST)
    return lane


def _check(classifiers: Sequence[Classifier]) -> None:
    names = sorted(classifier.name for classifier in classifiers)
    if not names:
        raise RepositoryError("no classifier given; a repository serves at least one")
    if len(set(names)) != len(names):
        raise RepositoryError(f"classifiers {', '.join(names)}: each name may be there once; rename one in its spec")
    for classifier in classifiers:
        if classifier.bundle.preprocess.decoder != "cpu":
            raise RepositoryError(
                f"{classifier.bundle.path}: evaluated with decoder {classifier.bundle.preprocess.decoder}, and the cpu "
                "lane decodes with libjpeg-turbo; evaluate it with decoder: cpu first"
            )
        labels, classes = len(classifier.bundle.labels), classifier.engine.settings.classes
        if labels != classes:
            raise RepositoryError(
                f"{classifier.bundle.path}: {labels} labels for {classes} logits of {classifier.engine.path}"
            )
        if classifier.engine.verdict not in ("pass", "reference"):
            raise RepositoryError(
                f"{classifier.engine.path}: the accuracy gate says {classifier.engine.verdict!r}, and only an engine "
                "that passed is assembled; see its evaluation.json"
            )


def _add(classifier: Classifier, repository: Path) -> None:
    bundle = classifier.bundle.path
    names = {
        "preprocess": _write_step(
            repository,
            "preprocess",
            config=classifier.preprocess_config(),
            code=("guard.py", "preprocess_dali.py"),
            files={"preprocess.json": (bundle / "preprocess.json").read_bytes()},
        ),
        "engine": _write_step(
            repository,
            "engine",
            config=classifier.engine_config(),
            code=("engine_openvino.py",),
            files={"model.onnx": (classifier.engine.path / "model.onnx").read_bytes()},
        ),
        "post": _write_step(
            repository,
            "post",
            config=classifier.post_config(),
            code=("postprocess.py",),
            files={
                "decision.json": (classifier.engine.path / "decision.json").read_bytes(),
                "labels.txt": (bundle / "labels.txt").read_bytes(),
                "bundle.txt": f"{classifier.bundle.id}\n".encode(),
            },
        ),
    }
    for name, config in classifier.ensemble_configs(**names).items():
        # Triton wants a version folder and git keeps no empty one: it holds the bundle's id.
        _write(repository / name / VERSION / "bundle.txt", f"{classifier.bundle.id}\n".encode())
        _write(repository / name / "config.pbtxt", to_pbtxt(config).encode())
        if any(output.label_filename for output in config.output):
            shutil.copyfile(bundle / "labels.txt", repository / name / "labels.txt")


def _write_step(
    repository: Path, kind: str, *, config: ModelConfig, code: Iterable[str], files: Mapping[str, bytes]
) -> str:
    """Write one step model and return its name, `<kind>_<hash of all it holds>`. Equal steps are written once."""
    source = resources.files("slipway")
    content = {
        f"{VERSION}/model.py": (source / "repository" / "backends" / kind / "model.py").read_bytes(),
        **{f"{VERSION}/{name}": (source / "steps" / name).read_bytes() for name in code},
        **{f"{VERSION}/{name}": data for name, data in files.items()},
    }
    parts = {"config.pbtxt": to_pbtxt(config).encode(), **content}
    listing = "".join(f"{sha256_bytes(data)}  {path}\n" for path, data in sorted(parts.items()))
    name = f"{kind}_{sha256_bytes(listing.encode())[:12]}"
    config.name = name
    _write(repository / name / "config.pbtxt", to_pbtxt(config).encode())
    for path, data in content.items():
        _write(repository / name / path, data)
    return name


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
