"""`make release`, after `.ci/release.py`: everything that a release has, in one folder, listed and signed.

`SHA256SUMS` names every file with its SHA-256, and `SHA256SUMS.sig` is its signature, so that openssl and sha256sum
alone verify the whole (docs/releasing.md). It is also done here, before anybody else does.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.model.component import Component, ComponentType
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slipway import __version__
from slipway.contract import SlipwayError
from slipway.oci.sbom import Lock, component, document, package
from slipway.oci.signing import private_key, public_half
from slipway.system.files import files_below, sha256_file

ROOT = Path(__file__).parents[1]
OUT = ROOT / "runs/release"
SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
NOT_SHIPPED = "dev"
"""The extra of contributors, which no user installs."""
ALWAYS = "every install"
PAGE = "docs/releasing.md"
NO_KEY = """no key to sign the release with: make release KEY=private.pem; docs/releasing.md says how to keep one, and
openssl ecparam -name prime256v1 -genkey -noout -out private.pem    makes it"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", metavar="PRIVATE", required=True, help="private key in PEM")
    parser.add_argument("--check", action="store_true", help="check key, clone and CHANGELOG.md, and write nothing")
    arguments = parser.parse_args()
    if not arguments.key:
        sys.exit(NO_KEY)
    try:
        private = private_key(Path(arguments.key))
        commit = committed(ROOT)
        check_changelog(ROOT / "CHANGELOG.md", version=__version__)
        if not arguments.check:
            gather(OUT, root=ROOT, commit=commit)
            seal(OUT, private=private)
            verify(OUT, public=public_half(private))
            print(f"{OUT.relative_to(ROOT)}: {len(files_below(OUT)) - 2} files, listed in {SUMS} and signed")
    except SlipwayError as error:
        sys.exit(str(error))


def committed(root: Path) -> str:
    """The commit of a clone; ends the release if a tracked file differs, or if the version's tag is another commit."""
    if changed := git(root, "status", "--porcelain", "--untracked-files=no"):
        sys.exit(f"not committed, so that nobody could tell what was released; commit or restore:\n{changed.rstrip()}")
    commit, tag = git(root, "rev-parse", "HEAD").strip(), f"v{__version__}"
    if (tagged := git(root, "for-each-ref", "--format=%(*objectname) %(objectname)", f"refs/tags/{tag}").split()) and (
        commit not in tagged
    ):
        sys.exit(f"{tag} is another commit, {tagged[0]}; set __version__ in src/slipway/__init__.py: {PAGE}")
    return commit


def check_changelog(path: Path, *, version: str) -> None:
    """End the release unless the changelog has a section of this version, and lists nothing as unreleased."""
    text = path.read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE):
        sys.exit(f"{path.name} has no section '## [{version}] - YYYY-MM-DD'; cut one and set __version__: {PAGE}")
    unreleased = text.partition("## [Unreleased]")[2].partition("\n## ")[0]
    if any(line and not line.startswith("#") for line in unreleased.splitlines()):
        sys.exit(f"{path.name} has entries under Unreleased, which {version} would not list; cut a version: {PAGE}")


def git(root: Path, *arguments: str) -> str:
    return tell(root, "git", *arguments)


def gather(folder: Path, *, root: Path, commit: str) -> None:
    """Put locks, Dockerfiles and bills of materials beside wheel and source archive."""
    (wheel,) = folder.glob("*.whl")
    shutil.rmtree(folder / "build", ignore_errors=True)
    (folder / ".gitignore").unlink(missing_ok=True)  # uv's
    for name in ("requirements.lock", *git(root, "ls-files", "build/images").split()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, folder / name)
    lock = Lock.read(folder / "requirements.lock")
    (folder / f"slipway-{__version__}.cdx.json").write_bytes(wheel_bill(wheel, lock, commit=commit))
    for dockerfile in sorted((folder / "build/images").glob("*/Dockerfile")):
        dockerfile.with_name("sbom.cdx.json").write_bytes(image_bill(dockerfile, commit=commit))


