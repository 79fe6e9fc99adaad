"""An image of ours without docker: its Dockerfile is carried out for real on a folder, above a stand-in for NVIDIA's.

The stand-in has a Python 3.12, the tritonserver of the nvidia-pytriton wheel in the layout of NVIDIA's, and DALI
installed as NVIDIA's DALI backend installs it.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from slipway.serving.binary import find_tritonserver
from tests.support.scripts import ROOT

DALI = "nvidia-dali-cuda130==2.4.0"


def python_3_12() -> Path | None:
    """A Python 3.12 that starts: on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = [Path(folder) / "python3.12" for folder in os.environ["PATH"].split(os.pathsep)]
    for path in (*on_path, *sorted(pyenv.glob("versions/3.12*/bin/python3.12"))):
        if path.is_file() and subprocess.run([path, "-V"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def install_dali(python: Path, folder: Path) -> Path:
    """DALI with all that it asks for, numpy 2 among it, in one folder, as NVIDIA's build makes it."""
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--target", folder, DALI], check=True)
    return folder


@dataclass
class PlayedImage:
    """The root folder of an image, in which `/opt` is `root/opt`."""

    root: Path
    python: Path
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def lay_base(self, dali: Path) -> None:
        """What NVIDIA's image has before the first line of ours; `dali` is what `install_dali` made."""
        subprocess.run([self.python, "-m", "venv", self.root / "python"], check=True)
        server = self.root / "opt/tritonserver"
        (self.root / "workspace").mkdir()
        wheel = find_tritonserver(self.root / "workspace").path.parents[1]
        for part in ("bin", "lib", "backends/python", "backends/dali/wheel"):
            (server / part).mkdir(parents=True)
        (server / "backends/dali/wheel/dali").symlink_to(dali)
        (server / "bin/tritonserver").symlink_to(wheel / "bin/tritonserver")
        libpython = self.python.resolve().parents[1] / "lib/libpython3.12.so.1.0"
        for library in (*(wheel.parents[1] / "nvidia_pytriton.libs").iterdir(), libpython):
            (server / "lib" / library.name).symlink_to(library)
        stub = wheel / "python_backend_stubs/3.12/triton_python_backend_stub"
        for file in (*(wheel / "backends/python").iterdir(), stub):
            (server / "backends/python" / file.name).symlink_to(file)
        (server / "backends/python" / stub.name).chmod(0o755)
        self.environment = {
            "PATH": f"{server / 'bin'}:{self.root / 'python/bin'}:/usr/bin:/bin",
            "HOME": str(self.root),
        }

    def build(self, dockerfile: Path) -> None:
        """Carry out a Dockerfile, with the clone as docker's context."""
        text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
        for line in filter(str.strip, text.splitlines()):
            instruction, _, rest = line.partition(" ")
            if instruction == "COPY":
                self._copy(rest.split())
            elif instruction == "ENV":
                for name, value in re.findall(r"(\w+)=(\S+)", rest):
                    self.environment[name] = self._here(value).replace("${PATH}", self.environment["PATH"])
            elif instruction == "RUN":
                self._run(rest)
            elif instruction == "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            elif instruction == "CMD":
                self.command = json.loads(rest)
            elif instruction not in ("ARG", "FROM", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK"):
                raise ValueError(f"{dockerfile}: {instruction} cannot be carried out here")
        # The stub of 2.51 ignores PYTHONPATH; those of today's images do not.
        (site,) = (self.root / "python").glob("lib/python3.12/site-packages")
        (site / "image.pth").write_text(self.environment["PYTHONPATH"].replace(":", "\n"))

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        folder = Path(self._here(target))
        if sources[0] == "--from=server":
            folder.parent.mkdir(parents=True, exist_ok=True)
            return folder.symlink_to(self._here(sources[1]))
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, folder)
        return None

    def _run(self, line: str) -> None:
        subprocess.run(["bash", "-c", self._here(line)], env=self.environment, check=True)

    def _here(self, text: str) -> str:
        return text.replace("/opt/", f"{self.root}/opt/")
