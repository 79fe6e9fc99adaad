"""Small parts of the launcher, without a server: its messages, and the folder that the server runs on."""

import errno
import gc
import itertools
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from slipway.contract import ServingError
from slipway.serving import binary, hidden_argument, probe, workspace
from slipway.serving import process as processes
from slipway.serving.contents import Contents
from slipway.serving.limits import server_limits
from slipway.serving.messages import Messages
from slipway.serving.reload import Change, _switch
from slipway.serving.workspace import private_workspace
from slipway.system.files import files_below

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"


def test_messages_for_a_reader_that_stopped_are_counted_and_that_is_said_when_it_reads_again() -> None:
    reader, writer = os.pipe()
    messages = Messages(writer, lost=lambda lines: f"{lines} were lost")
    started = time.monotonic()
    for number in range(5000):
        messages.say(f"{number} {'x' * 1000}")
        time.sleep(0.01 if number == 0 else 0)
    assert time.monotonic() - started < 5
    lost = messages.lost
    assert lost > 3000
    messages.close()  # gives up after a second
    read = b""
    while select.select([reader], [], [], 0.5)[0]:
        read += os.read(reader, 2**16)
    lines = [line.split(b" x")[0].decode() for line in read.splitlines()]
    assert f"{lost} were lost" in lines
    assert lines[0] == "0"
    assert len(lines) == 5000 - lost + 1
    os.close(reader)
    os.close(writer)


def test_messages_go_on_where_writing_failed() -> None:
    reader, writer = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    place = os.dup(full)
    messages = Messages(place, lost=lambda lines: f"{lines} were lost")
    for _ in range(3):
        messages.say("nobody hears")
    deadline = time.monotonic() + 10
    while messages.lost < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.dup2(writer, place)
    messages.say("again")
    messages.close()
    for descriptor in (writer, place, full):
        os.close(descriptor)
    with os.fdopen(reader) as file:
        assert file.read() == "3 were lost\nagain\n"


