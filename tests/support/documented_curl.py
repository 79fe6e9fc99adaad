"""The curl commands that users read, as they stand."""

import re
import shutil
from pathlib import Path

import pytest

from slipway.cli.serve import parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
needs_curl = pytest.mark.skipif(
    not shutil.which("curl") or not shutil.which("perl"), reason="there is no curl or no perl here"
)


def documented_commands() -> dict[str, str]:
    """Every block of the documents that calls curl, and every line of the launcher's help that does; by its place."""
    found: dict[str, str] = {}
    for document in DOCUMENTS:
        for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S):
            commands = block.replace("\\\n", " ")
            if re.search(r"\bcurl\b", commands):
                found[f"{document.name} {len(found)}"] = commands
    helped = [line.strip() for line in parser().format_help().splitlines() if line.strip().startswith("curl ")]
    return found | {f"--help {number}": line for number, line in enumerate(helped)}