def wheel_bill(wheel: Path, lock: Lock, *, commit: str) -> bytes:
    """The bill of the wheel: every package of its extras in the version of the lock, and which extras need it."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = Metadata.from_email(archive.read(f"slipway-{__version__}.dist-info/METADATA"))
    pinned = {str(canonicalize_name(name)): version for name, version in lock.packages}
    edges: dict[str, set[str]] = {}
    direct: set[str] = set()
    extras_of: dict[str, list[str]] = {}
    for extra in ("", *sorted({*(metadata.provides_extra or [])} - {NOT_SHIPPED})):
        wanted = list(named(map(str, metadata.requires_dist or ()), extras=[extra]))
        direct |= {canonicalize_name(one.name) for one in wanted}
        for name in reached(wanted, pinned=pinned.keys(), edges=edges):
            if extras_of.setdefault(name, []) != [ALWAYS]:
                extras_of[name].append(extra or ALWAYS)
    left_out = {one for needed in (direct, *edges.values()) for one in needed} - pinned.keys()  # ADR 0011 says why
    facts = {"slipway:commit": commit, "slipway:lock": lock.sha256, "slipway:left-out": " ".join(sorted(left_out))}
    about = package("slipway", __version__, properties={**facts, "slipway:wheel": sha256_file(wheel)})
    parts = {
        name: package(name, pinned[name], properties={"slipway:extras": ", ".join(extras)})
        for name, extras in sorted(extras_of.items())
    }
    needs: dict[Component, Sequence[Component]] = {about: [parts[name] for name in sorted(direct & parts.keys())]}
    needs |= {part: [parts[one] for one in sorted(edges[name] & parts.keys())] for name, part in parts.items()}
    return document(needs, serial=f"slipway {__version__} {commit}")


def reached(wanted: Iterable[Requirement], *, pinned: Collection[str], edges: dict[str, set[str]]) -> set[str]:
    """The pinned packages that requirements lead to; what each of them needs is added to `edges`."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(wanted)
    while waiting:
        one = waiting.pop()
        name = str(canonicalize_name(one.name))
        if name not in pinned or (name, frozenset(one.extras)) in seen:
            continue
        seen.add((name, frozenset(one.extras)))
        below = list(named(installed_needs(name), extras=["", *one.extras]))
        edges.setdefault(name, set()).update(canonicalize_name(other.name) for other in below)
        waiting += below
    return {name for name, _ in seen}


def named(requirements: Iterable[str], *, extras: Sequence[str]) -> Iterable[Requirement]:
    """The requirements that hold here, with any of these extras, or that need none of them."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement


def installed_needs(name: str) -> Sequence[str]:
    try:
        return requires(name) or ()
    except PackageNotFoundError:
        sys.exit(f"{name}: in requirements.lock, and not installed; make setup")


def image_bill(dockerfile: Path, *, commit: str) -> bytes:
    """The bill of an image of build/images: NVIDIA's image below it, Slipway, and the packages of its lock."""
    text, lock = dockerfile.read_text(encoding="utf-8"), Lock.read(dockerfile.with_name("requirements.lock"))
    (release,) = re.findall(r"^ARG RELEASE=(\S+)$", text, re.MULTILINE)
    (base,) = re.findall(r"^FROM (\S+)$", text, re.MULTILINE)
    below, _, tag = base.replace("${RELEASE}", release).rpartition(":")
    facts = {"slipway:commit": commit, "slipway:lock": lock.sha256}
    name = f"slipway-{dockerfile.parent.name}"
    about = component(ComponentType.CONTAINER, name, __version__, properties=facts)
    packages = [package(one, version) for one, version in (("slipway", __version__), *lock.packages)]
    return document({about: [component(ComponentType.CONTAINER, below, tag), *packages]}, serial=f"{name} {commit}")


def seal(folder: Path, *, private: ec.EllipticCurvePrivateKey) -> None:
    """List every file with its SHA-256, and sign the list as `openssl dgst -sha256 -sign` does."""
    for name in (SUMS, SIGNATURE):
        (folder / name).unlink(missing_ok=True)
    lines = [f"{sha256_file(path)}  {name}\n" for name, path in files_below(folder).items()]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    (folder / SIGNATURE).write_bytes(private.sign((folder / SUMS).read_bytes(), ec.ECDSA(hashes.SHA256())))


def verify(folder: Path, *, public: bytes) -> None:
    """Do what docs/releasing.md tells users to do; ends with what openssl or sha256sum says if anything was changed."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as key:
        key.write(public)
        key.flush()
        tell(folder, "openssl", "dgst", "-sha256", "-verify", key.name, "-signature", SIGNATURE, SUMS)
    tell(folder, "sha256sum", "--check", "--strict", "--quiet", SUMS)


def tell(folder: Path, *command: str) -> str:
    """Return what a command prints in a folder. A failure, or a missing command, ends the release with a message."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not on PATH; install it")
    if done.returncode:
        sys.exit(f"{folder}: {done.stdout}{done.stderr}".rstrip())
    return done.stdout


if __name__ == "__main__":
    main()
