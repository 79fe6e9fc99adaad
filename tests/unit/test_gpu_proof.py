"""The parts of `make gpu-proof` without a runtime: what finds foreign pixels, carries wheels and outlives a crash."""

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.gpu_proof.carried import unpack
from benchmarks.studies.gpu_proof.codec import WRONG, Pixels, isolation
from benchmarks.studies.gpu_proof.folder import ROOT, Carried, Prepared, ProofError, Wheel, code_sha256, write_json
from benchmarks.studies.gpu_proof.heads import difference
from benchmarks.studies.gpu_proof.running import LIMITS_S, run
from benchmarks.studies.gpu_proof.triton import step_python
from benchmarks.studies.gpu_proof.wheels import NEEDED, ORDER, completes, cut, locked, pack
from slipway.contract import Decision
from slipway.contract.evidence.gpu_proof import GpuProofResult
from slipway.steps.head import Head
from tests.support.lint_defects import CORPUS

GOOD, BAD = [bytes([1, seed]) for seed in range(12)], [bytes([2, seed]) for seed in range(20)]


class Decoder:
    """Decodes each image to noise of its own; what begins with 2 is damaged, and its lower half is not decoded."""

    def run(self, images: Sequence[bytes]) -> list[Pixels | None]:
        decoded = [self.picture(image) for image in images]
        for index, image in enumerate(images):
            if image[0] == 2:
                decoded[index] = self.damaged(decoded, index)
        return decoded

    def picture(self, image: bytes) -> Pixels:
        return np.random.default_rng(list(image)).integers(0, 256, (32, 32, 3), np.uint8)

    def damaged(self, decoded: list[Any], index: int) -> Pixels | None:
        pixels: Pixels = decoded[index].copy()
        pixels[16:] = 128
        return pixels


class Stale(Decoder):
    """Leaves in the lower half what the buffer held: the pixels of the image before."""

    def damaged(self, decoded: list[Any], index: int) -> Pixels | None:
        pixels: Pixels = decoded[index].copy()
        pixels[16:] = decoded[index - 1][16:] if index else 128
        return pixels


class Black(Decoder):
    def damaged(self, decoded: list[Any], index: int) -> Pixels | None:
        return np.zeros_like(decoded[index])


class Spoiling(Decoder):
    """A damaged image costs its left neighbour's pixels."""

    def damaged(self, decoded: list[Any], index: int) -> Pixels | None:
        if index:
            decoded[index - 1] = None
        return None


def found_with(decoder: Any) -> dict[str, Any]:
    honest = Decoder()
    references = {name: [honest.run([image])[0] for image in images] for name, images in (("good", GOOD), ("bad", BAD))}
    found = isolation(decoder, GOOD, BAD, references)
    return {name: found[name] for name in WRONG if found[name]}


def test_a_decoder_that_answers_each_image_by_itself_is_found_innocent() -> None:
    assert found_with(Decoder()) == {}


@pytest.mark.parametrize(
    ("decoder", "wrong"),
    [
        (Stale(), {"pixels depend on neighbours", "foreign pixels"}),
        (Black(), {"black"}),
        (Spoiling(), {"harmed neighbours"}),
    ],
)
def test_a_decoder_that_gives_foreign_or_black_pixels_or_harms_a_neighbour_is_found(
    decoder: Any, wrong: set[str]
) -> None:
    assert set(found_with(decoder)) == wrong


@pytest.fixture
def carried(tmp_path: Path) -> tuple[Path, Carried]:
    """Two wheels in pieces of 500 bytes."""
    wheels = {}
    for name in ("nvidia-nvimgcodec-cu13", "numpy"):
        wheel = tmp_path / f"{name}-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(f"{name}/data.bin", np.random.default_rng(0).bytes(2000))
            file.writestr(f"{name}/impl.cpython-311-x86_64-linux-gnu.so", b"for another Python")
            file.writestr(f"{name}/impl.cpython-312-x86_64-linux-gnu.so", b"for this one")
        wheels[name] = pack(wheel, tmp_path / "packed")
    return tmp_path, cut(wheels, tmp_path / "pieces", first=300, each=500)


