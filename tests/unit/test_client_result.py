"""What an answer's tensors say, and what a refusal's words mean."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from slipway.client import (
    Client,
    ClientError,
    DeadlineError,
    ForbiddenError,
    GoneError,
    ModelError,
    Options,
    OverloadedError,
    RequestError,
    Result,
    ServerError,
)
from slipway.client.core import batch_limit
from slipway.client.options import Address
from slipway.client.replies import refusal
from slipway.client.result import FULL_OUTPUTS, OUTPUTS

ADDRESS = Address("grpc", "127.0.0.1:8001")


def row(labels: list[bytes], scores: list[float], class_ids: list[int], status: int = 0, **more: np.ndarray) -> dict:
    return {
        "LABEL": np.array(labels, np.object_),
        "SCORE": np.array(scores, np.float32),
        "CLASS_ID": np.array(class_ids, np.int32),
        "STATUS": np.array([status], np.int32),
        "BUNDLE": np.array([b"0123abcd"], np.object_),
        **more,
    }


def test_the_best_is_the_label_and_the_rest_are_candidates_without_padding() -> None:
    outcome = row(["blaß".encode(), b"red", b""], [0.75, 0.25, 0.0], [4, 2, -1])
    result = Result.of("a.jpg", outcome, request_id="job.0")
    assert (result.source, result.request_id, result.error) == ("a.jpg", "job.0", None)
    assert (result.ok, result.status, result.status_name, result.bundle) == (True, 0, "ok", "0123abcd")
    assert (result.label, result.score, result.class_id) == ("blaß", 0.75, 4)
    assert [(c.label, c.score, c.class_id) for c in result.candidates] == [("red", 0.25, 2)]
    assert (result.probability, result.embedding) == (None, None)


def test_unknown_is_an_answer() -> None:
    result = Result.of(b"", row([b"unknown", b"red"], [0.5, 0.5], [-1, 2]), request_id="x")
    assert (result.ok, result.label, result.class_id) == (True, "unknown", -1)
    assert result.candidates[0].label == "red"


@pytest.mark.parametrize(("status", "name"), [(1, "empty"), (3, "corrupt"), (5, "internal"), (99, "status 99")])
def test_a_refused_image_has_a_status_and_no_label(status: int, name: str) -> None:
    result = Result.of(b"", row([b"", b""], [0.0, 0.0], [-1, -1], status), request_id="x")
    assert (result.ok, result.status, result.status_name, result.error) == (False, status, name, None)
    assert (result.label, result.score, result.class_id, result.candidates) == (None, None, None, ())


def test_no_label_over_its_threshold_is_an_answer_without_a_label() -> None:
    result = Result.of(b"", row([b"", b""], [0.0, 0.0], [-1, -1]), request_id="x")
    assert (result.ok, result.label, result.candidates) == (True, None, ())


def test_full_answers_have_the_probabilities_and_the_embedding() -> None:
    more = {"PROBABILITY": np.array([0.25, 0.75], np.float32), "EMBEDDING": np.ones(4, np.float32)}
    result = Result.of(b"", row([b"red"], [0.75], [1], **more), request_id="x")
    np.testing.assert_array_equal(result.probability, more["PROBABILITY"])
    np.testing.assert_array_equal(result.embedding, more["EMBEDDING"])


def test_no_answer_is_an_error_and_no_status() -> None:
    error = DeadlineError("late")
    result = Result.of("a.jpg", error, request_id="x")
    assert (result.ok, result.status, result.status_name, result.label, result.error) == (
        False,
        None,
        None,
        None,
        error,
    )


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        ("UNAVAILABLE", "in ensemble 'colours', [request id: job-7.0] Exceeds maximum queue size", OverloadedError),
        ("503", "in ensemble 'colours', [request id: job-7.0] Exceeds maximum queue size", OverloadedError),
        ("UNAVAILABLE", "in ensemble 'colours', Request timeout expired", OverloadedError),
        ("503", "in ensemble 'colours', Request timeout expired", OverloadedError),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'triton-grpc-protocol-key'", ForbiddenError),
        ("403", "This API is restricted, expecting header 'key'", ForbiddenError),
        ("NOT_FOUND", "Request for unknown model: 'colours' is not found", ModelError),
        ("404", "Request for unknown model: 'colours' is not found", ModelError),
        ("UNAVAILABLE", "connections failed: Failed parsing HTTP/2 (Expected SETTINGS frame", ServerError),
        ("UNIMPLEMENTED", "Received http2 header with status: 404", ServerError),
        ("UNAVAILABLE", "Request for unknown model: 'colours' version 1 is not at ready state", ModelError),
        ("UNAVAILABLE", "failed to connect to all addresses; last error: Connection refused", GoneError),
        ("UNAVAILABLE", "Stream removed (Socket closed)", GoneError),
        ("INTERNAL", "a step that says: Request timeout expired", RequestError),
        ("503", "no healthy upstream", RequestError),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineError),
        ("INTERNAL", "Failed to process the request(s) for model 'post_1'", RequestError),
    ],
)
def test_the_words_tell_apart_what_has_one_code(code: str, said: str, kind: type[ClientError]) -> None:
    error = refusal(code, said, address=ADDRESS)
    assert type(error) is kind
    assert "grpc://127.0.0.1:8001" in str(error)


@pytest.mark.parametrize("body", [b"<html>Not Found</html>", b'{"detail": "Not Found"}', b""])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_web_server_that_knows_no_such_page_is_told_from_a_tritonserver(body: bytes, protocol: str) -> None:
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"{protocol}://127.0.0.1:{server.server_port}"
        with (
            Client(url, model="colours", options=Options(reconnect_s=60)) as client,
            pytest.raises(ClientError) as raised,
        ):
            client.classify(b"image")
        server.shutdown()
    assert url in str(raised.value)
    found, port = ("answered 404 to a V2 request", "HTTP port of one, http://host:8000")
    if protocol == "grpc":
        found, port = ("does not speak gRPC", "gRPC port of one, host:8001")
    assert f"{found}, so it is probably not a tritonserver; give the {port}" in str(raised.value)


def test_an_error_has_the_servers_words_without_a_steps_stack_trace() -> None:
    error = refusal("INTERNAL", "ValueError: no\n\nAt:\n  model.py(12): execute", address=ADDRESS)
    assert "ValueError: no (INTERNAL)" in str(error)
    assert "model.py" not in str(error)


def test_a_model_without_a_classifiers_tensors_is_none() -> None:
    config = {"max_batch_size": 8, "output": [{"name": name} for name in OUTPUTS]}
    assert batch_limit(config, outputs=OUTPUTS) == 8
    for other in ({}, config | {"max_batch_size": 0}, config | {"output": [{"name": "digits.LABEL"}]}):
        with pytest.raises(ModelError, match="not a classifier of Slipway"):
            batch_limit(other, outputs=OUTPUTS)
    with pytest.raises(ModelError):
        batch_limit(config, outputs=FULL_OUTPUTS)
