"""Heads on one base, on the real server: every head answers as its weights say, alone, in company and in a multi."""

import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from slipway.client import Client
from slipway.contract.base_bundle import Base
from slipway.engines.base_engines import run_of
from slipway.repository import assemble
from slipway.repository import heads as heads_of_a_base
from slipway.repository.fleet import open_base
from slipway.serving import Server
from slipway.steps.postprocess import Answers, Postprocessor
from slipway.steps.preprocess import Preprocessor
from tests.support.heads import head_of, open_heads, write_base, write_heads
from tests.support.journals import until
from tests.support.load_tools import colour_images

COUNT, GROUP = 80, 32
"""Heads, and how many of them a group has on average: there are four."""
SOME = [f"h{index:04}" for index in (0, 1, 40, 79)]
"""Heads in several groups."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def heads(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_heads(tmp_path_factory.mktemp("heads"), base, COUNT)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = colour_images(tmp_path_factory.mktemp("images") / "colours")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def server(
    base: Path, heads: list[Path], start: Callable[[Path], Server], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    repository = tmp_path_factory.mktemp("served") / "repository"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads_of_a_base, "GROUP", GROUP)
        assemble([], repository, bases=open_heads(base, heads), multi={"some": SOME})
    assert len(list(repository.glob("heads_*"))) == 4
    return start(repository)


def offline(base: Path, run: Path, images: list[bytes]) -> Answers:
    """What the base's engine, the head and its decision say without a server."""
    served = open_base(base)
    bundle, head = head_of(run)
    preprocessor = Preprocessor(Base.open(base / "base").preprocess.model_dump(), max_batch_size=16, threads=1)
    pixels_nhwc_u8, status_n = preprocessor.run(images)
    _, embedding_nd = run_of(served.engine, threads=1)(pixels_nhwc_u8)
    return Postprocessor(bundle.decision.model_dump(), bundle.labels).run(
        head.run(embedding_nd), status_n, embedding_nd
    )


def test_every_head_answers_as_it_does_offline(
    base: Path, heads: list[Path], images: list[bytes], server: Server
) -> None:
    differ = []
    for run in heads:
        expected = offline(base, run, images)
        with Client(f"grpc://{server.grpc_url}", model=run.name) as client:
            answers = list(client.classify_many(images, full=True))
        for row, answer in enumerate(answers):
            assert answer.probability is not None
            assert answer.embedding is not None
            near = np.allclose(answer.probability, expected.probability_nc[row], atol=1e-5)
            if (answer.label or "").encode() != expected.label_nk[row, 0] or not near:
                differ.append((run.name, row, answer.label, expected.label_nk[row, 0]))
        assert {answer.bundle for answer in answers} == {head_of(run)[0].id}
    assert not differ


def test_a_refused_image_harms_no_neighbour_and_has_an_embedding_of_zeros(images: list[bytes], server: Server) -> None:
    with Client(f"grpc://{server.grpc_url}", model="h0000") as client:
        good, refused, other = client.classify_many([images[0], b"no image", images[1]], full=True)
    assert (good.status_name, refused.status_name, other.status_name) == ("ok", "unsupported format", "ok")
    assert refused.label is None
    assert refused.embedding is not None
    assert not refused.embedding.any()
    assert good.embedding is not None
    assert good.embedding.any()


def test_one_request_has_the_answers_of_several_heads_in_several_groups(images: list[bytes], server: Server) -> None:
    outputs = [triton.InferRequestedOutput(f"{name}.{tensor}") for name in SOME for tensor in ("LABEL", "SCORE")]
    sent = triton.InferInput("IMAGE", [1, 1], "BYTES")
    sent.set_data_from_numpy(np.array([[images[0]]], np.object_))
    with triton.InferenceServerClient(server.grpc_url) as client:
        together = client.infer("some", [sent], outputs=outputs)
        for name in SOME:
            alone = client.infer(name, [sent])
            for tensor in ("LABEL", "SCORE"):
                assert together.as_numpy(f"{name}.{tensor}").tolist() == alone.as_numpy(tensor).tolist(), name


def test_triton_counts_the_requests_of_each_head_under_its_name(images: list[bytes], server: Server) -> None:
    def counted() -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        return {
            name: int(number)
            for name, number in re.findall(r'^nv_inference_request_success{model="(h\d+)",.*} (\d+)$', text, flags=re.M)
        }

    # Triton counts after it has answered: the last answers of the test before may still be missing.
    before: dict[str, int] = {}
    while before != (now := counted()):
        before = now
        time.sleep(0.2)
    assert len(before) == COUNT
    with Client(f"grpc://{server.grpc_url}", model="h0040") as client:
        assert all(client.classify(image).ok for image in images[:3])
    until(lambda: counted()["h0040"] >= before["h0040"] + 3)  # Triton counts after it answered
    assert counted() == before | {"h0040": before["h0040"] + 3}
