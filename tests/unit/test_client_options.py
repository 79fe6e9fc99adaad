"""What a client is told is checked before anything is sent, and what it exports is on purpose."""

import sys
from typing import Any

import pytest

import slipway.client
from slipway.client import AsyncClient, Client, ClientError, Options
from slipway.client.options import Address, check_request_id
from slipway.contract import MissingDependencyError, SlipwayError, SpecError


def test_the_public_names_are_these() -> None:
    errors = {"ClientError", "ImageError", "RequestError", "DeadlineError", "OverloadedError"}
    errors |= {"ServerError", "GoneError", "ModelError", "ForbiddenError"}
    others = {"AsyncClient", "Client", "Options", "Result", "Candidate", "Source", "find_images"}
    assert set(slipway.client.__all__) == errors | others
    assert all(issubclass(getattr(slipway.client, name), ClientError) for name in errors)
    assert issubclass(ClientError, SlipwayError)


@pytest.mark.parametrize(
    ("field", "given", "allowed"),
    [
        ("deadline_s", 0.009, "0.01 to 86400 seconds"),
        ("deadline_s", float("nan"), "0.01 to 86400 seconds"),
        ("deadline_s", "10", "0.01 to 86400 seconds"),
        ("concurrency", 0, "a whole number from 1 to 256"),
        ("concurrency", 2.5, "a whole number from 1 to 256"),
        ("batch_size", 0, "a whole number from 1 to 4096"),
        ("batch_size", True, "a whole number from 1 to 4096"),
        ("reconnect_s", -1.0, "0 to 86400 seconds"),
        ("reconnect_s", float("inf"), "0 to 86400 seconds"),
    ],
)
def test_an_option_that_is_not_allowed_is_named_with_what_is(field: str, given: Any, allowed: str) -> None:
    with pytest.raises(SpecError) as raised:
        Options(**{field: given})
    assert str(raised.value) == f"{field} is {given!r}; use {allowed}"


def test_the_shortest_deadline_is_one_that_does_not_harm_the_server() -> None:
    assert Options(deadline_s=0.01).deadline_s == 0.01


@pytest.mark.parametrize(
    "url",
    ["grpc://127.0.0.1:8001", "http://[::1]:8000", "grpc://gpu-7.example:65535", "grpcs://a:8443", "https://a:443"],
)
def test_an_address_names_its_protocol(url: str) -> None:
    assert str(Address.parse(url)) == url


def test_a_slash_at_the_end_of_an_address_is_no_path() -> None:
    assert Address.parse("http://localhost:8000/") == Address("http", "localhost:8000")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8001", "localhost", "grpc://localhost", "ftp://a:443", "http://a:0", "http://a:65536", "http://a:1/b"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="use grpc://host:8001 or http://host:8000"):
        Address.parse(url)


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("model", "message"),
    [("../x", "a-z, 0-9 and _"), ("engine_0123456789ab", "belong to Slipway"), ("a_full", "full=True")],
)
def test_what_can_be_no_classifier_is_refused_by_its_name(client: Any, model: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        client("grpc://127.0.0.1:8001", model=model)


def test_a_request_id_goes_into_logs_as_it_is() -> None:
    assert check_request_id("job-7:a.b_c") == "job-7:a.b_c"
    for name in ("", "a\nb", "a b", "a" * 65, "é"):
        with pytest.raises(SpecError, match="use 1 to 64"):
            check_request_id(name)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    monkeypatch.setitem(sys.modules, f"tritonclient.{protocol}.aio", None)
    monkeypatch.delitem(sys.modules, f"slipway.client.{protocol}_transport", raising=False)
    with (
        Client(f"{protocol}://127.0.0.1:1", model="colours") as client,
        pytest.raises(MissingDependencyError, match=rf"tritonclient\[{protocol}\] .*slipway\[client\]"),
    ):
        client.classify(b"")
