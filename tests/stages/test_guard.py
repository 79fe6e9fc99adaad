"""The guard against every image of the corpus and arbitrary bytes, and what the images that it lets through mean."""

import ast
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slipway.contract import Preprocess
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.recipe import Recipe
from slipway.repository.step import GUARD
from slipway.steps import guard
from slipway.steps.guard import CORRUPT, EMPTY, OK, PLACEHOLDER, STATUS_NAMES, TOO_LARGE, UNSUPPORTED, Limits, inspect
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_bytes
from slipway.training.data.loader import Loading, eval_loader
from tests.support.bad_images import Case, corpus
from tests.support.image_files import JUDGED_BY_DECODER, encode, good_images, photo

CORPUS = corpus()
SMALL = {
    "baseline JPEG": encode(photo(48, 40), "JPEG"),
    "progressive JPEG": encode(photo(48, 40), "JPEG", progressive=True),
    "JPEG with restarts": encode(photo(48, 40), "JPEG", restart_marker_blocks=2),
    "PNG": encode(photo(20, 16), "PNG"),
    "WebP": encode(photo(48, 40), "WEBP"),
    "lossless WebP": encode(photo(20, 16), "WEBP", lossless=True),
    "animated WebP": encode(photo(20, 16), "WEBP", save_all=True, append_images=[photo(20, 16, seed=1)]),
    "BMP": encode(photo(20, 16), "BMP"),
    "TIFF": encode(photo(20, 16), "TIFF"),
}
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP", b"BM", b"II*\0", b"MM\0*")
ANSWERS = {OK, EMPTY, UNSUPPORTED, CORRUPT, TOO_LARGE}

Decoder = Callable[[bytes], np.ndarray]
SEEN = (
    *("JPEG", "grey JPEG", "progressive JPEG", "arithmetic JPEG", "CMYK JPEG", "YCCK JPEG"),
    *("JPEG with broken EXIF", "PNG of mode L", "PNG of mode LA", "PNG of mode P", "PNG of mode RGBA"),
    *("PNG with a transparent colour", "PNG of 16-bit grey", "PNG of 16-bit RGB", "animated PNG"),
    *("WebP", "lossless WebP with alpha", "animated WebP", "BMP of mode P", "BMP of 16 bits, 5-6-5"),
    *("TIFF of mode RGBA", "TIFF of mode CMYK", "TIFF of 16-bit grey", "TIFF of white at zero (big-endian)"),
)


@pytest.fixture(scope="module")
def decode() -> Decoder:
    """DALI on the CPU, one image alone in its batch."""
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(fn.decoders.image(encoded, device="cpu", output_type=types.RGB))
    pipeline.build()

    def decode_one(data: bytes) -> np.ndarray:
        pipeline.feed_input("encoded", [np.frombuffer(guard.for_decoder(data), np.uint8)])
        return np.array(pipeline.run()[0].at(0))

    return decode_one


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_every_image_of_the_corpus_gets_a_status_that_is_right_for_it(case: Case) -> None:
    assert STATUS_NAMES[inspect(case.data)] in {STATUS_NAMES[status] for status in case.expected}


@pytest.mark.parametrize("case", [case for case in CORPUS if case.expected == {OK}], ids=lambda case: case.name)
def test_dali_decodes_what_the_guard_passes(case: Case, decode: Decoder) -> None:
    assert decode(case.data).shape[2] == 3


def test_the_damage_that_only_a_decoder_finds_passes_the_guard() -> None:
    judged = [case for case in CORPUS if case.expected == JUDGED_BY_DECODER]
    assert len(judged) >= 5
    assert {inspect(case.data) for case in judged} == {OK}


def test_dali_decodes_the_placeholder(decode: Decoder) -> None:
    assert inspect(PLACEHOLDER) == OK
    assert decode(PLACEHOLDER).shape == (8, 8, 3)


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    return good_images(21, seed=7)


def test_good_images_are_ok_and_decode(decode: Decoder, good: list[bytes]) -> None:
    assert {inspect(data) for data in good} == {OK}
    assert all(min(decode(data).shape[:2]) >= 48 for data in good)


@pytest.mark.parametrize("name", SMALL)
def test_every_truncation_of_a_good_image_is_refused(name: str) -> None:
    data = SMALL[name]
    assert inspect(data) == OK
    passed = [length for length in range(len(data)) if inspect(data[:length]) == OK]
    assert passed == []


