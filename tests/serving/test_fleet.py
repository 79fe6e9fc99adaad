"""A fleet on a real server: shared steps, an ensemble of several classifiers, and a bound on what may wait."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from slipway.contract import Decision, Lane
from slipway.serving import Ports, Server, serve
from tests.support.colours import configs, copy_colours, replaced
from tests.support.image_files import encode
from tests.support.scripts import run_here

FLEET = """
serving: {max_queue_size: 2}
classifiers:
  colours: {active: {bundle: colours/bundle, engine: [colours/engine]}}
  shades: {active: {bundle: shades/bundle, engine: [shades/engine]}}
multi: {page: [colours, shades]}
"""
PUBLIC = ("LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE")


def filled(*colour: int, size: tuple[int, int] = (60, 50)) -> bytes:
    return encode(Image.new("RGB", size, colour), "PNG")


RED, GREEN, GREY = filled(220, 0, 0), filled(0, 160, 0, size=(200, 150)), filled(128, 128, 128)
LARGE = encode(Image.new("RGB", (1500, 1200), (0, 0, 200)), "JPEG")
IMAGES = [RED, RED[: len(RED) // 2], GREEN, b"", GREY, LARGE]


def another_decision(folder: Path) -> None:
    decision = {"task": "multiclass", "top_k": 3, "temperature": 4.0, "unknown": {"threshold": 0.4}}
    Decision.parse(decision, source="test").write(folder / "decision.json")


def in_another_order(bundle: Path) -> None:
    another_decision(bundle)
    replaced("labels.txt", b"blue\ngreen\nred\n", b"rouge\nvert\nbleu\n")(bundle)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers of one network with different labels and decisions, assembled by the script."""
    folder = tmp_path_factory.mktemp("fleet")
    copy_colours(folder / "colours")
    copy_colours(folder / "shades", spec={"name": "shades"}, bundle=in_another_order, engine=another_decision)
    (folder / "fleet.yaml").write_text(FLEET)
    run_here("assemble", "fleet.yaml", "--out", "repository", cwd=folder)
    return folder / "repository"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with serve(repository, ports=Ports.free()) as server:
        yield server


def test_two_classifiers_and_an_ensemble_over_both_take_four_steps(repository: Path) -> None:
    kinds = [name.split("_")[0] for name in configs(repository) if name.startswith(("preprocess_", "engine_", "post_"))]
    assert sorted(kinds) == ["engine", "post", "post", "preprocess"]
    assert Lane.read(repository / "lane.json").multi == {"page": ("colours", "shades")}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_ensemble_of_both_answers_what_each_answers_alone(
    server: Server, connect: Callable[..., Any], protocol: str
) -> None:
    client = connect(server, protocol)
    together = client.ask("page", IMAGES)
    assert together.keys() == {f"{name}.{tensor}" for name in ("colours", "shades") for tensor in PUBLIC}
    for name in ("colours", "shades"):
        for tensor, array in client.ask(name, IMAGES).items():
            np.testing.assert_array_equal(together[f"{name}.{tensor}"], array)
    assert together["colours.LABEL"][:, 0].tolist() == [b"red", b"", b"green", b"", b"unknown", b"blue"]
    assert together["shades.LABEL"][:, 0].tolist() == [b"bleu", b"", b"vert", b"", b"unknown", b"rouge"]
    assert len({together[f"{name}.BUNDLE"][0, 0] for name in ("colours", "shades")}) == 2


def test_any_of_its_outputs_can_be_asked_for_alone(server: Server, connect: Callable[..., Any]) -> None:
    client = connect(server, "grpc", timeout_s=5)  # a deadlock of the ensemble would be a time-out here
    everything = client.ask("page", IMAGES)
    for subset in (*combinations(everything, 1), ("shades.LABEL", "colours.STATUS")):
        answer = client.ask("page", IMAGES, subset)
        assert sorted(answer) == sorted(subset)
        for name, array in answer.items():
            np.testing.assert_array_equal(array, everything[name])


def flood(server: Server, connect: Callable[..., Any], models: tuple[str, ...], *, timeout_s: float) -> Counter[str]:
    """Sixteen clients at once, for five seconds; every outcome by the end of its message."""
    outcomes: Counter[str] = Counter()
    ends = time.monotonic() + 5
    clients = [connect(server, "grpc", timeout_s=timeout_s) for _ in range(16)]

    def ask(number: int) -> None:
        sent = number
        while time.monotonic() < ends:
            sent += 1
            try:
                clients[number].ask(models[sent % len(models)], [LARGE] * (1 + sent % 3))
                outcome = "answered"
            except InferenceServerException as error:
                outcome = str(error.message()).rpartition("] ")[2]
            outcomes[outcome] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def everybody_is_answered(server: Server, connect: Callable[..., Any]) -> None:
    """At the latest when the requests that nobody waits for any more have been worked off."""
    client, ends = connect(server, "grpc", timeout_s=20), time.monotonic() + 20
    waiting = ["page", "colours", "shades_full"]
    while waiting:
        try:
            answer = client.ask(waiting[0], [RED])
        except InferenceServerException as error:
            if "Exceeds maximum queue size" not in str(error) or time.monotonic() > ends:
                raise
            time.sleep(0.1)
            continue
        assert {status for name, array in answer.items() if "STATUS" in name for status in array[0]} == {0}
        waiting.pop(0)


def test_whoever_finds_the_queue_full_is_refused_at_once_and_everybody_is_answered_afterwards(
    server: Server, connect: Callable[..., Any]
) -> None:
    outcomes = flood(server, connect, ("page", "colours"), timeout_s=20)
    assert outcomes.keys() == {"answered", "Exceeds maximum queue size"}
    assert min(outcomes.values()) > 10
    everybody_is_answered(server, connect)


@pytest.mark.skip(reason="2.51 can end all the same where the first step has a limit (docs/adr/0026)")
def test_clients_that_give_up_do_not_end_the_server(server: Server, connect: Callable[..., Any]) -> None:
    """With parallel branches they did, within seconds: docs/adr/0023."""
    outcomes = flood(server, connect, ("page",), timeout_s=0.05)
    assert outcomes["Deadline Exceeded"] > 10
    assert outcomes.keys() <= {"answered", "Exceeds maximum queue size", "Deadline Exceeded"}
    everybody_is_answered(server, connect)
