"""`make release`: what is built is what is in git, and works where it is installed."""

import runpy
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from slipway import __version__

ROOT = Path(__file__).parents[2]
PACKAGE = {"slipway/__init__.py", "slipway/report/templates/report.html"}
METADATA = f"Metadata-Version: 2.4\nName: slipway\nVersion: {__version__}\n"


@pytest.fixture(scope="module")
def release() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / ".ci/release.py"))


def wheel(folder: Path, *, package: set[str] = PACKAGE, metadata: str = f"{METADATA}\nA description.\n") -> Path:
    path, about = folder / "slipway.whl", f"slipway-{__version__}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name in package:
            archive.writestr(name, "")
        for name in ("WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"):
            archive.writestr(f"{about}/{name}", "")
        archive.writestr(f"{about}/METADATA", metadata)
    return path


def test_a_wheel_of_what_is_in_git_is_accepted(release: dict[str, Any], tmp_path: Path) -> None:
    release["check_wheel"](wheel(tmp_path), package=PACKAGE)


@pytest.mark.parametrize(
    ("package", "said"),
    [
        (PACKAGE - {"slipway/report/templates/report.html"}, "missing ['slipway/report/templates/report.html']"),
        (PACKAGE | {"tests/conftest.py"}, "not expected ['tests/conftest.py']"),
    ],
)
def test_a_wheel_with_too_little_or_too_much_is_refused(
    release: dict[str, Any], tmp_path: Path, package: set[str], said: str
) -> None:
    with pytest.raises(SystemExit, match="missing") as ended:
        release["check_wheel"](wheel(tmp_path, package=package), package=PACKAGE)
    assert said in str(ended.value)


@pytest.mark.parametrize("metadata", [METADATA, f"{METADATA.replace(__version__, '9')}\nA description.\n"])
def test_a_wheel_of_another_version_or_without_a_description_is_refused(
    release: dict[str, Any], tmp_path: Path, metadata: str
) -> None:
    with pytest.raises(SystemExit, match="its metadata"):
        release["check_wheel"](wheel(tmp_path, metadata=metadata), package=PACKAGE)


def test_a_version_without_a_section_in_the_changelog_is_refused(release: dict[str, Any], tmp_path: Path) -> None:
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## [Unreleased]\n")
    with pytest.raises(SystemExit, match="has no section"):
        release["check_changelog"](changelog)
    changelog.write_text(f"# Changelog\n\n## [Unreleased]\n\n## [{__version__}] - 2026-11-27\n")
    release["check_changelog"](changelog)


@pytest.mark.nightly
def test_a_release_of_this_clone_is_built_installed_and_works() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/release.py"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert f"slipway-{__version__}-py3-none-any.whl" in done.stdout