@pytest.mark.parametrize("number", range(21))
def test_a_good_image_of_any_size_is_refused_when_cut(number: int, good: list[bytes]) -> None:
    data = good[number]
    lengths = {*range(0, len(data), max(1, len(data) // 50)), *range(len(data) - 20, len(data))}
    assert OK not in {inspect(data[:length]) for length in lengths}


@given(st.binary(max_size=2000))
def test_arbitrary_bytes_get_a_status(data: bytes) -> None:
    assert inspect(data) in ANSWERS


@given(st.sampled_from(SIGNATURES), st.binary(max_size=2000))
def test_arbitrary_bytes_after_a_signature_get_a_status(signature: bytes, data: bytes) -> None:
    assert inspect(signature + data) in ANSWERS


@given(st.sampled_from(list(SMALL.values())), st.data())
def test_a_mutated_image_gets_a_status(image: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4), label="edits")):
        start = data.draw(st.integers(0, len(image)), label="start")
        removed = data.draw(st.integers(0, 8), label="removed")
        image = image[:start] + data.draw(st.binary(max_size=8), label="inserted") + image[start + removed :]
    assert inspect(image) in ANSWERS


@pytest.mark.parametrize("name", SMALL)
def test_each_limit_is_the_last_size_that_passes(name: str) -> None:
    data = SMALL[name]
    width, height = Image.open(io.BytesIO(data)).size
    assert inspect(data, Limits(max_bytes=len(data), max_pixels=width * height)) == OK
    assert inspect(data, Limits(max_bytes=len(data) - 1)) == TOO_LARGE
    assert inspect(data, Limits(max_pixels=width * height - 1)) == TOO_LARGE
    assert inspect(data, Limits(max_aspect=1)) == TOO_LARGE


def test_the_status_codes_are_those_of_the_documentation() -> None:
    table = (Path(__file__).parents[2] / "docs" / "dataflow.md").read_text().split("## STATUS")[1]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert {int(code): name.strip() for code, name in rows} == dict(enumerate(STATUS_NAMES))


def test_the_guard_imports_the_standard_library_and_its_own_files_alone() -> None:
    folder = Path(guard.__file__).parent
    files = {path.stem: path for path in (folder / "guard.py", *folder.glob("guard_*.py"))}
    assert {f"steps/{path.name}" for path in files.values()} == set(GUARD), "every file is copied into repositories"
    for path in files.values():
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 10))):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= sys.stdlib_module_names
            elif isinstance(node, ast.ImportFrom) and node.level:
                assert {node.module} <= set(files) or {alias.name for alias in node.names} <= set(files)
            elif isinstance(node, ast.ImportFrom):
                assert node.module in sys.stdlib_module_names


def images() -> dict[str, bytes]:
    """By name: the kinds above, and every orientation in every format that carries one."""
    named = {case.name: case.data for case in corpus()}
    found = {name: named[name] for name in SEEN}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            found[f"{kind} of orientation {orientation}"] = encode(photo(90, 60), kind, exif=exif)
    return found


@pytest.mark.parametrize("oriented", [True, False])
def test_training_and_serving_see_the_same_pixels_of_every_kind_of_image(tmp_path: Path, oriented: bool) -> None:
    values = {"input_height": 24, "input_width": 32, "mean": (0, 0, 0), "std": (1, 1, 1), "exif_orientation": oriented}
    config = Preprocess.parse(values, source="test")
    found = images()
    rows = []
    for number, data in enumerate(found.values()):
        (tmp_path / f"{number}.image").write_bytes(data)
        rows.append(LabelledImage(path=f"{number}.image", class_id=0, sha256=sha256_bytes(data), split="test"))
    dataset = Dataset(root=str(tmp_path), labels=("a", "b"), images=tuple(rows))
    served, status_n = Preprocessor(config.model_dump(), max_batch_size=len(rows), threads=1).run([*found.values()])
    assert not status_n.any()
    seen = normalize(served, config.model_dump())
    loader = eval_loader(dataset, rows, Loading(config, Recipe(batch_size=8), threads=1))
    trained = np.concatenate([batch[0]["pixels_nchw"].numpy() for batch in loader])
    for name, one, other in zip(found, trained, seen, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    turned = dict(zip(found, served, strict=True))
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        first, sixth = (turned[f"{kind} of orientation {orientation}"] for orientation in (1, 6))
        assert np.array_equal(first, sixth) != oriented, "or orientation means nothing here"


def test_what_serving_refuses_is_no_training_image_either() -> None:
    """Both ask the same function: `slipway.training.data.dataset` names every file that it refuses."""
    from slipway.training.data import dataset

    assert dataset.guard is guard