def test_wheels_are_whole_again_after_being_carried_in_pieces(carried: tuple[Path, Carried]) -> None:
    folder, described = carried
    unpack(described, ["numpy", "nvidia-nvimgcodec-cu13"], folder)
    assert (folder / "site/all/nvidia-nvimgcodec-cu13/data.bin").stat().st_size == 2000
    # numpy stands apart: only the server's steps take the carried one.
    assert sorted(path.name for path in (folder / "site/numpy/numpy").iterdir()) == [
        "data.bin",
        "impl.cpython-312-x86_64-linux-gnu.so",
    ]


def test_a_missing_or_cut_piece_is_named_and_a_changed_byte_is_refused(carried: tuple[Path, Carried]) -> None:
    folder, described = carried
    part = folder / "pieces/2/part"
    data = part.read_bytes()
    for written, message in (
        (None, r"missing; carry piece 2 of"),
        (data[:-1], "cut short"),
        (data[::-1], "not the bytes"),
    ):
        part.unlink() if written is None else part.write_bytes(written)
        with pytest.raises(ProofError, match=message):
            unpack(described, ["nvidia-nvimgcodec-cu13"], folder)
    part.write_bytes(data)
    unpack(described, ["nvidia-nvimgcodec-cu13"], folder)


def test_a_proof_is_complete_with_the_piece_that_ends_its_last_wheel() -> None:
    wheels = tuple(Wheel(name, file=f"{name}.tar.xz", size=10, sha256="") for name in ORDER)
    found = completes(Carried(wheels, pieces=(10,) * len(ORDER)))
    assert found[1] == ["precision"]
    assert found[len(NEEDED["codec"])] == ["codec"]
    assert found[len(ORDER)] == ["server", "heads"]


def test_every_wheel_has_its_version_in_the_lock_file() -> None:
    assert set(locked(ORDER)) == set(ORDER)
    with pytest.raises(ProofError, match="does not name never-heard-of"):
        locked(["never-heard-of"])


def test_a_proof_without_its_inputs_and_one_over_its_limit_say_so_and_the_next_still_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Prepared("c", code_sha256(), seed=0, small=True, versions={}, wheels=Carried(), inputs={}).write(tmp_path)
    out = tmp_path / "out"
    assert run(["codec", "server"], folder=tmp_path, out=out, device="cpu", installed=True)
    for name, missing in (("codec", "photographs.npz: missing"), ("server", "no repository; run prepare server")):
        result = GpuProofResult.read(out / f"gpu_proof_{name}.json")
        assert result.verdict == "could not run"
        assert missing in result.reasons[0]
    assert run(["codec"], folder=tmp_path, out=out, device="cpu", installed=True, scale=1e-6)
    (reason,) = json.loads((out / "gpu_proof_codec.json").read_text())["reasons"]
    assert "its limit of 0 s" in reason
    assert reason in capsys.readouterr().out