@pytest.mark.parametrize("name", ["with space", "quote'", 'quote"', "$HOME", "é", "line\nbreak", "a;b", "a:b", "~"])
def test_the_server_runs_on_no_folder_that_its_shell_would_misread(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    monkeypatch.setattr(workspace, "_OTHERS", ("/nowhere", str(tmp_path / "other")))
    with private_workspace() as folder:
        assert folder.root.parent == tmp_path / "other"
        assert folder.note.startswith(f"TMPDIR={tmp_path / name} has characters other than letters")
    assert not list((tmp_path / "other").iterdir())
    monkeypatch.setattr(workspace, "_OTHERS", ("/nowhere",))
    with (
        pytest.raises(ServingError, match=r"has characters other .* nor can /nowhere be used; set TMPDIR"),
        private_workspace(),
    ):
        pass


def test_a_temporary_folder_that_is_missing_is_replaced_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_OTHERS", (str(tmp_path),))
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with private_workspace() as folder:
        assert folder.note == f"TMPDIR=/nowhere is not a writable folder: using {tmp_path}"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with private_workspace() as folder:
        assert folder.note == ""


def test_a_stub_that_another_user_installed_is_copied_and_can_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel has it without permission to run; Triton would try to change that, and only its owner can."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = tmp_path / "wheel/python_backend_stubs" / version / "triton_python_backend_stub"
    (tmp_path / "wheel/backends/python").mkdir(parents=True)
    stub.parent.mkdir(parents=True)
    stub.write_bytes(b"stub")
    stub.chmod(0o644)
    linked = binary._prepare_backends(tmp_path / "wheel", tmp_path / "own") / "python" / stub.name
    assert linked.is_symlink()
    assert stub.stat().st_mode & 0o777 == 0o755

    def refuse(path: Path, _: int) -> None:
        if path == stub:
            raise PermissionError

    stub.chmod(0o100)
    monkeypatch.setattr(os, "access", lambda path, _: path != stub)
    monkeypatch.setattr(Path, "chmod", lambda path, mode: refuse(path, mode) or os.chmod(path, mode))
    copied = binary._prepare_backends(tmp_path / "wheel", tmp_path / "other") / "python" / stub.name
    assert not copied.is_symlink()
    assert (copied.read_bytes(), copied.stat().st_mode & 0o777) == (b"stub", 0o755)


SAYS = "import sys, time; print(sys.argv[1:], flush=True); time.sleep(60)"


LIMITS = server_limits(instances=3)


def told(process: subprocess.Popen[bytes], log: Path) -> tuple[str, list[str]]:
    """What a program that says its arguments was given, and what the process list shows."""
    deadline = time.monotonic() + 30
    while not log.read_text().endswith("]\n") and time.monotonic() < deadline:
        time.sleep(0.01)
    shown = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    processes.kill(process)
    return log.read_text(), shown[-4:-1]


def test_an_argument_with_a_secret_reaches_the_program_and_not_the_process_list(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", SAYS, "--first=s3cret:x", "plain", "--second=é s3cret"]
    log = tmp_path / "log"
    process = processes.start(arguments, environment=dict(os.environ), log=log, limits=LIMITS, secret="s3cret")
    assert not hidden_argument.is_shown(process.pid, "s3cret")
    given, shown = told(process, log)
    assert given == "['--first=s3cret:x', 'plain', '--second=é s3cret']\n"
    assert shown == ["--first=hidden:x", "plain", "--second=é hidden"]
    assert not hidden_argument.is_shown(process.pid, "s3cret"), "it has ended"


def test_a_program_whose_launcher_is_gone_by_then_is_not_started() -> None:
    """Else it would wait, stopped, to be continued by nobody."""
    ours, theirs = os.pipe()
    command = [sys.executable, "-c", "print('started')", "s3cret"]
    words, variables = hidden_argument.command(command, theirs, limits=LIMITS, secret="s3cret")
    gone = subprocess.Popen(["true"])
    gone.wait()
    words[words.index(str(os.getpid()))] = str(gone.pid)
    done = subprocess.run(
        words, env={**os.environ, **variables}, pass_fds=[theirs], capture_output=True, timeout=30, check=False
    )
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("refused", ["tracing", "memory"])
def test_where_nothing_may_be_traced_the_program_is_started_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    if refused == "tracing":
        monkeypatch.setattr(
            hidden_argument, "_PROGRAM", hidden_argument._PROGRAM.replace("libc.ptrace(0, 0, 0, 0)", "-1")
        )
    else:
        monkeypatch.setattr(hidden_argument, "_read_word", refuse)
    arguments, log = [sys.executable, "-c", SAYS, "--first=s3cret"], tmp_path / "log"
    process = processes.start(arguments, environment=dict(os.environ), log=log, limits=LIMITS, secret="s3cret")
    while "[" not in log.read_text():
        time.sleep(0.01)
    assert hidden_argument.is_shown(process.pid, "s3cret")
    assert told(process, log)[0] == "['--first=s3cret']\n"


def test_a_program_that_is_not_there_ends_and_holds_nothing_up(tmp_path: Path) -> None:
    process = processes.start(
        ["/nowhere/tritonserver", "--key=s3cret"], environment={}, log=tmp_path / "log", limits=LIMITS, secret="s3cret"
    )
    assert process.wait(timeout=30) != 0
    assert "/nowhere/tritonserver" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_below_the_servers_folder_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    contents = Contents.open(EXAMPLE)
    with private_workspace() as folder:
        monkeypatch.setattr(shutil, "copyfile", fail)
        full = f"{folder.root}: No space left on device; free some space"
        with pytest.raises(ServingError if number == errno.ENOSPC else OSError) as caught:
            folder.add(contents, contents.needed())
    assert str(caught.value).startswith(full) == (number == errno.ENOSPC)


def failing(function: Callable[..., Any], number: int, *, calls: range) -> Callable[..., Any]:
    """`function`, with these of its calls failing."""
    count = itertools.count()

    def called(*arguments: Any, **named: Any) -> Any:
        if next(count) in calls:
            raise OSError(number, os.strerror(number))
        return function(*arguments, **named)

    return called


@pytest.mark.parametrize("after", [0, 5])
def test_once_a_full_disk_has_room_the_same_models_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    checked = Contents.open(EXAMPLE)
    with private_workspace() as folder:
        with monkeypatch.context() as full:
            full.setattr(shutil, "copyfile", failing(shutil.copyfile, errno.ENOSPC, calls=range(after, 1000)))
            with pytest.raises(ServingError, match="No space left"):
                folder.take(checked)
        assert files_below(folder.root) == {}, "nothing is left that takes room"
        contents = folder.take(checked)
        assert {path.name for path in folder.models.iterdir()} == {*contents.needed()}


@pytest.mark.parametrize("call", range(3))  # the former model aside, and two in their place
def test_models_are_replaced_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with private_workspace() as folder:
        contents = folder.take(Contents.open(EXAMPLE))
        one, other = list(contents.steps)[:2]
        folder.add(replace(contents, own={one: {"config.pbtxt": b"old"}}), [one])
        before = content_of(folder.models)
        with monkeypatch.context() as faulty:
            faulty.setattr(Path, "rename", failing(Path.rename, errno.EIO, calls=range(call, call + 1)))
            with pytest.raises(OSError, match="Input/output"):
                folder.add(contents, [one, other])
        assert content_of(folder.models) == before
        folder.add(contents, [one, other])
        assert content_of(folder.models).keys() > before.keys()


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "Disk quota exceeded"), ServingError("no answer")])
def test_a_switch_that_fails_midway_has_the_former_ensembles_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with private_workspace() as folder:
        old = folder.take(Contents.open(EXAMPLE))
        one = next(iter(old.steps))
        folder.add(old, [one])
        before = content_of(folder.models)
        new = replace(old, own={one: {"config.pbtxt": b"new"}})
        load = Mock(side_effect=[error, {}])
        server: Any = SimpleNamespace(contents=old, workspace=folder, left_out={}, load_ensembles=load, unload=Mock())
        change = Change(added=(), switched=(one,), withdrawn=(), removed=())
        with pytest.raises(type(error), match=str(error.args[-1])):
            _switch(server, new, change, {}, deadline=time.monotonic() + 1, say=print)
        assert content_of(folder.models) == before
        assert load.call_args.args == ([one], old)


def content_of(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files_below(folder).items()}


def test_ctrl_c_while_a_connection_is_made_prints_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    monkeypatch.setattr("tritonclient.grpc._client.grpc.insecure_channel", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        probe.ProbeConnection("127.0.0.1:1")
    gc.collect()
    assert not ignored
