"""One step model of a repository: a configuration and files, named by their content."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Self, TypeAlias

from slipway.contract import Bundle, BundleEngine, ManifestError
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.lint.models import remember
from slipway.repository.config import ModelConfig, to_pbtxt
from slipway.system.files import Identity, sha256_bytes, sha256_file

VERSION = "1"  # content is in the names of the steps, so Triton's version folders never change
GUARD = (
    "steps/guard.py",
    *(f"steps/guard_{part}.py" for part in ("common", "jpeg", "png", "webp", "bmp", "tiff", "exif")),
)
"""Code of the step that receives the images, on either lane."""
BATCHES_CODE = ("repository/backends/batches.py",)
WORKER_CODE = (*BATCHES_CODE, "repository/backends/warmup.py", "steps/cores.py")
"""Code of the steps that may be pinned on the cpu lane, and that warm up."""
PREPROCESS_CODE = (
    *GUARD,
    "steps/batch_limits.py",
    "steps/cpu_resize.py",
    "steps/dali_graph.py",
    "steps/dali_resize.py",
    "steps/geometry.py",
    "steps/preprocess.py",
    "steps/scaled_jpeg.py",
)
PREPROCESS_STEP_CODE = ("repository/backends/preprocess/model.py", *WORKER_CODE, *PREPROCESS_CODE)
"""The step of both lanes that decodes image by image."""
ENGINE_CODE = ("repository/backends/loading.py", "steps/engine_openvino.py")
ANSWER_CODE = ("steps/postprocess.py",)


@dataclass(frozen=True)
class Content:
    """The intended content of one file of a repository."""

    sha256: str
    size: int
    """Size in bytes."""
    source: bytes | str
    """The bytes, or the path of the file that holds them: graphs and plans are large."""
    found: Identity | None = None
    """Identity by which a present repository's file is known to be the hashed one."""

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(sha256_bytes(data), len(data), data)

    @classmethod
    def file(cls, owner: Bundle | BundleEngine | Base | BaseEngine, name: str) -> Self:
        """A file of a bundle, base or engine, with the hash that was checked when it was opened."""
        path = f"{owner.path}/{name}"
        return cls(owner.manifest.outputs[name], os.stat(path).st_size, path)

    def read(self) -> bytes:
        """The bytes; raises what `write` raises."""
        if isinstance(self.source, bytes):
            return self.source
        data = Path(self.source).read_bytes()
        self._require(sha256_bytes(data), self.source)
        return data

    def write(self, path: Path) -> None:
        """Raises ManifestError: the file that holds the bytes changed since it was opened."""
        if isinstance(self.source, bytes):
            path.write_bytes(self.source)
            return
        shutil.copyfile(self.source, path)
        self._require(sha256_file(path), self.source)

    def _require(self, sha256: str, source: str) -> None:
        if sha256 != self.sha256:
            raise ManifestError(f"{source}: changed while the repository was assembled; assemble it again")


Files: TypeAlias = dict[str, Content]
"""Content of each path in the repository."""


@dataclass(frozen=True)
class StepModel:
    """A step before it is named. `config`, `code` and `files` have everything that is written."""

    kind: str
    """Prefix of the step's name."""
    config: ModelConfig
    files: Mapping[str, Content]
    """Content of each file in the version folder."""
    code: tuple[str, ...] = ()
    """Files of the package, copied unchanged."""
    warmup: Mapping[str, Content] = field(default_factory=dict)
    """Content of each file in the folder `warmup`."""

    def named(self) -> tuple[ModelConfig, Files]:
        """The configuration, named `<kind>_<hash of all content>`, and the files of the step's folder."""
        package = resources.files("slipway")
        content = {path.rpartition("/")[2]: Content.of((package / path).read_bytes()) for path in self.code}
        files = {f"{VERSION}/{name}": part for name, part in {**content, **self.files}.items()}
        files |= {f"warmup/{name}": part for name, part in self.warmup.items()}
        self.config.ClearField("name")
        hashed = {"config.pbtxt": Content.of(to_pbtxt(self.config).encode()), **files}
        listing = "".join(f"{part.sha256}  {path}\n" for path, part in sorted(hashed.items()))
        self.config.name = f"{self.kind}_{sha256_bytes(listing.encode())[:12]}"
        text = to_pbtxt(self.config)
        remember(text, self.config)
        files["config.pbtxt"] = Content.of(text.encode())
        return self.config, {f"{self.config.name}/{path}": part for path, part in files.items()}
