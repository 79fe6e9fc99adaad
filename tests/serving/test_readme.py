"""The README's first minute, as it stands there: the launcher's command and the three lines of Python."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)


def test_the_first_minute_serves_the_example_and_prints_a_label(
    launch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = re.findall(r"^slipway serve (\S+)", "\n".join(blocks("sh")), flags=re.M)
    launched = launch(ROOT / command)
    launched.wait_for('"ready"')
    (source,) = blocks("python")
    assert "127.0.0.1:8001" in source
    monkeypatch.chdir(ROOT)
    exec(compile(source.replace("8001", str(launched.ports.grpc)), "README.md", "exec"), {})
    assert capsys.readouterr().out == "red\n"
