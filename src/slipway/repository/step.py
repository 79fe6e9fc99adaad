"""One step model of a repository: a configuration and files, named by all of its content."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Self, TypeAlias

from slipway.contract import Bundle, Engine, ManifestError
from slipway.repository.config import ModelConfig, to_pbtxt
from slipway.system.files import sha256_bytes, sha256_file

VERSION = "1"  # content is in the names of the steps, so Triton's version folders never change
GUARD = (
    "steps/guard.py",
    *(f"steps/guard_{part}.py" for part in ("common", "jpeg", "png", "webp", "bmp", "tiff", "exif")),
)
"""Code of the step that meets the images first, on either lane."""
BATCHES_CODE = ("repository/backends/batches.py",)
WORKER_CODE = (*BATCHES_CODE, "steps/cores.py")
"""Of the cpu lane's steps that may be pinned."""
PREPROCESS_CODE = (*GUARD, "steps/dali_graph.py", "steps/preprocess_dali.py")
ENGINE_CODE = ("repository/backends/loading.py", "steps/engine_openvino.py")
ANSWER_CODE = ("steps/postprocess.py",)


@dataclass(frozen=True)
class Content:
    """What one file of a repository is to hold."""

    sha256: str
    size: int
    """In bytes."""
    source: bytes | Path
    """The bytes, or the file that holds them now: graphs and plans are large."""

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(sha256_bytes(data), len(data), data)

    @classmethod
    def file(cls, owner: Bundle | Engine, name: str) -> Self:
        """A file of a bundle or an engine, with the hash that was checked when that was opened."""
        path = owner.path / name
        return cls(owner.manifest.outputs[name], path.stat().st_size, path)

    def write(self, path: Path) -> None:
        """Raises ManifestError: the file that holds the bytes was changed since it was opened."""
        if isinstance(self.source, bytes):
            path.write_bytes(self.source)
            return
        shutil.copyfile(self.source, path)
        if sha256_file(path) != self.sha256:
            raise ManifestError(f"{self.source}: changed while the repository was assembled; assemble it again")


Files: TypeAlias = dict[str, Content]
"""Path in the repository to content."""


@dataclass(frozen=True)
class StepModel:
    """A step before it has its name. Everything that is written is in `config`, `code` and `files`."""

    kind: str
    """What its name begins with."""
    config: ModelConfig
    files: Mapping[str, Content]
    """Name in the version folder to content."""
    code: tuple[str, ...] = ()
    """Files of the package, copied as they are."""

    def named(self) -> tuple[ModelConfig, Files]:
        """Its configuration, which names it `<kind>_<hash of all it holds>`, and the files of its folder."""
        package = resources.files("slipway")
        content = {path.rpartition("/")[2]: Content.of((package / path).read_bytes()) for path in self.code}
        files = {f"{VERSION}/{name}": part for name, part in {**content, **self.files}.items()}
        self.config.ClearField("name")
        hashed = {"config.pbtxt": Content.of(to_pbtxt(self.config).encode()), **files}
        listing = "".join(f"{part.sha256}  {path}\n" for path, part in sorted(hashed.items()))
        self.config.name = f"{self.kind}_{sha256_bytes(listing.encode())[:12]}"
        files["config.pbtxt"] = Content.of(to_pbtxt(self.config).encode())
        return self.config, {f"{self.config.name}/{path}": part for path, part in files.items()}
