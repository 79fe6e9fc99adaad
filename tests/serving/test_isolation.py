"""A bad image never harms another: not in its request, not in a dynamic batch that it shares, not afterwards.

The gpu lane's isolated decoder runs here on the CPU; see `tests.support.gpu_on_cpu`.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, local
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from slipway.steps.engine_openvino import Engine
from slipway.steps.guard import CORRUPT, OK, inspect
from slipway.steps.normalize import normalize
from slipway.steps.postprocess import Postprocessor
from slipway.steps.preprocess import Preprocessor
from tests.support.bad_images import Case, corpus
from tests.support.gpu_on_cpu import gpu_lane_on_the_cpu
from tests.support.image_files import JUDGED_BY_DECODER, encode, good_images

BUNDLE = Path(__file__).parents[1] / "assets" / "colours" / "bundle"
EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
LANES = ["cpu lane", "gpu lane"]

LABELS = (b"blue", b"green", b"red")
COLOURS = ((0, 0, 200), (0, 160, 0), (220, 0, 0))
SIZES = ((48, 48), (90, 60), (512, 384), (64, 101), (300, 300), (33, 57), (240, 180))
CASES = corpus()
TRUNCATED = next(case for case in CASES if case.name == "JPEG cut at 50 %")


def coloured(index: int) -> bytes:
    """An image whose right answer is `LABELS[index % 3]`; another size and format for each of seven."""
    image = Image.new("RGB", SIZES[index % 7], COLOURS[index % 3])
    return encode(image, ("PNG", "JPEG", "WEBP")[index // 3 % 3])


GOOD = [coloured(index) for index in range(7)]


def among_good(bad: bytes, position: int) -> list[bytes]:
    return [*GOOD[:position], bad, *GOOD[position:]]


def check(answers: list[tuple[Any, ...]], position: int, expected: frozenset[int]) -> None:
    """`answers` are (STATUS, LABEL, SCORE, CLASS_ID) of `among_good(…, position)`."""
    status, *_ = answers.pop(position)
    assert status in expected
    assert [(status, label) for status, label, *_ in answers] == [(OK, LABELS[index % 3]) for index in range(7)]
    assert all(score > 0.5 for _, _, score, _ in answers)


def rows(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (int(status), label, float(score), int(class_id))
        for status, label, score, class_id in zip(
            answer["STATUS"][:, 0], answer["LABEL"][:, 0], answer["SCORE"][:, 0], answer["CLASS_ID"][:, 0], strict=True
        )
    ]


def repository_of(lane: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return EXAMPLE if lane == "cpu lane" else gpu_lane_on_the_cpu(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="module", params=LANES)
def lane_server(
    request: pytest.FixtureRequest, start: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    return start(repository_of(request.param, tmp_path_factory))


@pytest.fixture(scope="module", params=["steps", "shared_decode", "fused", "isolated"])
def merging_server(
    request: pytest.FixtureRequest,
    start: Callable[[Path], Any],
    assemble_colours: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """Holds requests back for up to a second, so that eight of one image each become one dynamic batch."""
    if request.param == "isolated":
        gpu = {"max_batch_size": 8, "max_queue_delay_us": 1_000_000}
        return start(gpu_lane_on_the_cpu(tmp_path_factory.mktemp("merging"), gpu=gpu))
    serving = {"layout": request.param, "max_queue_delay_us": 1_000_000, "instances": 1}
    return start(assemble_colours(tmp_path_factory.mktemp("merging"), serving=serving))


Merged = Callable[[list[bytes]], list[tuple[Any, ...]]]


@pytest.fixture
def merged(merging_server: Any, connect: Callable[..., Any]) -> Merged:
    """Sends eight requests of one image each, at once, and proves by the server's statistics that it made them one."""
    clients = [connect(merging_server, "grpc") for _ in range(8)]

    def statistics() -> tuple[int, Counter[int]]:
        models = clients[0].triton.get_inference_statistics(client_timeout=20).model_stats
        (first,) = (model for model in models if model.name.startswith(("preprocess_", "fused_")))
        return first.execution_count, Counter(
            {batch.batch_size: batch.compute_infer.count for batch in first.batch_stats}
        )

    def settled() -> tuple[int, Counter[int]]:
        """Triton counts an execution when its answers are already under way."""
        seen = statistics()
        while True:
            time.sleep(0.2)
            before, seen = seen, statistics()
            if seen == before:
                return seen

    def merged(images: list[bytes]) -> list[tuple[Any, ...]]:
        executions, batches = settled()
        barrier = Barrier(8)

        def ask(client: Any, image: bytes) -> tuple[Any, ...]:
            barrier.wait(timeout=10)
            return rows(client.ask("colours", [image]))[0]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, clients, images))
        after_executions, after_batches = settled()
        assert after_executions - executions == 1
        assert after_batches - batches == Counter({8: 1}), "the eight requests were one batch"
        return answers

    return merged


