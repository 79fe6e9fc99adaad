"""Another bundle on a running server: nobody is refused, no answer is mixed, and what cannot load changes nothing."""

import http.client
import json
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from slipway.contract import Lane
from slipway.repository import assemble
from slipway.serving.process import stubs
from tests.support.asking import Asked, asking, wait_until
from tests.support.colours import copy_colours, replaced, reseal
from tests.support.image_files import encode
from tests.support.reloading import reload
from tests.support.scripts import run_slipway

RED = encode(Image.new("RGB", (60, 50), (220, 0, 0)), "PNG")
Launch = Callable[..., Any]


class Versions:
    """One repository folder in which bundles of `colours` follow each other."""

    def __init__(self, folder: Path) -> None:
        self.repository, self._folder, self._count = folder / "repository", folder, 0

    def write(self, **changes: Any) -> str:
        """Assemble a copy of `colours` with these changes (of `copy_colours`); returns its bundle id."""
        self._count += 1
        classifier = copy_colours(self._folder / f"version{self._count}", **changes)
        assemble([classifier], self.repository)
        return classifier.bundle.id

    def warm(self, temperature: float) -> str:
        """Another decision: the same labels, other scores."""

        def change(part: Path) -> None:
            decision = json.loads((part / "decision.json").read_text())
            (part / "decision.json").write_text(json.dumps(decision | {"temperature": temperature}))

        return self.write(bundle=change, engine=change)


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path)


@pytest.fixture
def serving(launch: Launch, versions: Versions) -> Iterator[Any]:
    """A launcher on the first version."""
    versions.warm(1.0)
    launched = launch(versions.repository)
    launched.wait_for("ready after")
    yield launched
    assert launched.events("restarting") == []
    assert launched.events("step_lost") == []


def one_answer(launched: Any) -> Asked:
    with asking(f"127.0.0.1:{launched.ports.grpc}", "colours", RED, clients=1) as asked:
        wait_until(lambda: asked)
    return asked[0]


def test_bundles_follow_each_other_under_load_without_an_error_and_in_order(serving: Any, versions: Versions) -> None:
    expected = [Lane.read(versions.repository / "lane.json").classifiers["colours"]]
    with asking(f"127.0.0.1:{serving.ports.grpc}", "colours", RED, clients=8) as asked:
        for temperature in (1.5, 2.0, 1.0):  # the last one is a rollback
            expected.append(versions.warm(temperature))
            code, said = reload(serving)
            assert code == 0, said
            assert "switched colours, colours_full" in said
            count = len(asked)
            while len(asked) < count + 20:
                time.sleep(0.01)
    assert [one.error for one in asked if one.error] == []
    assert {one.label for one in asked} == {"red"}
    in_order = [one.bundle for one in sorted(asked, key=lambda one: one.sent + one.seconds)]
    assert list(dict.fromkeys(in_order)) == expected[:3], "the first and the last are one bundle"
    assert in_order[-1] == expected[0] == expected[3]


def test_old_steps_are_gone_afterwards_and_shared_ones_were_left_alone(serving: Any, versions: Versions) -> None:
    before = stubs(serving.server().pid)
    for temperature in (1.5, 2.0):  # the second reload comes while the first one's old step waits for its end
        versions.warm(temperature)
        code, said = reload(serving)
        assert code == 0, said
    deadline = time.monotonic() + 10
    while len(after := stubs(serving.server().pid)) != len(before):  # an unloaded step takes its time to end
        assert time.monotonic() < deadline, after
        time.sleep(0.05)
    changed = {step.split("_")[0] for step in set(before.values()) ^ set(after.values())}
    assert changed == {"post"}
    assert {pid for pid, step in before.items() if not step.startswith("post")} <= after.keys()


def test_what_has_not_changed_is_not_touched(serving: Any) -> None:
    before = stubs(serving.server().pid)
    assert reload(serving) == (0, "the repository is unchanged\n")
    assert stubs(serving.server().pid) == before


