"""One step model of a repository: a configuration and files, named by all of its content."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from slipway.contract.files import sha256_bytes
from slipway.repository.config import ModelConfig, to_pbtxt

VERSION = "1"  # content is in the names of the steps, so Triton's version folders never change


@dataclass(frozen=True)
class StepModel:
    """A step before it has its name. Everything that is written is in `config`, `code` and `files`."""

    kind: str
    """What its name begins with."""
    config: ModelConfig
    files: Mapping[str, bytes]
    """Name in the version folder to content."""
    code: tuple[str, ...] = ()
    """Files of the package, copied as they are."""

    def write(self, repository: Path) -> ModelConfig:
        """Write `<kind>_<hash of all it holds>`, once however often it is needed; returns its configuration."""
        package = resources.files("slipway")
        content = {
            **{f"{VERSION}/{path.rpartition('/')[2]}": (package / path).read_bytes() for path in self.code},
            **{f"{VERSION}/{name}": data for name, data in self.files.items()},
        }
        self.config.ClearField("name")
        parts = {"config.pbtxt": to_pbtxt(self.config).encode(), **content}
        listing = "".join(f"{sha256_bytes(data)}  {path}\n" for path, data in sorted(parts.items()))
        self.config.name = f"{self.kind}_{sha256_bytes(listing.encode())[:12]}"
        write_file(repository / self.config.name / "config.pbtxt", to_pbtxt(self.config).encode())
        for path, data in content.items():
            write_file(repository / self.config.name / path, data)
        return self.config


def write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
