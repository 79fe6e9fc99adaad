"""The rendered example in git is what is rendered now: a change of it is seen in a review."""

from pathlib import Path

import pytest

from tests.support.colours import contents
from tests.support.rendered import ENVOY, GOLDEN, SERVER, STABLE, golden, render, settings


def test_the_copies_in_git_are_what_is_rendered(tmp_path: Path) -> None:
    for kind, folder in golden(tmp_path).items():
        new, kept = contents(folder), contents(GOLDEN / kind)
        assert new.keys() == kept.keys(), kind
        for name, content in new.items():
            assert content.decode() == kept[name].decode(), f"{kind}/{name}: python -m tests.support.rendered writes it"


@pytest.mark.parametrize(
    ("kind", "words"),
    [("kubernetes", STABLE), ("compose", ("--gateway-image", ENVOY, "--server-image", SERVER))],
)
def test_the_readme_names_the_users_own_settings(tmp_path: Path, kind: str, words: tuple[str, ...]) -> None:
    file = settings(tmp_path, listen="0.0.0.0:8443").rename(tmp_path / "edge 2.yaml")
    render(kind, file, tmp_path / "out", *words)
    text = (tmp_path / "out/README.md").read_text()
    assert "with `edge 2.yaml` beside it" in text
    assert "slipway render secrets '../edge 2.yaml' ../secrets " in text
    assert "gateway.yaml" not in text
