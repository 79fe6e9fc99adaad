"""A server on an image: what is verified is what answers, and a reload follows tag and key."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from slipway.contract import Lane
from slipway.oci.build import build
from slipway.oci.reference import LayoutReference
from slipway.oci.signing import sign
from tests.support.oci_images import EXAMPLE, built, warmer
from tests.support.registries import docker_registry
from tests.support.reloading import reload
from tests.support.scripts import run_here
from tests.support.signing_keys import keys
from tests.support.v2_requests import RED

Launch = Callable[..., Any]


def answers_are_equal(found: Any, expected: Any) -> None:
    """Two clients' servers give the same outputs."""
    ours, theirs = (client.ask("colours_full", [RED]) for client in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)


def test_from_a_repository_over_a_registry_to_another_folder_and_to_servers_with_the_repository_s_answers(
    tmp_path: Path, launch: Launch, connect: Callable[..., Any], example_server: Any
) -> None:
    secret, public = keys(tmp_path)
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    with docker_registry(tmp_path) as host:
        image = f"{host}/team/colours:v1"
        run_here("image", "build", EXAMPLE, "images:v1", cwd=here)
        run_here("image", "sign", "images:v1", "--key", secret, cwd=here)
        run_here("image", "push", "images:v1", image, cwd=here)
        run_here("image", "pull", image, "images", "--key", public, cwd=there)
        run_here("image", "verify", "images:v1", "--key", public, "--lane", "cpu", cwd=there)
        for given in (f"oci-layout:{there}/images:v1", f"oci://{image}"):
            cache = {"XDG_CACHE_HOME": str(tmp_path / given.partition(":")[0])}
            served = launch(given, "--key", public, environment=cache)
            served.wait_for("ready after")
            assert f"signed by the owner of {public}" in served.said()
            client = connect(SimpleNamespace(grpc_url=f"127.0.0.1:{served.ports.grpc}"), "grpc")
            answers_are_equal(client, connect(example_server, "grpc"))


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
    answers_are_equal(connect(here, "grpc"), connect(example_server, "grpc"))

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
