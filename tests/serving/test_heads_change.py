"""Heads on a running server: a broken one is left out by name, changed ones are switched, and the others answer."""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from slipway.repository import assemble
from slipway.repository import heads as heads_of_a_base
from slipway.serving import Ports, serve
from slipway.serving.doctor.examine import examine
from slipway.serving.load_many import MANY
from slipway.serving.process import stubs
from slipway.steps.guard import PLACEHOLDER
from tests.serving.test_reload import reload
from tests.support.asking import asking, get, wait_until
from tests.support.colours import reseal
from tests.support.heads import open_heads, write_base, write_head, write_heads

COUNT = 20
Launch = Callable[..., Any]
Damage = Callable[[Path], object]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Heads h0000, h0001, … of one group."""
    base = write_base(tmp_path / "base")
    assemble([], tmp_path / "repository", bases=open_heads(base, write_heads(tmp_path / "heads", base, COUNT)))
    return tmp_path / "repository"


def weights(change: Callable[[Any], Any]) -> Damage:
    def changed(folder: Path) -> None:
        with np.load(folder / "head.npz") as arrays:
            content = dict(arrays)
        (folder / "head.npz").unlink()  # a copy of the repository has a link to it
        np.savez(folder / "head.npz", **(content | {"weight_0": change(content["weight_0"])}))

    return changed


DAMAGES: dict[str, tuple[Damage, str]] = {
    "h0001": (weights(lambda array: array * np.float32(np.nan)), "weights or biases hold NaN or infinity"),
    "h0002": (weights(lambda array: array[:8]), "its weights take 8 numbers to 4 classes, not 16 numbers to 4 labels"),
    "h0003": (lambda folder: (folder / "labels.txt").unlink(), "labels.txt: No such file or directory"),
}


def damaged(repository: Path, *heads: str) -> None:
    """Damage heads of the group, whose step gets another name, as it would if it had been assembled so."""
    (group,) = repository.glob("heads_*")
    name = f"heads_{hashlib.sha256(''.join([group.name, *heads]).encode()).hexdigest()[:12]}"
    for head in heads:
        DAMAGES[head][0](group / "1/heads" / head)
    for path in repository.glob("*/config.pbtxt"):
        text = path.read_text()
        path.unlink()
        path.write_text(text.replace(group.name, name))
    group.rename(repository / name)
    reseal(repository)


def assemble_anew(repository: Path, base: Path, heads: list[Path]) -> None:
    """Assemble without the present repository, from which intact groups would be taken over, and resealed ones too."""
    shutil.rmtree(repository)
    assemble([], repository, bases=open_heads(base, heads))


def bundle_of(launched: Any, model: str) -> str:
    """The bundle that answers; raises InferenceServerException."""
    image = triton.InferInput("IMAGE", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[PLACEHOLDER]], np.object_))
    with triton.InferenceServerClient(f"127.0.0.1:{launched.ports.grpc}") as client:
        return str(client.infer(model, [image]).as_numpy("BUNDLE")[0, 0].decode())


def test_broken_heads_are_named_and_left_out_and_the_others_answer(launch: Launch, repository: Path) -> None:
    damaged(repository, *DAMAGES)
    diagnosis = examine(repository)
    launched = launch(repository)
    launched.wait_for("ready after")
    broken = {event["ensemble"]: event["message"] for event in launched.events("broken")}
    assert broken.keys() == {name + suffix for name in DAMAGES for suffix in ("", "_full")}
    assert diagnosis.verdict.would_not.keys() == broken.keys(), "the doctor says what the server then does"
    assert [check for check in diagnosis.checks if check.state == "fail" and check.part != "ensemble"] == []
    for name, (_, reason) in DAMAGES.items():
        assert f"head {name} is left out: " in broken[name]
        assert reason in broken[name]
        for model in (name, f"{name}_full"):
            with pytest.raises(InferenceServerException, match=f"head {name} is left out: "):
                bundle_of(launched, model)
        code, said = get(launched, f"/ready/{name}")
        assert code == 503
        assert reason in said["broken"][name]
    others = [f"h{number:04}" for number in range(COUNT) if f"h{number:04}" not in DAMAGES]
    assert len({bundle_of(launched, name + suffix) for name in others for suffix in ("", "_full")}) == len(others)
    code, said = get(launched, "/ready")
    assert code == 200, "three heads of twenty are no reason to send nothing here"
    assert (said["answering"], sorted(said["broken"])) == (others, list(DAMAGES))
    metrics = get(launched, "/metrics")[1]
    assert 'slipway_ready{classifier="h0002"} 0.0' in metrics
    assert 'slipway_ready{classifier="h0004"} 1.0' in metrics
    assert f"slipway_probe_turn_seconds {said['probed_within_s']}" in metrics
    time.sleep(5)  # several broken heads are probed in a row
    assert [launched.events(name) for name in ("restarting", "step_lost")] == [[], []]
    assert get(launched, "/ready/h0001")[0] == 503


def test_a_reload_mends_a_broken_head_and_refuses_to_break_another(
    launch: Launch, repository: Path, tmp_path: Path
) -> None:
    damaged(repository, "h0001", "h0002")
    launched = launch(repository)
    launched.wait_for("ready after")
    kept = bundle_of(launched, "h0003")

    heads = [tmp_path / "heads" / f"h{number:04}" for number in range(COUNT)]
    assemble_anew(repository, tmp_path / "base", heads)
    damaged(repository, "h0002", "h0003")
    code, said = reload(launched)
    assert code == 1
    assert "head h0003 is left out: " in said
    assert bundle_of(launched, "h0003") == kept
    with pytest.raises(InferenceServerException, match="head h0001 is left out: "):
        bundle_of(launched, "h0001")

    assemble_anew(repository, tmp_path / "base", heads)
    damaged(repository, "h0002")
    code, said = reload(launched)
    assert code == 0, said
    assert bundle_of(launched, "h0001")
    assert sorted(get(launched, "/ready")[1]["broken"]) == ["h0002"]
    assert get(launched, "/ready/h0001")[0] == 200
    with pytest.raises(InferenceServerException, match="head h0002 is left out: "):
        bundle_of(launched, "h0002")


def test_many_ensembles_are_loaded_in_one_call_and_leave_no_other_model(repository: Path) -> None:
    said: list[str] = []
    with serve(repository, ports=Ports.free(), progress=said.append) as server:
        assert len(server.contents.steps) == 2 * COUNT > MANY
        assert {line for line in said if line.endswith(" answers")} == {"h0000 answers", "h0000_full answers"}
        key = {"triton-grpc-protocol-slipway-admin": server.admin_key}
        with triton.InferenceServerClient(server.grpc_url) as client:
            index = client.get_model_repository_index(headers=key)
        loaded = {model.name for model in index.models if model.state == "READY"}
        assert loaded == {*server.contents.steps, *server.contents.needed()}
        assert sorted(path.name for path in server.workspace.models.iterdir()) == sorted(loaded)


def test_where_one_of_many_ensembles_does_not_load_it_is_named_and_the_others_are_loaded(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slipway.serving import server as serving
    from slipway.serving.workspace import Workspace

    add = Workspace.add

    def add_one_too_large(self: Workspace, contents: Any, names: Any) -> None:
        add(self, contents, names := list(names))
        if "h0005" in names:
            path = self.models / "h0005/config.pbtxt"
            path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 99"))

    monkeypatch.setattr(Workspace, "add", add_one_too_large)
    found: dict[str, str] = {}
    load_all = serving.load_all
    monkeypatch.setattr(serving, "load_all", lambda *a, **k: found.update(load_all(*a, **k)) or {})
    with serve(repository, ports=Ports.free()) as server:
        assert found.keys() == {"h0005"}
        assert "allows maximum batch size 99" in found["h0005"]
        assert server.loaded == {*server.contents.steps, *server.contents.needed()} - {"h0005"}


def test_a_changed_head_is_switched_again_and_again_under_load_and_no_request_fails(
    launch: Launch, repository: Path, tmp_path: Path
) -> None:
    runs = [tmp_path / "heads" / f"h{number:04}" for number in range(COUNT)]
    launched = launch(repository)
    launched.wait_for("ready after")
    bundles = [bundle_of(launched, "h0003")]
    with asking(f"127.0.0.1:{launched.ports.grpc}", "h0003", PLACEHOLDER, clients=8) as asked:
        for change in range(3):
            run, labels = tmp_path / f"new{change}", [f"class{index}" for index in range(5)]
            runs[3] = write_head(run, tmp_path / "base", name="h0003", labels=labels, seed=100 + change)
            assemble([], repository, bases=open_heads(tmp_path / "base", runs))
            code, said = reload(launched)
            assert code == 0, said
            bundles.append(bundle_of(launched, "h0003"))
    assert len(set(bundles)) == 4
    assert [each.error for each in asked if each.error] == []
    ended = sorted(asked, key=lambda each: each.sent + each.seconds)
    assert list(dict.fromkeys(each.bundle for each in ended)) == bundles
    assert [launched.events(name) for name in ("restarting", "step_lost")] == [[], []]


@pytest.mark.nightly
def test_a_group_that_hangs_is_loaded_again_and_the_heads_of_the_others_are_not_disturbed(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads_of_a_base, "GROUP", 6)
    base = write_base(tmp_path / "base")
    repository = tmp_path / "repository"
    assemble([], repository, bases=open_heads(base, write_heads(tmp_path / "heads", base, 12)))
    one, other = sorted(path.name for path in repository.glob("heads_*"))
    head = sorted(path.name for path in (repository / other / "1/heads").iterdir())[0]
    launched = launch(repository)
    launched.wait_for("ready after")
    (hanging,) = (pid for pid, step in stubs(launched.server().pid).items() if step == one)
    with asking(f"127.0.0.1:{launched.ports.grpc}", head, PLACEHOLDER, per_second=10) as asked:
        os.kill(hanging, signal.SIGSTOP)
        wait_until(lambda: get(launched, "/ready")[0] == 503, timeout_s=120)
        assert get(launched, f"/ready/{head}")[0] == 200
        wait_until(lambda: launched.events("step_repaired"), timeout_s=240)
        wait_until(lambda: get(launched, "/ready")[0] == 200, timeout_s=120)
    assert {event["step"] for event in launched.events("step_lost")} == {one}
    assert launched.events("restarting") == []
    assert [each.error for each in asked if each.error] == []
    named = sorted(path.name for path in (repository / one / "1/heads").iterdir())
    assert len({bundle_of(launched, name) for name in named}) == len(named)
