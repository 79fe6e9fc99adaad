"""A folder of rendered files: YAML with its reasons beside it, written whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slipway.contract import SpecError
from slipway.operations.gateway.routes import Node
from slipway.system.files import complete_folder, files_below, sha256_bytes, sha256_file
from slipway.system.yaml_json import dump_yaml

MARKER = ".slipway-rendered"
MOST_CONFIG_BYTES = 1_000_000
"""Largest file of a ConfigMap: etcd takes 1 MiB, names and labels included."""


@dataclass(frozen=True)
class Document:
    """One document of a YAML file."""

    node: Node
    about: str = ""
    """Comment before the document."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """The beginning of a line to the comment above it, wherever that line stands."""

    def text(self) -> str:
        """The document with its comments.

        Raises:
            ValueError: no line begins like that.
        """
        found = set()
        lines = [f"# {line}".rstrip() for line in self.about.splitlines()]
        plain = json.loads(json.dumps(self.node))  # what is there twice is written twice, and not as an alias
        for line in dump_yaml(plain).splitlines():
            stripped = line.lstrip()
            bare = stripped.removeprefix("- ")
            for start, reason in self.reasons.items():
                if bare.startswith(start):
                    found.add(start)
                    lines += [f"{' ' * (len(line) - len(stripped))}# {part}" for part in reason.splitlines()]
            lines.append(line)
        if missing := self.reasons.keys() - found:
            raise ValueError(f"no line begins with {sorted(missing)}")
        return "\n".join(lines) + "\n"


def yaml_file(*documents: Document) -> str:
    return "---\n".join(document.text() for document in documents)


def write_files(folder: Path, files: Mapping[str, str], *, kind: str, inputs: tuple[Path, ...] = ()) -> None:
    """Write the files, by their path below `folder`, instead of the files rendered there before.

    Raises:
        SpecError: something else is there: another kind, or a file that was added or edited.
        StorageError: it cannot be written.
    """
    _check_own(folder, kind)
    listed = [f"{sha256_bytes(text.encode())}  {name}" for name, text in sorted(files.items())]
    with complete_folder(folder, kind="rendered", inputs=inputs) as staging:
        for name, text in {**files, MARKER: "\n".join([kind, *listed, ""])}.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_text(text, encoding="utf-8")


def _check_own(folder: Path, kind: str) -> None:
    """Raises SpecError if a rendered folder is of another kind, or was changed."""
    if not (folder / MARKER).is_file():
        return
    found, *listed = (folder / MARKER).read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if found != kind:
        raise SpecError(f"{folder}: rendered for {found[:40]}, and not for {kind}; give another folder, or remove it")
    written = {name: sha256 for sha256, _, name in (line.partition("  ") for line in listed)}
    for name, path in files_below(folder).items():
        if name == MARKER or written.get(name) == sha256_file(path):
            continue
        raise SpecError(
            f"{path}: {'edited' if name in written else 'added'} since it was rendered, and would be lost; keep "
            "changes beside the folder, as an overlay or drop-in of your own, and remove this file"
        )
