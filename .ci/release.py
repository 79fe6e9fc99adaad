"""`make release`: build the wheel and the source archive, and check them before anybody installs them.

The wheel is built from the source archive. Both must hold exactly the files of `src/slipway` that are in git. The wheel
is then installed into a fresh environment, which takes the dependencies from this one, and has to work there.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

from slipway import __version__
from slipway.cli import VERBS

ROOT = Path(__file__).parents[1]
BESIDE_THE_PACKAGE = {"PKG-INFO", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"}
CLIENT = "import slipway, slipway.client; print(slipway.__version__, slipway.__file__)"


def main() -> None:
    out = ROOT / "runs/release"
    os.environ.pop("PYTHONPATH", None)  # it would come before what the fresh environment has
    archive, wheel = build(out)
    package = tracked()
    check_archive(archive, package=package)
    check_wheel(wheel, package=package)
    run("check-wheel-contents", wheel)
    with tempfile.TemporaryDirectory(prefix="slipway-release-") as folder:
        check_installed(wheel, environment=Path(folder) / "installed")
    for path in (archive, wheel):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}")


def build(out: Path) -> tuple[Path, Path]:
    run("uv", "build", "--quiet", "--offline", "--no-build-isolation", "--clear", "--out-dir", out, ROOT)
    (archive,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return archive, wheel


def tracked() -> set[str]:
    """The package's files as git has them, from `slipway/` on."""
    listed = run("git", "-C", ROOT / "src", "ls-files", "-z", "slipway")
    return set(listed.rstrip("\0").split("\0"))


def check_archive(path: Path, *, package: set[str]) -> None:
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    check_names(path, names, {f"src/{name}" for name in package} | BESIDE_THE_PACKAGE)


def check_wheel(path: Path, *, package: set[str]) -> None:
    """Raises SystemExit unless the wheel has exactly `package`, and metadata that an index accepts."""
    about = f"slipway-{__version__}.dist-info"
    own = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    with zipfile.ZipFile(path) as wheel:
        check_names(path, set(wheel.namelist()), package | own)
        metadata = Metadata.from_email(wheel.read(f"{about}/METADATA"), validate=True)
    if str(metadata.version) != __version__:
        sys.exit(f"{path.name}: its metadata says version {metadata.version}, and src/slipway says {__version__}")
    if not metadata.description:
        sys.exit(f"{path.name}: its metadata has no description; see readme in pyproject.toml")


def check_names(path: Path, found: set[str], expected: set[str]) -> None:
    missing, foreign = sorted(expected - found), sorted(found - expected)
    if missing or foreign:
        sys.exit(f"{path.name}: missing {missing}, not expected {foreign}; commit or remove what is not in git")


def check_installed(wheel: Path, *, environment: Path) -> None:
    venv.create(environment, clear=True)
    python = environment / "bin/python"
    run("uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    run(environment / "bin/slipway", "--version")
    for verb in VERBS:
        run(environment / "bin/slipway", verb, "--help")
    run(environment / "bin/slipway", "lint", ROOT / "model_repository/example")
    said = run(python, "-c", CLIENT)
    if said != f"{__version__} {site_packages / 'slipway/__init__.py'}\n":
        sys.exit(f"{wheel.name}: installed, `import slipway` finds {said.strip()}")


def run(command: str | Path, *arguments: str | Path) -> str:
    """Return what the command prints; looks in this environment first. A failure ends the release with its messages."""
    beside = Path(sys.executable).parent / command
    line = [str(beside if beside.exists() else command), *map(str, arguments)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"{command} is not on PATH; install it")
    if done.returncode:
        sys.exit(f"{' '.join(line)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
