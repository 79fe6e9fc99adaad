"""A server on an image: what is verified is what answers, and a reload follows tag and key."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from slipway.contract import Lane
from slipway.image.build import build
from slipway.image.reference import LayoutReference
from slipway.image.signing import sign
from tests.support.images import built, warmer
from tests.support.reloading import reload
from tests.support.signing_keys import keys
from tests.support.v2_requests import RED

Launch = Callable[..., Any]


def test_an_image_is_verified_unpacked_and_answers_as_its_repository_and_a_reload_follows_tag_and_key(
    tmp_path: Path, launch: Launch, connect: Callable[..., Any], example_server: Any
) -> None:
    secret, public = keys(tmp_path)
    layout, image = built(tmp_path / "images", tag="live")
    sign(layout, image, key=secret)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    served = launch(f"oci-layout:{layout.folder}:live", "--key", public, environment=cache)
    served.wait_for("ready after")
    unpacked = tmp_path / "cache/slipway/images" / image.hex
    assert f"{image.digest}; signed by the owner of {public}: the image" in served.said()
    assert f"{unpacked}: unpacked, and every file is as its manifest says" in served.said()
    here = SimpleNamespace(grpc_url=f"127.0.0.1:{served.ports.grpc}")
    expected, found = (connect(server, "grpc").ask("colours_full", [RED]) for server in (example_server, here))
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])

    second = build(warmer(tmp_path), LayoutReference(layout.folder, "live")).image
    code, said = reload(served)
    assert (code, "is not trusted: it is not signed" in said) == (1, True), said
    sign(layout, second, key=secret)
    code, said = reload(served)
    assert (code, "switched colours, colours_full" in said) == (0, True), said
    _, next_public = keys(tmp_path, "next")
    next_public.replace(public)
    code, said = reload(served)
    assert (code, "none of its 1 signatures is by the owner of" in said) == (1, True), said
    sign(layout, second, key=tmp_path / "next.pem")
    assert reload(served)[0] == 0
    lane = Lane.read(tmp_path / "cache/slipway/images" / second.hex / "lane.json")
    assert connect(here, "grpc").ask("colours", [RED])["BUNDLE"][0, 0].decode() == lane.classifiers["colours"]
