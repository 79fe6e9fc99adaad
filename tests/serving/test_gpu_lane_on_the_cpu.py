"""The gpu lane in a real tritonserver without a GPU, with both of its decoders; see `tests.support.gpu_on_cpu`."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slipway.repository import assemble
from slipway.repository import heads as heads_of_a_base
from slipway.serving import Ports, Server, serve
from slipway.steps.guard import CORRUPT, EMPTY, OK, UNSUPPORTED
from tests.support.gpu_on_cpu import fallback_on_the_cpu, gpu_lane_on_the_cpu, heads_on_the_cpu
from tests.support.heads import open_heads
from tests.support.image_files import encode, good_images


@pytest.fixture(scope="module", params=["isolated", "native"])
def gpu_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    gpu = {"decode": request.param, "max_queue_delay_us": 100_000}
    with serve(gpu_lane_on_the_cpu(tmp_path_factory.mktemp("gpu"), gpu=gpu), ports=Ports.free()) as server:
        yield server


def filled(*colour: int, size: tuple[int, int], kind: str = "PNG") -> bytes:
    return encode(Image.new("RGB", size, colour), kind)


RED = filled(220, 0, 0, size=(600, 500), kind="JPEG")
GREEN, BLUE = filled(0, 160, 0, size=(20, 30)), filled(0, 0, 200, size=(64, 40), kind="WEBP")
CUT = RED[: len(RED) // 2]


@pytest.mark.parametrize("model", ["colours", "colours_full"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_images_of_any_format_and_size_are_answered_and_bad_ones_get_their_status(
    gpu_server: Server, connect: Callable[..., Any], model: str, protocol: str
) -> None:
    answer = connect(gpu_server, protocol, timeout_s=10).ask(model, [RED, CUT, GREEN, b"", BLUE, b"<svg/>"])
    assert answer["STATUS"][:, 0].tolist() == [OK, CORRUPT, OK, EMPTY, OK, UNSUPPORTED]
    assert answer["LABEL"][:, 0].tolist() == [b"red", b"", b"green", b"", b"blue", b""]


def test_any_of_the_outputs_can_be_asked_for_alone(gpu_server: Server, connect: Callable[..., Any]) -> None:
    client = connect(gpu_server, "grpc", timeout_s=5)  # a deadlock of the ensemble would be a time-out here
    everything = client.ask("colours_full", [RED, CUT, GREEN])
    for subset in (*combinations(everything, 1), ("LABEL", "EMBEDDING")):
        answer = client.ask("colours_full", [RED, CUT, GREEN], subset)
        assert sorted(answer) == sorted(subset)
        for name, array in answer.items():
            np.testing.assert_array_equal(array, everything[name])


def test_both_lanes_give_the_same_answers(
    gpu_server: Server, example_server: Server, connect: Callable[..., Any]
) -> None:
    images = [*good_images(6, seed=21), CUT]
    cpu, gpu = (connect(server, "grpc").ask("colours_full", images) for server in (example_server, gpu_server))
    assert cpu.keys() == gpu.keys()
    for name in cpu.keys() - {"BUNDLE"}:
        if cpu[name].dtype == np.float32:  # the native form decodes large JPEGs in full
            np.testing.assert_allclose(gpu[name], cpu[name], atol=1e-3)
        else:
            np.testing.assert_array_equal(gpu[name], cpu[name])


def test_requests_of_different_sizes_share_a_batch_of_the_decoder(
    gpu_server: Server, connect: Callable[..., Any]
) -> None:
    """In the native form without the ragged input they never would."""
    client = connect(gpu_server, "grpc")

    def decode() -> Any:
        statistics = client.triton.get_inference_statistics().model_stats
        return next(model for model in statistics if model.name.startswith(("decode_", "preprocess_")))

    before = decode()
    images = [filled(220, 0, 0, size=(20 + 9 * n, 30 + 5 * n)) for n in range(8)]
    assert len({len(image) for image in images}) > 4
    with ThreadPoolExecutor(len(images)) as pool:
        labels = list(pool.map(lambda image: client.ask("colours", [image], ["LABEL"])["LABEL"][0, 0], images))
    after = decode()
    assert labels == [b"red"] * 8
    assert after.inference_count - before.inference_count == 8
    assert after.execution_count - before.execution_count < 8


def test_without_a_plan_the_ensembles_answer_as_on_the_cpu_lane(
    example_server: Server, connect: Callable[..., Any], tmp_path: Path
) -> None:
    images = [*good_images(6, seed=22), CUT]
    with serve(fallback_on_the_cpu(tmp_path), ports=Ports.free()) as server:
        cpu, gpu = (connect(each, "grpc").ask("colours_full", images) for each in (example_server, server))
    assert cpu.keys() == gpu.keys()
    for name in cpu.keys() - {"BUNDLE"}:
        if cpu[name].dtype == np.float32:
            np.testing.assert_allclose(gpu[name], cpu[name], rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(gpu[name], cpu[name])


HEADS, NAMES = 8, [f"h{number:04}" for number in range(8)]


@pytest.fixture(scope="module", params=["isolated", pytest.param("native", marks=pytest.mark.nightly)])
def heads_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    """Heads of one base in two groups or more: the gpu lane played, and the cpu lane."""
    folder = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads_of_a_base, "GROUP", 4)
        gpu = heads_on_the_cpu(folder, heads=HEADS, decode=request.param, max_batch_size=8)
        opened = open_heads(folder / "base", [folder / "heads" / name for name in NAMES])
        assemble([], folder / "cpu", bases=opened, multi={"all": NAMES})
    assert len(list(gpu.glob("heads_*"))) >= 2
    with serve(gpu, ports=Ports.free()) as played, serve(folder / "cpu", ports=Ports.free()) as cpu:
        yield played, cpu


def test_heads_of_a_base_answer_as_on_the_cpu_lane_whatever_is_asked_for(
    heads_servers: tuple[Server, Server], connect: Callable[..., Any]
) -> None:
    images = [RED, CUT, GREEN, b"", BLUE]
    gpu, cpu = (connect(server, "grpc", timeout_s=10) for server in heads_servers)
    for name in NAMES:
        found, expected = (client.ask(f"{name}_full", images) for client in (gpu, cpu))
        assert found.keys() == expected.keys()
        assert found["STATUS"][:, 0].tolist() == [OK, CORRUPT, OK, EMPTY, OK]
        assert not found["EMBEDDING"][[1, 3]].any(), "a refused image has none"
        assert found["EMBEDDING"][[0, 2, 4]].any(axis=1).all()
        assert not found["PROBABILITY"][[1, 3]].any()
        for tensor in found:
            if found[tensor].dtype == np.float32:  # the native form decodes large JPEGs in full
                np.testing.assert_allclose(found[tensor], expected[tensor], atol=0.05, err_msg=f"{name}.{tensor}")
            else:
                np.testing.assert_array_equal(found[tensor], expected[tensor], err_msg=f"{name}.{tensor}")
    everything = gpu.ask("h0003_full", images)
    for subset in (("EMBEDDING",), ("LABEL",), ("STATUS",), ("PROBABILITY",), ("LABEL", "EMBEDDING")):
        answer = gpu.ask("h0003_full", images, subset)  # a deadlock of the ensemble would be a time-out here
        assert sorted(answer) == sorted(subset)
        for tensor, array in answer.items():
            np.testing.assert_array_equal(array, everything[tensor])


def test_one_forward_answers_for_heads_of_several_groups(
    heads_servers: tuple[Server, Server], connect: Callable[..., Any]
) -> None:
    client, images = connect(heads_servers[0], "grpc", timeout_s=10), [RED, CUT, BLUE]
    together = client.ask("all", images)
    for name in NAMES:
        for tensor, array in client.ask(name, images).items():
            np.testing.assert_array_equal(together[f"{name}.{tensor}"], array)
