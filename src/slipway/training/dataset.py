"""Class folders to a `Dataset`: every image read, checked and put into exactly one split."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sklearn.model_selection import train_test_split
from tqdm import tqdm

from slipway.contract import DataError, check_labels
from slipway.contract.dataset import Dataset, LabelledImage, Split
from slipway.contract.files import sha256_bytes
from slipway.contract.spec import Data
from slipway.steps import guard

SHOWN = 10  # faults listed in one error


def scan(data: Data, *, labels: Sequence[str] | None = None) -> Dataset:
    """Read the class folders below `data.root`; classes are numbered as in `labels`, else by sorted folder name.

    Equal files get one split, so no image is in two. Hidden files and folders are passed over.

    Raises:
        DataError: no such folder, fewer than two classes, folders that are not the labels, a class too small to be in
            every split, images that serving would refuse, or one image in two classes.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; data.root is one folder with a sub-folder of images per class")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        found = ", ".join(folder.name for folder in folders) or "none"
        raise DataError(f"{root}: class folders found: {found}; a classifier needs at least two")
    names = check_labels([folder.name for folder in folders], source=str(root))
    if labels is None:
        labels = names
    elif set(labels) != set(names):
        raise DataError(_explain_labels(root, labels, names))
    files = [
        (path.relative_to(root).as_posix(), class_id)
        for class_id, label in enumerate(labels)
        for path in sorted((root / label).rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root / label).parts)
    ]
    hashes = _read(root, files)
    splits = _split(hashes, dict(files), labels, data)
    return Dataset(
        root=data.root,
        labels=tuple(labels),
        images=tuple(
            LabelledImage(path=path, class_id=class_id, sha256=hashes[path], split=splits[hashes[path]])
            for path, class_id in files
        ),
    )


def _explain_labels(root: Path, labels: Sequence[str], names: Sequence[str]) -> str:
    lines = [
        f"{what}: {', '.join(map(repr, found[:SHOWN]))}{' …' if len(found) > SHOWN else ''}"
        for what, found in (
            ("labels without a folder", [label for label in labels if label not in names]),
            ("folders without a label", [name for name in names if name not in labels]),
        )
        if found
    ]
    return f"{root}: the class folders are not the labels; rename, add or remove some:\n  " + "\n  ".join(lines)


def _read(root: Path, files: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Path to sha256, for files that the guard passes."""
    hashes, faults = {}, []
    for path, _ in tqdm(files, desc="reading images", unit="image", leave=False, disable=None):
        encoded = (root / path).read_bytes()
        status = guard.inspect(encoded)
        if status != guard.OK:
            faults.append(f"{root / path}: {guard.STATUS_NAMES[status]}")
        hashes[path] = sha256_bytes(encoded)
    if faults:
        more = f"\n  … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        listing = "\n  ".join(faults[:SHOWN])
        raise DataError(f"{len(faults)} files cannot be used; repair or remove them:\n  {listing}{more}")
    return hashes


def _split(hashes: dict[str, str], class_ids: dict[str, int], labels: Sequence[str], data: Data) -> dict[str, Split]:
    """sha256 to split, seeded and stratified."""
    classes: dict[str, int] = {}
    for path, digest in hashes.items():
        if classes.setdefault(digest, class_ids[path]) != class_ids[path]:
            names = " and ".join(sorted(p for p, d in hashes.items() if d == digest))
            raise DataError(f"{names} are the same image in two classes; keep the right one")
    counts = Counter(classes.values())
    share = min(data.validation_fraction, data.test_fraction, 1 - data.validation_fraction - data.test_fraction)
    needed = int(2 / share) + 1  # enough that rounding leaves no split without the class
    for class_id, label in enumerate(labels):
        if counts[class_id] < needed:
            raise DataError(
                f"class {label!r} has {counts[class_id]} different images; with these split fractions every class "
                f"needs at least {needed}: add images, or remove the folder"
            )
    digests = sorted(classes)
    held_out = data.validation_fraction + data.test_fraction
    train, rest = train_test_split(
        digests, test_size=held_out, stratify=[classes[d] for d in digests], random_state=data.seed
    )
    validation, test = train_test_split(
        rest, test_size=data.test_fraction / held_out, stratify=[classes[d] for d in rest], random_state=data.seed
    )
    named: tuple[tuple[Split, list[str]], ...] = (("train", train), ("validation", validation), ("test", test))
    return {digest: split for split, members in named for digest in members}