@pytest.mark.parametrize("position", [0, 4, 7])
def test_one_truncated_image_in_a_dynamic_batch_leaves_seven_right_answers(merged: Merged, position: int) -> None:
    answers = merged(among_good(TRUNCATED.data, position))
    assert answers[position] == (CORRUPT, b"", 0.0, -1)
    check(answers, position, frozenset({CORRUPT}))


@pytest.mark.parametrize("position", [0, 4, 7])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_one_truncated_image_in_a_request_leaves_seven_right_answers(
    lane_server: Any, connect: Callable[..., Any], protocol: str, position: int
) -> None:
    answers = rows(connect(lane_server, protocol).ask("colours", among_good(TRUNCATED.data, position)))
    assert answers[position] == (CORRUPT, b"", 0.0, -1)
    check(answers, position, frozenset({CORRUPT}))


def test_images_that_only_the_decoder_refuses_harm_none_of_their_dynamic_batch(
    merged: Merged, own_server: Any, connect: Callable[..., Any]
) -> None:
    client = connect(own_server, "grpc")
    judged = [case for case in CASES if case.expected == JUDGED_BY_DECODER]
    refused = [case for case in judged if rows(client.ask("colours", [case.data]))[0][0] == CORRUPT]
    assert len(refused) >= 2, "some of these the decoder has to refuse, or nothing is tested here"
    assert all(inspect(case.data) == OK for case in refused), "the guard lets them through"
    for case in refused:
        check(merged(among_good(case.data, 3)), 3, frozenset({CORRUPT}))
    # Several of them, apart and side by side: the batch is halved until each stands alone.
    first, second = refused[0].data, refused[1].data
    answers = merged([first, GOOD[0], second, second, GOOD[1], GOOD[2], first, GOOD[3]])
    bad = {0, 2, 3, 6}
    assert [status for status, *_ in answers] == [CORRUPT if index in bad else OK for index in range(8)]
    assert [label for _, label, *_ in answers] == [b"", b"blue", b"", b"", b"green", b"red", b"", b"blue"]


def test_a_dynamic_batch_of_bad_images_only_is_answered_and_the_next_is_right(merged: Merged) -> None:
    names = ("nothing", "text", "JPEG cut at SOI", "PNG of 100k x 100k", "BMP cut", "JPEG cut at 99 %", "GIF", "zeros")
    bad = [next(case for case in CASES if case.name == name) for name in names]
    answers = merged([case.data for case in bad])
    for case, answer in zip(bad, answers, strict=True):
        assert answer[0] in case.expected, case.name
        assert answer[1:] == (b"", 0.0, -1), case.name
    check(merged(among_good(TRUNCATED.data, 2)), 2, frozenset({CORRUPT}))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_of_bad_images_only_is_answered_and_the_next_is_right(
    lane_server: Any, connect: Callable[..., Any], protocol: str
) -> None:
    client = connect(lane_server, protocol)
    bad = [case for case in CASES if OK not in case.expected and len(case.data) < 1_000_000]
    for at in range(0, len(bad), 8):
        for case, answer in zip(
            bad[at : at + 8], rows(client.ask("colours", [c.data for c in bad[at : at + 8]])), strict=True
        ):
            assert answer[0] in case.expected, case.name
            assert answer[1:] == (b"", 0.0, -1), case.name
    assert rows(client.ask("colours", [GOOD[2]]))[0][:2] == (OK, b"red")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_kind_of_image_gets_its_status_and_its_neighbours_their_answers(
    lane_server: Any, connect: Callable[..., Any], case: Case, protocol: str
) -> None:
    client = connect(lane_server, protocol)
    ((status, label, score, class_id),) = rows(client.ask("colours", [case.data]))
    assert status in case.expected
    if status == OK:
        assert label in (*LABELS, b"unknown")
        assert score > 0
    else:
        assert (label, score, class_id) == (b"", 0.0, -1)
    check(rows(client.ask("colours", among_good(case.data, 5))), 5, frozenset({status}))
    assert rows(client.ask("colours", [GOOD[1]]))[0][:2] == (OK, b"green")


