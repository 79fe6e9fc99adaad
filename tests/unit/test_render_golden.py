"""The rendered example in git is what is rendered now: a change of it is seen in a review."""

from pathlib import Path

from tests.support.colours import contents
from tests.support.rendered import GOLDEN, golden


def test_the_copies_in_git_are_what_is_rendered(tmp_path: Path) -> None:
    for kind, folder in golden(tmp_path).items():
        new, kept = contents(folder), contents(GOLDEN / kind)
        assert new.keys() == kept.keys(), kind
        for name, content in new.items():
            assert content.decode() == kept[name].decode(), f"{kind}/{name}: python -m tests.support.rendered writes it"
