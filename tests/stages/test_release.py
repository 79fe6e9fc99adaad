"""`make release`: what is built is what is in git, and works where it is installed."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from slipway import __version__
from slipway.oci.signing import private_key, public_half
from tests.support.signing_keys import keys
from tests.support.validators import bill_faults

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


@pytest.fixture(scope="module")
def sealing() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / ".ci/seal_release.py"))


CUT = "## [1.2.0] - 2026-11-27\n\n### Added\n\n- It begins.\n"


@pytest.mark.parametrize(
    ("unreleased", "cut", "said"),
    [
        ("", "", "has no section '## [1.2.0] - YYYY-MM-DD'"),
        ("- New.\n", CUT.replace("1.2.0", "1.1.0"), "has no section '## [1.2.0] - YYYY-MM-DD'"),
        ("", CUT.replace(" - 2026-11-27", ""), "has no section '## [1.2.0] - YYYY-MM-DD'"),
        ("### Added\n\n- New.\n\n", CUT, "has entries under Unreleased, which 1.2.0 would not list"),
        ("After an upgrade, assemble again.\n\n", CUT, "has entries under Unreleased"),
        ("### Added\n\n### Fixed\n\n", CUT, None),
        ("", CUT, None),
    ],
)
def test_a_release_has_a_section_of_the_changelog_and_leaves_nothing_unreleased(
    sealing: dict[str, Any], tmp_path: Path, unreleased: str, cut: str, said: str | None
) -> None:
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(f"# Changelog\n\n## [Unreleased]\n\n{unreleased}{cut}")
    with nullcontext() if said is None else pytest.raises(SystemExit, match=re.escape(f"CHANGELOG.md {said}")):
        sealing["check_changelog"](changelog, version="1.2.0")


@pytest.fixture
def sealed(sealing: dict[str, Any], tmp_path: Path) -> tuple[Path, Callable[[], None]]:
    """A signed release, and what verifies it."""
    needs = (
        "Requires-Dist: pyyaml\nProvides-Extra: ship\nRequires-Dist: pyOpenSSL; extra == 'ship'\nProvides-Extra: dev\n"
    )
    needs += "Requires-Dist: pytest; extra == 'dev'\n"
    folder = tmp_path / "release"
    folder.mkdir()
    wheel(folder, metadata=f"{METADATA}{needs}\nA description.\n")
    secret, _ = keys(tmp_path)
    sealing["gather"](folder, root=ROOT, commit="0" * 40)
    sealing["seal"](folder, private=private_key(secret))
    return folder, lambda: sealing["verify"](folder, public=public_half(private_key(secret)))


def test_a_release_lists_its_files_and_what_they_need(sealed: tuple[Path, Callable[[], None]]) -> None:
    folder, verify = sealed
    verify()
    listed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == listed | {"SHA256SUMS", "SHA256SUMS.sig"}
    for lane in ("cpu", "gpu", "compile"):
        assert {
            f"build/images/{lane}/{name}" for name in ("Dockerfile", "requirements.lock", "sbom.cdx.json")
        } <= listed
    bill = json.loads((folder / f"slipway-{__version__}.cdx.json").read_text())
    extras = {one["name"].lower(): one["properties"][0]["value"] for one in bill["components"]}
    assert extras == {"pyyaml": "every install"} | dict.fromkeys(
        ("pyopenssl", "cryptography", "cffi", "pycparser", "typing-extensions"), "ship"
    )
    needs = {one["ref"].partition("@")[0]: one.get("dependsOn", []) for one in bill["dependencies"]}
    assert [one.partition("@")[0] for one in needs["pkg:pypi/slipway"]] == ["pkg:pypi/pyopenssl", "pkg:pypi/pyyaml"]
    image = json.loads((folder / "build/images/gpu/sbom.cdx.json").read_text())
    assert "nvcr.io/nvidia/tritonserver" in {one["name"] for one in image["components"]}


def test_every_bill_of_a_release_is_one_by_the_strict_schema(sealed: tuple[Path, Callable[[], None]]) -> None:
    bills = [path.read_text() for path in sorted(sealed[0].rglob("*.cdx.json"))]
    assert len(bills) == 4
    assert [bill_faults(bill) for bill in bills] == [[]] * 4
    assert bill_faults(bills[0].replace('"bomFormat"', '"bomformat"'))


def test_a_changed_byte_of_a_release_is_named(sealed: tuple[Path, Callable[[], None]]) -> None:
    folder, verify = sealed
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        path = folder / line.split()[1]
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(SystemExit) as ended:
            verify()
        assert f"{line.split()[1]}: FAILED" in str(ended.value)
        path.write_bytes(whole)
    verify()
    path.unlink()
    with pytest.raises(SystemExit, match=f"{path.name}: FAILED open or read"):
        verify()


def test_a_list_that_was_written_again_without_the_key_is_refused(
    sealing: dict[str, Any], sealed: tuple[Path, Callable[[], None]], tmp_path: Path
) -> None:
    folder, verify = sealed
    other, _ = keys(tmp_path, "other")
    (folder / "requirements.lock").write_text("numpy==0.0.1\n")
    sealing["seal"](folder, private=private_key(other))
    with pytest.raises(SystemExit, match="Verification failure"):
        verify()


def test_a_clone_with_changes_is_not_released(sealing: dict[str, Any], tmp_path: Path) -> None:
    for command in ("init --quiet", "add .", "-c user.name=a -c user.email=a@b commit --quiet --message=a"):
        (tmp_path / "file").write_text("a")
        sealing["git"](tmp_path, *command.split())
    assert len(sealing["committed"](tmp_path)) == 40
    sealing["git"](tmp_path, "tag", f"v{__version__}")
    assert len(sealing["committed"](tmp_path)) == 40
    (tmp_path / "file").write_text("b")
    with pytest.raises(SystemExit, match=r"not committed.*\n M file"):
        sealing["committed"](tmp_path)
    sealing["git"](
        tmp_path, *["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--all", "--message=b"]
    )
    with pytest.raises(SystemExit, match=f"v{__version__} is another commit, .*; set __version__"):
        sealing["committed"](tmp_path)


def test_a_folder_without_git_is_not_released(
    sealing: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(SystemExit, match="not a git repository"):
        sealing["committed"](tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="git is not on PATH"):
        sealing["committed"](tmp_path)


def test_without_a_key_nothing_is_built_and_the_error_says_how_to_make_one() -> None:
    # -o: an environment that is older than the lock is not installed anew beneath the other tests.
    command = ["make", "--no-print-directory", "-o", ".venv/.installed", "release", "KEY="]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode
    assert "release.py" not in done.stdout
    assert "openssl ecparam -name prime256v1 -genkey -noout -out private.pem" in done.stderr


def test_ci_which_has_no_key_builds_the_release_and_does_not_sign_it() -> None:
    lines = [line.partition("#")[0] for line in (ROOT / ".github/workflows/ci.yml").read_text().splitlines()]
    assert any(".ci/release.py" in line for line in lines)
    assert not [line for line in lines if "make " in line and "release" in line]


def cut(clone: Path) -> str:
    """Follow docs/releasing.md up to the commit; returns the version that is to be released."""
    version = __version__.partition(".dev")[0]
    changelog, code = clone / "CHANGELOG.md", clone / "src/slipway/__init__.py"
    section = f"## [Unreleased]\n\n## [{version}] - 2026-11-30"
    changelog.write_text(changelog.read_text().replace("## [Unreleased]", section, 1))
    code.write_text(code.read_text().replace(__version__, version))
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--all", "--allow-empty"]
    subprocess.run([*commit, f"--message=Release {version}"], cwd=clone, check=True)
    return version


@pytest.mark.nightly
def test_a_release_of_this_commit_is_built_installed_and_signed_and_verifies_as_the_page_says(tmp_path: Path) -> None:
    clone, environment = tmp_path / "clone", Path(sys.prefix)
    subprocess.run(["git", "clone", "--quiet", "--no-tags", ROOT, clone], check=True)
    version = cut(clone)
    secret, public = keys(tmp_path)
    # -o: this environment, which make takes from here, is never installed anew.
    line = ["make", "-o", f"{environment}/.installed", f"VENV={environment}", "release", f"KEY={secret}"]
    done = subprocess.run(
        line,
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone / "src"), "VIRTUAL_ENV": str(environment)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "downloaded"
    (clone / "runs/release").rename(folder)
    assert (folder / f"slipway-{version}-py3-none-any.whl").is_file()
    shutil.copyfile(public, folder / "slipway-release.pem")
    section = (ROOT / "docs/releasing.md").read_text().partition("## Verify a release")[2]
    commands = section.partition("```bash\n")[2].splitlines()[:2]

    def verified() -> str:
        done = subprocess.run(
            ["bash", "-c", "\n".join(commands)], cwd=folder, capture_output=True, text=True, check=False
        )
        return done.stdout

    assert verified() == "Verified OK\n"
    with (folder / "build/images/gpu/Dockerfile").open("a") as changed:
        changed.write("#")
    assert verified() == "Verified OK\nbuild/images/gpu/Dockerfile: FAILED\n"