@pytest.mark.parametrize("lane", LANES)
def test_1000_requests_with_100_bad_ones_harm_no_good_one_and_leave_memory_flat(
    lane: str,
    start: Callable[[Path], Any],
    connect: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = start(repository_of(lane, tmp_path_factory))  # fresh: nothing has grown yet
    images, expected = _mixture(200)
    mine, clients = local(), [connect(server, "grpc") for _ in range(4)]

    def ask(index: int) -> tuple[Any, ...]:
        if not hasattr(mine, "client"):
            mine.client = clients.pop()
        return rows(mine.client.ask("colours", [images[index]]))[0]

    memory_mib, shared = [], []
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for index, answer in enumerate(pool.map(ask, range(200))):
                status, label, score = expected[index]
                assert answer[:2] == (status, label), f"image {index}"
                assert answer[2] == pytest.approx(score, abs=1e-4), f"image {index}"
            memory_mib.append(_resident_mib(server.process.pid))
            shared.append(_shared_memory())
    with capsys.disabled():
        print(f"\n  {lane}: resident after each 200 requests: {', '.join(f'{mib:.1f}' for mib in memory_mib)} MiB")
    assert shared[0], "the stubs' regions are seen"
    assert shared[-1] == shared[0]
    # Allocators go on settling for a while; a leak of one 40 kB image a request would be 31 MiB.
    assert memory_mib[-1] <= memory_mib[0] * 1.03 + 4


def _mixture(count: int) -> tuple[list[bytes], list[tuple[int, bytes, float]]]:
    """`count` images of mixed sizes and formats, each tenth bad, and the answer of the three steps in this process."""
    refused = [case for case in CASES if OK not in case.expected and len(case.data) < 1_000_000]
    rng = np.random.default_rng(0)
    bad = [refused[index].data for index in rng.permutation(len(refused))[: count // 10]]
    good = [
        coloured(index) if index % 2 else photo for index, photo in enumerate(good_images(count - len(bad), seed=0))
    ]
    images = [bad.pop() if index % 10 == 5 else good.pop() for index in range(count)]
    config = json.loads((BUNDLE / "preprocess.json").read_text())
    preprocessor = Preprocessor(config, max_batch_size=8, threads=1)
    engine = Engine(BUNDLE / "model.onnx", arithmetic="f32", threads=1)
    postprocessor = Postprocessor(json.loads((BUNDLE / "decision.json").read_text()), [x.decode() for x in LABELS])
    expected = []
    for image in images:
        pixels_nhwc_u8, status_n = preprocessor.run([image])
        answers = postprocessor.run(engine.run(normalize(pixels_nhwc_u8, config))[0], status_n)
        expected.append((int(answers.status_n[0]), bytes(answers.label_nk[0, 0]), float(answers.score_nk[0, 0])))
    assert [status != OK for status, *_ in expected] == [index % 10 == 5 for index in range(count)]
    return images, expected


def _resident_mib(pid: int) -> float:
    server = psutil.Process(pid)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True))) / 2**20


def _shared_memory() -> dict[str, int]:
    return {path.name: path.stat().st_size for path in Path("/dev/shm").glob(f"slipway_{os.getpid()}_*")}