def test_a_disk_that_is_full_of_wheels_costs_a_proof_and_not_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("benchmarks.studies.gpu_proof.running.unpack", full)
    Prepared("c", code_sha256(), seed=0, small=True, versions={}, wheels=Carried(), inputs={}).write(tmp_path)
    assert run(["codec", "dali"], folder=tmp_path, out=tmp_path / "out", device="cpu", installed=False)
    for name in ("codec", "dali"):
        result = GpuProofResult.read(tmp_path / f"out/gpu_proof_{name}.json")
        assert (result.verdict, result.reasons) == ("could not run", ("[Errno 28] No space left on device",))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["codec", "nosuch"], "no proof is named nosuch; there are codec, precision, dali, server, heads"),
        (["--limit-scale", "nan"], "--limit-scale nan: give a number above 0"),
        (["--limit-scale", "-1"], "--limit-scale -1.0: give a number above 0"),
        (["codec"], "prepared.json: missing; prepare it on a machine with the full .venv"),
    ],
)
def test_a_run_that_cannot_begin_says_why(words: list[str], says: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.studies.gpu_proof", "run", "--folder", str(tmp_path), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_prepared_is_read_as_it_was_written_and_an_older_one_is_prepared_again(tmp_path: Path) -> None:
    wheels = Carried((Wheel("numpy", file="numpy.tar.xz", size=3, sha256="0"),), pieces=(3,))
    prepared = Prepared(None, "c", seed=1, small=False, versions={"numpy": "1"}, wheels=wheels, inputs={"corpus": 3})
    prepared.write(tmp_path)
    assert Prepared.read(tmp_path) == prepared
    write_json(tmp_path / "inputs/prepared.json", {"commit": "c", "wheels": {"wheels": [], "pieces": []}})
    with pytest.raises(ProofError, match=r"not what this commit's prepare writes .*; prepare again"):
        Prepared.read(tmp_path)
    (tmp_path / "inputs/prepared.json").write_text("null")
    with pytest.raises(ProofError, match=r"prepared.json: not an object with keys and values; carry it again"):
        Prepared.read(tmp_path)


def test_two_runs_of_ten_minutes_hold_the_limits_of_all_proofs() -> None:
    *first, server, heads = LIMITS_S.values()
    assert sum(first) < 600
    assert server + heads < 600


def test_the_steps_see_the_carried_numpy_first_and_every_other_carried_package_last(tmp_path: Path) -> None:
    step_python(tmp_path, first=[Path("/first")], last=[Path("/last")])
    (paths,) = tmp_path.glob("lib/*/site-packages/proof.pth")
    lines = paths.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("/first", "/last")
    assert any("site-packages" in line for line in lines[1:-1])


def test_a_wheel_packed_twice_is_packed_once(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/b.py", "")
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(buffer.getvalue())
    first = pack(tmp_path / "a-1-py3-none-any.whl", tmp_path)
    written = first.stat().st_mtime_ns
    assert pack(tmp_path / "a-1-py3-none-any.whl", tmp_path).stat().st_mtime_ns == written


def test_an_answer_other_than_that_of_its_head_offline_is_found(tmp_path: Path) -> None:
    Head([np.eye(2, dtype=np.float32)], [np.zeros(2, np.float32)]).save(tmp_path / "head.npz")
    Decision.parse({"task": "multiclass", "top_k": 2}, source="test").write(tmp_path / "decision.json")
    (tmp_path / "labels.txt").write_text("left\nright\n")
    score = float(1 / (1 + np.exp(-2)))
    answer = {
        "LABEL": np.array([["left", "right"]]),
        "SCORE": np.array([[score, 1 - score]]),
        "CLASS_ID": np.array([[0, 1]]),
        "STATUS": np.array([[0]]),
        "EMBEDDING": np.array([[2.0, 0.0]]),
    }
    assert difference(answer, tmp_path) == ""
    for name, changed, said in (
        ("LABEL", [["left", "left"]], "LABEL is [['left', 'left']], offline [['left', 'right']]"),
        ("CLASS_ID", [[1, 0]], "CLASS_ID is [[1, 0]], offline [[0, 1]]"),
        ("STATUS", [[3]], "STATUS [3]"),
        ("EMBEDDING", [[0.0, 2.0]], "LABEL is [['left', 'right']], offline [['right', 'left']]"),
        ("SCORE", [[score + 0.01, 1 - score]], "SCORE is 0.01 apart"),
    ):
        assert difference({**answer, name: np.array(changed)}, tmp_path) == said
    assert difference("500: no", tmp_path) == "500: no"


def test_each_fault_that_reading_nvidias_sources_found_names_tests_or_seeds_that_exist() -> None:
    page = (ROOT / "docs/gpu-proof.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [row[0] for row in rows] == [f"| {number}" for number in range(1, 21)]
    seeds = {defect.name for defect in CORPUS}
    for _, _, found_by in rows:
        tests = re.findall(r"`([\w/]+\.py)::(\w+)`", found_by)
        named = re.findall(r"seed `([\w-]+)`", found_by)
        assert tests or named
        assert seeds.issuperset(named), named
        for file, test in tests:
            assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text(), (file, test)
