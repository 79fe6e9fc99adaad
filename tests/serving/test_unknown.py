"""`unknown` by the distance in the embedding, through the real server in every layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slipway.contract import Decision
from slipway.evaluation.unknown import fit_class_means
from slipway.repository import Classifier, assemble
from slipway.serving import Server
from tests.support.colours import copy_colours
from tests.support.image_files import encode

MEANS_CD = np.array([[0, 0, 200], [0, 160, 0], [220, 0, 0]], np.float32) / 255
"""The embedding of `colours` is the mean colour."""
LAYOUTS = ("steps", "shared_decode", "fused")


def filled(*colour: int) -> bytes:
    return encode(Image.new("RGB", (40, 40), colour), "PNG")


BLUE, RED, WHITE = filled(0, 0, 200), filled(220, 0, 0), filled(255, 255, 255)
PURE_RED = filled(255, 0, 0)  # surer than any image that the network knows, and 35 / 255 away from them
IMAGES = [BLUE, WHITE, RED[:40], PURE_RED, RED]
ANSWERS = [b"blue", b"unknown", b"", b"unknown", b"red"]


def by_distance(folder: Path) -> None:
    means = fit_class_means(MEANS_CD, np.arange(3), classes=3)
    assert means is not None
    unknown = {"score": "embedding", "threshold": -0.1, "class_means": means.model_dump()}
    Decision.parse({"task": "multiclass", "top_k": 2, "unknown": unknown}, source="test").write(
        folder / "decision.json"
    )


@pytest.fixture(scope="module")
def server(start: Callable[[Path], Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("unknown")
    colours = copy_colours(folder / "colours", engine=by_distance, bundle=by_distance)
    probability = copy_colours(folder / "other", spec={"name": "other"})
    classifiers = [
        Classifier(
            colours.bundle,
            colours.engine,
            served_as=f"by_{layout}",
            settings=colours.serving.model_copy(update={"layout": layout}),
        )
        for layout in LAYOUTS
    ]
    repository = folder / "repository"
    assemble([*classifiers, probability], repository, multi={"page": ["by_steps", "other"]})
    return start(repository)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", ["", "_full"])
def test_what_is_far_from_every_class_is_unknown_in_every_layout(
    server: Server, connect: Callable[..., Any], layout: str, suffix: str
) -> None:
    client = connect(server, "grpc")
    answer = client.ask(f"by_{layout}{suffix}", IMAGES)
    assert answer["LABEL"][:, 0].tolist() == ANSWERS
    assert answer["LABEL"][3].tolist() == [b"unknown", b"red"], "the candidate follows"
    assert [status == 0 for status in answer["STATUS"][:, 0]] == [True, True, False, True, True]
    if suffix:
        np.testing.assert_allclose(answer["EMBEDDING"][3], [1, 0, 0], atol=1e-3)
        assert not answer["EMBEDDING"][2].any()
    alone = client.ask(f"by_{layout}{suffix}", [PURE_RED], ["LABEL"])
    assert sorted(alone) == ["LABEL"]
    assert alone["LABEL"][0, 0] == b"unknown"


def test_an_ensemble_of_several_gives_the_embedding_to_whom_it_concerns(
    server: Server, connect: Callable[..., Any]
) -> None:
    together = connect(server, "grpc").ask("page", IMAGES)
    assert together["by_steps.LABEL"][:, 0].tolist() == ANSWERS
    assert together["other.LABEL"][:, 0].tolist()[3] == b"red"
