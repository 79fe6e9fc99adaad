"""Tap files of a real Envoy, and such as no Envoy writes: read right, or refused with a kind."""

import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from slipway.operations.gateway.listener import listener
from slipway.operations.gateway.settings import read_settings
from slipway.operations.gateway.tap import TAP_FILTER
from slipway.operations.journal.tapped import TapError, read_tapped
from tests.support.gateways import KEYS, write_gateway
from tests.support.taps import BUNDLE, answer_of, changed, framed, recorded, set_header
from tests.support.v2_requests import RED, element

CANDIDATES = (("red", "blue"), (0.9995557069778442, 0.00022215580975171179), (2, 0))


@pytest.mark.parametrize(
    ("name", "model", "client_id", "images"),
    [
        ("grpc_three_images", "colours", "three.0", (RED, b"not an image", RED)),
        ("grpc_full", "colours_full", "mine.0", (RED,)),
        ("http_compressed", "colours", "http.0", (RED, b"not an image")),
        ("http_raw", "colours", "", (RED,)),
    ],
)
def test_a_recorded_request_has_its_images_and_their_answers(
    name: str, model: str, client_id: str, images: tuple[bytes, ...]
) -> None:
    tapped = read_tapped(recorded(name))
    assert (tapped.model, tapped.client_id, tapped.images) == (model, client_id, images)
    assert (tapped.arm, tapped.sampled_with) == ("stable", 1.0)
    assert tapped.time_s is not None
    assert list(tapped.answers) == ["colours"]
    for image, served in zip(images, tapped.answers["colours"], strict=True):
        labels, scores, class_ids = CANDIDATES if image == RED else ((), (), ())
        assert (served.labels, served.scores, served.class_ids) == (labels, scores, class_ids)
        assert (served.status, served.bundle) == (0 if image == RED else 2, BUNDLE)


def test_what_the_client_did_not_ask_for_is_none() -> None:
    (served,) = read_tapped(recorded("grpc_label_alone")).answers["colours"]
    assert (served.labels, served.scores, served.status, served.bundle) == (("red", "blue"), None, None, None)
    (served,) = read_tapped(recorded("http_json_answer")).answers["colours"]
    assert (served.labels, served.class_ids, served.status, served.bundle) == (("red", "blue"), None, 0, BUNDLE)


@pytest.mark.parametrize("name", ["grpc_failed", "http_failed"])
def test_a_request_without_an_answer_is_called_failed(name: str) -> None:
    assert kind(recorded(name)) == "failed"


@pytest.mark.parametrize("name", ["grpc_three_images", "http_compressed"])
def test_no_beginning_of_a_tap_file_is_taken_for_the_whole(name: str) -> None:
    whole = recorded(name)
    assert {kind(whole[:length]) for length in range(len(whole))} == {"unfinished"}


@pytest.mark.parametrize("name", ["grpc_three_images", "http_compressed", "http_json_answer", "http_raw"])
def test_a_damaged_file_is_refused_or_read_and_never_an_error_of_python(name: str) -> None:
    whole, draw = recorded(name), random.Random(22)
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 8))):
            content[draw.randrange(len(content))] = draw.randrange(256)
        assert kind(bytes(content)) in {"fine", "unfinished", "unreadable", "failed", "truncated"}


def test_an_ensemble_for_several_classifiers_gives_answers_of_each() -> None:
    tap = changed("grpc_full")
    names = {"cats": b"cat", "dogs": b"dog"}
    outputs = {f"{name}.LABEL": ("BYTES", (1, 2), element(label) + element(b"")) for name, label in names.items()}
    status = {f"{name}.STATUS": ("INT32", (1, 1), struct.pack("<i", 0)) for name in names}
    tap.http_buffered_trace.response.body.as_bytes = answer_of(outputs | status)
    answers = read_tapped(tap.SerializeToString()).answers
    assert {name: (served.labels, served.status) for name, (served,) in answers.items()} == {
        "cats": (("cat",), 0),
        "dogs": (("dog",), 0),
    }


def test_fields_of_a_newer_envoy_are_passed_over_and_another_kind_of_trace_is_not_read() -> None:
    newer = changed("http_raw")
    inside = newer.http_buffered_trace.SerializeToString() + b"\xa2\x06\x03new"
    content = b"\x0a" + _varint(len(inside)) + inside
    assert read_tapped(content).images == (RED,)
    assert kind(b"\x12" + content[1:]) == "unfinished"


def test_a_body_beyond_the_buffer_is_called_truncated() -> None:
    tap = changed("http_raw")
    tap.http_buffered_trace.request.body.truncated = True
    assert kind(tap.SerializeToString()) == "truncated"


@pytest.mark.parametrize("given", [None, "", "nan", "0", "-1", "1.5", "much"])
def test_a_file_without_its_probability_is_not_taken_in(given: str | None) -> None:
    tap = changed("http_raw")
    set_header(tap.http_buffered_trace.request, "slipway-sampled", given)
    assert kind(tap.SerializeToString()) == "unreadable"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0\0\x05abc",
        b"\1\0\0\0\0",
        framed(changed("http_raw")),
        answer_of({"LABEL": ("BYTES", (1, 2), struct.pack("<I", 2**31) + b"x")}),
        answer_of({"LABEL": ("FP16", (1, 2), b"ab")}),
        answer_of({"LABEL": ("BYTES", (1, 2), element(b"\xff\xfe"))}),
        answer_of({"STATUS": ("INT32", (1, 1), b"")}),
        answer_of({}),
    ],
)
def test_an_answer_that_no_server_gives_is_unreadable(body: bytes) -> None:
    tap = changed("grpc_full")
    tap.http_buffered_trace.response.body.as_bytes = body
    assert kind(tap.SerializeToString()) == "unreadable"


def test_hostile_json_and_compression_are_unreadable() -> None:
    pressed = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = pressed.compress(bytes(64 * 2**20)) + pressed.flush()
    bodies = {bomb: "gzip", b"no gzip": "gzip", b"[" * 100_000: "", b"[]": "", b"{}": "", b"x": "br"}
    bodies[json.dumps({"outputs": [{"name": "LABEL", "datatype": "BYTES", "parameters": 3}]}).encode()] = ""
    bodies[json.dumps({"outputs": [{"name": "LABEL", "parameters": {"binary_data_size": -4}}]}).encode()] = ""
    for body, encoding in bodies.items():
        tap = changed("http_raw")
        response = tap.http_buffered_trace.response
        response.body.as_bytes = body
        set_header(response, "content-encoding", encoding or None)
        set_header(response, "inference-header-content-length", None)
        assert kind(tap.SerializeToString()) == "unreadable", body[:40]


def test_the_tap_is_given_no_header_with_a_secret_or_an_address(tmp_path: Path) -> None:
    settings = read_settings(write_gateway(tmp_path, tls=False, observe={}))
    made: Any = listener(settings, {KEYS["pets"]: "pets"}, ["colours"])
    filters = made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    names = [one["name"] for one in filters]
    before = filters[names.index(TAP_FILTER) - 1]
    assert before["name"] == "envoy.filters.http.header_mutation"
    removed = [one["remove"] for one in before["typed_config"]["mutations"]["request_mutations"]]
    assert {"authorization", "cookie", "forwarded", "x-real-ip", "true-client-ip"} <= {*removed}
    assert removed == [name.lower() for name in removed], "as HTTP/2 writes them"


def kind(content: bytes) -> str:
    try:
        read_tapped(content)
    except TapError as error:
        return error.kind
    return "fine"


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number % 128 + 128)
        number //= 128
    return bytes([*found, number])
