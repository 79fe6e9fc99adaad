"""What serving is measured by gives the answers that are served; both scripts on the real server, in small."""

import asyncio
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.studies.efficiency.sides import AUTO, HALVED, PLAIN, POOL, Side, all_sides, work_of
from slipway.benchmark import pool as pool_module
from slipway.benchmark.pool import Pool, Work, WorkerAnswer
from slipway.contract import Bundle, GateError
from slipway.contract.serving import settle
from slipway.repository import Classifier
from tests.support.choices import write_only_choice
from tests.support.colours import COLOURS, copy_colours
from tests.support.load_tools import colour_images
from tests.support.scripts import run_script, run_study

IMAGES = 20
ENGINE = "openvino-fp32"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_images(tmp_path_factory.mktemp("efficiency") / "images")


@pytest.fixture
def colours(tmp_path: Path) -> Classifier:
    chosen = copy_colours(tmp_path / "colours")
    return replace(chosen, settings=settle(chosen.serving, cores=2, classifiers=1))


@pytest.fixture
def work(colours: Classifier, images: Path) -> Work:
    encoded = [path.read_bytes() for path in sorted(images.iterdir())]
    return work_of(colours, encoded, colours.serving.model_copy(update={"preferred_batch_size": 4}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of colours, with the engine that was chosen."""
    folder = tmp_path / "run"
    shutil.copytree(COLOURS / "bundle", folder / "bundle")
    shutil.copytree(COLOURS / "engine", folder / "engines" / ENGINE)
    write_only_choice(folder / "engines" / ENGINE, bundle=Bundle.open(folder / "bundle").id)
    return folder


def kept(side: Side) -> list[list[int]]:
    """The cores of each of its processes but tritonserver."""
    family = [psutil.Process(side.pid), *psutil.Process(side.pid).children(recursive=True)]
    return [process.cpu_affinity() for process in family if process.name() != "tritonserver"]


@pytest.mark.nightly
def test_every_side_gives_the_same_answers_and_a_pinned_instance_keeps_to_a_core_of_its_own(
    colours: Classifier, work: Work, tmp_path: Path
) -> None:
    cores = os.sched_getaffinity(0)
    encoded = (work.images * IMAGES)[:IMAGES]
    found: dict[str, list[tuple[int, float]]] = {}

    async def ask(side: str) -> None:
        async with sides[side].connect() as connection:
            for answer in [await connection.answer(image, deadline_s=20) for image in range(IMAGES)]:
                assert not isinstance(answer, str), (side, answer)
                best = (
                    answer.class_id
                    if isinstance(answer, WorkerAnswer)
                    else colours.bundle.labels.index(answer.label.decode())
                )
                found.setdefault(side, []).append((best, round(answer.score, 5)))

    serving = colours.serving.model_copy(update={"instances": 2, "pinned": True})
    with all_sides(colours, encoded, serving, tmp_path, batches=[2], former=None) as candidates:
        sides = {kind: side for kind, of_kind in candidates.items() for side in of_kind.values()}
        for side in sides:
            asyncio.run(ask(side))
        for kind in (POOL, AUTO):
            assert [len(of_instance) for of_instance in kept(sides[kind])] == [1, 1], kind
            assert len({core for (core,) in kept(sides[kind])}) == min(2, len(cores)), kind
        assert all(set(of_instance) == cores for of_instance in kept(sides[PLAIN]))
    assert set(found) == {POOL, *HALVED, AUTO, PLAIN}
    assert all(answers == found[POOL] for answers in found.values())
    assert len({best for best, _ in found[POOL]}) == 3


def test_a_pool_answers_all_that_wait_each_with_its_own(work: Work) -> None:
    async def ask() -> list[WorkerAnswer | str]:
        async with pool.connect() as connection:
            order = [number % len(work.images) for number in range(300)]
            return await asyncio.gather(*(connection.answer(image, deadline_s=60) for image in order))

    with Pool(work, workers=2) as pool:
        answers = asyncio.run(ask())
    classes = [answer.class_id for answer in answers if isinstance(answer, WorkerAnswer)]
    assert classes == [number % len(work.images) // 3 for number in range(300)]  # blue, green, red; three of each


def test_a_pool_that_is_asked_for_too_much_times_out_and_goes_on(work: Work) -> None:
    async def ask() -> tuple[WorkerAnswer | str, WorkerAnswer | str]:
        async with pool.connect() as connection:
            late = await connection.answer(0, deadline_s=0.05)
            os.kill(pool.pid, signal.SIGCONT)
            return late, await connection.answer(1, deadline_s=20)

    with Pool(work, workers=1) as pool:
        os.kill(pool.pid, signal.SIGSTOP)  # its only worker: nothing is answered until it goes on
        late, answer = asyncio.run(ask())
    assert late == "timed out"
    assert isinstance(answer, WorkerAnswer)


def test_a_worker_that_ends_is_no_silent_loss(work: Work) -> None:
    async def ask() -> WorkerAnswer | str:
        async with pool.connect() as connection:
            return await connection.answer(len(work.images), deadline_s=20)  # there is no such image

    with pytest.raises(GateError, match="ended with exit code 1"), Pool(work, workers=1) as pool:
        assert asyncio.run(ask()) == "no worker"


def test_a_pool_that_hangs_is_killed_and_said_so(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "END_S", 0.2)
    with pytest.raises(GateError, match=r"exit code -9 \(killed: it hung"), Pool(work, workers=2) as pool:
        os.killpg(pool.pid, signal.SIGSTOP)
    monkeypatch.setattr(pool_module, "READY_S", 0.0)
    with pytest.raises(GateError, match=r"only 0 of 2 workers .* no other within 0 s"), Pool(work, workers=2):
        pass


def test_a_pool_that_cannot_start_says_so(work: Work, tmp_path: Path) -> None:
    broken = Work(**{**vars(work), "graph": tmp_path / "missing.onnx"})
    with pytest.raises(GateError, match="before it was ready"), Pool(broken, workers=2):
        pass


@pytest.mark.nightly
def test_efficiency_measures_all_sides_and_says_where_the_time_goes(run: Path, images: Path, tmp_path: Path) -> None:
    sizes = (
        "--quick",
        "--rounds",
        "1",
        "--requests",
        "20",
        "--start",
        "40",
        "--limit-ms",
        "900",
        "--batches",
        "1",
        "2",
    )
    done = run_study("efficiency", "--run", run, "--images", images, *sizes, "--json", cwd=tmp_path)
    result = json.loads(done.stdout.splitlines()[-1])
    found = result["classifiers"]["colours"]
    assert set(found["capacity_per_s"]) == {POOL, *HALVED, AUTO, PLAIN}
    assert all(found["share_of_pool"][layout]["mean"] > 0 for layout in (*HALVED, AUTO))
    assert found["auto_to_plain"]["mean"] > 0
    for side, steps in {POOL: 3, "steps": 3, "shared_decode": 2, AUTO: 1, PLAIN: 3}.items():
        parts = found["one_by_one_ms"][side]
        assert sum(part.endswith(" infer") for part in parts) == steps
        assert parts["client"] > sum(ms for part, ms in parts.items() if part.endswith(" infer")) / 2
        spent_ms = found["processor_ms"][side]
        # A waiting image spends nothing, so only more than the machine's cores could is wrong.
        assert min(spent_ms.values()) > 0
        assert sum(spent_ms.values()) < 4 * parts["client"]
    assert set(found["tail"]) == {POOL, AUTO}
    assert all(tail["ratio"] == tail["p99_ms"] / tail["p50_ms"] >= 1 for tail in found["tail"].values())
    assert set(found["batches"].values()) <= {"batches up to 1", "batches up to 2", "batches up to 8"}
    rounds = [block for block in found["blocks"] if block["stage"] == "round"]
    met = [(block["round"], block["rate_per_s"], block["offered_per_s"]) for block in rounds]
    for number, rate_per_s, offered_per_s in met:  # the same arrivals for all
        assert {offered for *at, offered in met if at == [number, rate_per_s]} == {offered_per_s}


@pytest.mark.nightly
def test_tune_measures_with_the_gate_and_leaves_a_run_alone_when_dry(run: Path, images: Path, tmp_path: Path) -> None:
    evidence = tmp_path / "evidence.json"
    options = ("--start", "400", "--limit-ms", "900", "--minutes", "0", "--requests", "459", "--dry-run")
    done = run_script("benchmarks/tune.py", run, "--images", images, *options, "--out", evidence, cwd=tmp_path)
    result = json.loads(evidence.read_text())
    assert "KEPT: nothing better was found" in done.stdout
    assert not result["search"]["complete"]
    assert result["measurements"][0]["blocks"][0]["requests"] == 459
    assert result["measurements"][0]["steps"][0]["model"] == "colours"
    assert not (run / "fleet.yaml").exists()