def test_a_bundle_that_does_not_load_leaves_the_old_one_and_says_why(serving: Any, versions: Versions) -> None:
    old, steps = one_answer(serving).bundle, set(stubs(serving.server().pid).values())
    new = versions.warm(1.5)
    (model,) = [path for path in versions.repository.glob("post_*/1/model.py") if path.parent.parent.name not in steps]
    model.unlink()
    model.write_text("raise ValueError('the dog ate the labels')\n")
    reseal(versions.repository)
    with asking(f"127.0.0.1:{serving.ports.grpc}", "colours", RED) as asked:
        code, said = reload(serving)
    assert code == 1
    assert "the dog ate the labels" in said
    assert {(one.error, one.bundle) for one in asked} == {("", old)}
    assert set(stubs(serving.server().pid).values()) == steps, "what was loaded for it is gone"
    assert versions.warm(1.5) == new
    assert reload(serving)[0] == 0, "mended, it is served"
    assert one_answer(serving).bundle == new


def test_an_answer_that_is_not_the_new_bundles_switches_back(serving: Any, versions: Versions) -> None:
    old = one_answer(serving).bundle
    versions.warm(1.5)
    steps = set(stubs(serving.server().pid).values())
    (model,) = [path for path in versions.repository.glob("post_*/1/model.py") if path.parent.parent.name not in steps]
    text = model.read_text().replace('(here / "bundle.txt").read_bytes().strip()', 'b"somebody else"')
    model.unlink()
    model.write_text(text)
    reseal(versions.repository)
    code, said = reload(serving)
    assert code == 1
    assert "BUNDLE is somebody" in said
    assert one_answer(serving).bundle == old


def test_class_ids_that_would_change_their_meaning_are_refused_and_new_ones_may_be_appended(
    serving: Any, versions: Versions
) -> None:
    old = one_answer(serving).bundle
    versions.write(bundle=replaced("labels.txt", b"blue\ngreen", b"green\nblue"))
    code, said = reload(serving)
    assert code == 1
    assert "class id 0 is 'blue' and would become 'green'" in said
    assert one_answer(serving).bundle == old


def test_a_damaged_repository_is_refused_by_its_file(serving: Any, versions: Versions) -> None:
    versions.warm(1.5)
    (labels,) = versions.repository.glob("colours_full/labels.txt")
    labels.unlink()
    labels.write_text("blue\ngreen\npink\n")
    code, said = reload(serving)
    assert code == 1
    assert f"{labels}: changed since this repository was made" in said
    assert one_answer(serving).label == "red"


def test_a_server_that_dies_comes_back_with_what_it_served_not_with_what_lies_there(
    launch: Launch, versions: Versions
) -> None:
    served = versions.warm(1.0)
    launched = launch(versions.repository)
    launched.wait_for("ready after")
    shutil.rmtree(versions.repository)
    launched.server().kill()
    deadline = time.monotonic() + 30
    while len(launched.events("ready")) < 2:
        assert time.monotonic() < deadline, launched.said()
        time.sleep(0.05)
    assert one_answer(launched).bundle == served


@pytest.mark.parametrize("key", [None, "", "guess", "\xff"])
def test_without_the_key_nothing_is_reloaded(serving: Any, versions: Versions, key: str | None) -> None:
    versions.warm(1.5)
    connection = http.client.HTTPConnection("127.0.0.1", serving.ports.status, timeout=5)
    connection.request("POST", "/reload", body=b"{}", headers={} if key is None else {"slipway-admin": key})
    response = connection.getresponse()
    assert response.status == 403
    assert "the header slipway-admin does not hold the key" in response.read().decode()
    assert serving.events("reloaded") == []


def test_the_key_is_its_owners_alone_and_ends_with_the_server(serving: Any) -> None:
    (path,) = (serving.temporary.parent / "state/slipway").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = path.read_text()
    assert key not in serving.said()
    assert all(key not in " ".join(process.info["cmdline"]) for process in serving.below())
    serving.process.terminate()
    serving.process.wait(timeout=30)
    assert not path.exists()


def test_a_reload_where_no_server_runs_says_so(tmp_path: Path) -> None:
    done = run_slipway("reload", "--status-port=1", XDG_STATE_HOME=str(tmp_path), SLIPWAY_ADMIN_KEY="key")
    assert done.returncode == 1
    assert "127.0.0.1:1 (--status-port) does not answer" in done.stderr
