"""`slipway reload` and `slipway assemble` are run for each change, and load no library that they do not use."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from slipway.serving.process_events import Bell, ProcessWatch

ROOT = Path(__file__).parents[2]


def loaded(code: str) -> set[str]:
    """The modules that a Python has loaded after `code`."""
    say = f"{code}; import sys; print(*sys.modules)"
    return {
        *subprocess.run(
            [sys.executable, "-c", say], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    }


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("slipway.cli.serve, slipway.serving.reload_request", {"pydantic", "numpy", "grpc", "yaml", "psutil"}),
        ("slipway.repository", {"grpc", "tritonclient.utils"}),
    ],
)
def test_a_verb_loads_no_library_that_it_does_not_use(module: str, spared: set[str]) -> None:
    assert loaded(f"import {module}") & spared == set()


def test_the_definition_of_a_configuration_is_the_clients_own() -> None:
    found = loaded(
        "import slipway.repository; from slipway.lint.models import proto; import tritonclient.grpc as client; "
        "assert client.model_config_pb2 is proto; assert client.service_pb2.ModelConfigResponse().config == "
        "proto.ModelConfig()"
    )
    assert "grpc" in found


def test_whoever_waits_for_the_end_of_a_process_hears_the_bell_until_each_ring_is_heard() -> None:
    bell = Bell()
    server = SimpleNamespace(process=SimpleNamespace(pid=os.getpid()))
    with ProcessWatch(server, bell) as watched:  # type: ignore[arg-type]  # a server that only runs
        bell.ring()
        bell.ring()
        assert watched.wait(60) == []
        bell.heard()
        assert bell.rings(0)
        watched.look()
        assert watched.wait(60) == []
        bell.heard()
        assert not bell.rings(0)
