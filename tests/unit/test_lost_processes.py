"""Which steps lack a process, of those that the server had after it loaded them."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slipway.repository import assemble
from slipway.serving import server as serving
from slipway.serving.command import Ports
from slipway.serving.contents import Contents
from slipway.serving.limits import Limits
from slipway.serving.server import Server
from tests.support.gpu_lanes import gpu_classifier


def test_a_step_on_eight_gpus_lacks_a_process_as_soon_as_one_of_eight_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble([gpu_classifier(tmp_path, "9.0")], tmp_path / "gpu", lane="gpu")
    contents = Contents.open(tmp_path / "gpu")
    (step,) = (name for name in contents.models if name.startswith("preprocess_"))
    alive: dict[int, str] = {}
    stand_ins: dict[str, Any] = {
        "process": SimpleNamespace(pid=1),
        "control": SimpleNamespace(load=lambda name, **_: alive.update(dict.fromkeys(range(8), name))),
        "workspace": None,
        "binary": None,
    }
    server = Server(
        ports=Ports(), log=tmp_path / "log", admin_key="", contents=contents, limits=Limits(1, 1), **stand_ins
    )
    monkeypatch.setattr(serving.processes, "stubs", lambda _: alive)
    assert server.load_steps([step], deadline=time.monotonic() + 60) == {}
    assert server.lacking([step]) == []
    del alive[3]
    assert server.lacking([step]) == [step]
