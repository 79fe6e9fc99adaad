"""How a script ends, whatever its environment is: signals, readers that go away, no home and no temporary folder."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.system.home import substitute_home, user_folder

SCRIPT = """
import argparse, json, os, pathlib, sys, tempfile, time
from slipway.system.process import child, run

def main(arguments):
{body}

parser = argparse.ArgumentParser(prog="script")
parser.add_argument("--json", action="store_true")
run(main, parser)
"""
WAITS = """
with tempfile.TemporaryDirectory() as folder:
    print("ready", flush=True)
    time.sleep(60)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(body, *arguments)` runs a script with that main, and a temporary folder of its own.

    `signals` is an option of env(1), and `closed` a descriptor that a shell closes. Both leave the tests' own process
    as it is: a fork of it has gRPC's threads, so that no Python may run there.
    """
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def start(
        body: str, *arguments: str, signals: str = "--default-signal=INT,HUP", closed: int | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        code = SCRIPT.format(body=textwrap.indent(textwrap.dedent(body), "    "))
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {}, **options}
        options["env"] = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), **options["env"]}
        without = [] if closed is None else ["sh", "-c", f'exec "$@" {closed}>&-', "sh"]
        command = [*without, "env", signals, sys.executable, "-c", code, *arguments]
        started.append(subprocess.Popen(command, text=True, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_what_ends_a_script_lets_it_remove_its_temporary_folders(
    start: Start, tmp_path: Path, ending: signal.Signals, code: int
) -> None:
    process = start(WAITS)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert list((tmp_path / "tmp").iterdir())
    process.send_signal(ending)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said == "\nscript: interrupted; nothing half-written is left\n"
    assert not list((tmp_path / "tmp").iterdir())


def test_a_second_signal_does_not_cut_the_cleaning_up_short(start: Start) -> None:
    process = start("""
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            time.sleep(0.5)
            print("clean", flush=True)
    """)
    assert process.stdout is not None
    for line in ("ready\n", "cleaning\n"):
        assert process.stdout.readline() == line
        time.sleep(0.2)  # a write that is interrupted may be repeated
        process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=60)[0] == "clean\n"
    assert process.returncode == 129


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(start: Start, ending: signal.Signals) -> None:
    body = "print('ready', flush=True); sys.stdin.readline(); print('done', flush=True)"
    process = start(body, stdin=subprocess.PIPE, signals=f"--ignore-signal={ending.name.removeprefix('SIG')}")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(ending)
    assert process.communicate("\n", timeout=60)[0] == "done\n"
    assert process.returncode == 0


def test_a_worker_that_is_ended_ends_at_once_and_says_nothing(start: Start) -> None:
    """A pool ends its forked workers by SIGTERM, and waits for them."""
    process = start("""
        import multiprocessing
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        worker.terminate()
        worker.join(10)
        print(worker.exitcode)
    """)
    assert process.communicate(timeout=60) == ("-15\n", "")


def test_a_script_that_another_runs_is_ended_with_it_and_cleans_up(start: Start, tmp_path: Path) -> None:
    inner = SCRIPT.format(body=textwrap.indent(WAITS, "    "))
    process = start(f"with child([sys.executable, '-c', {inner!r}]) as process:\n    process.wait()")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("body", ["", "from slipway.errors import SpecError; raise SpecError('wrong')"])
def test_what_ends_a_script_after_its_work_is_done_ends_it_without_a_traceback(
    start: Start, ending: signal.Signals, body: str
) -> None:
    """Libraries unload themselves at exit, which takes a while."""
    process = start(f"import atexit; atexit.register(os.kill, os.getpid(), {ending.value}); {body}")
    assert process.communicate(timeout=60) == ("", "script: wrong\n" if body else "")
    assert process.returncode == -ending


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("where", ["stdout", "stderr"])
@pytest.mark.parametrize("sink", ["closed pipe", "full disk", "closed"])
def test_work_goes_on_when_what_it_says_cannot_be_written(start: Start, tmp_path: Path, where: str, sink: str) -> None:
    body = f"""
        for _ in range(100):
            print("x" * 1000, file=sys.{where}, flush=True)
        pathlib.Path({str(tmp_path / "done")!r}).touch()
    """
    descriptor = closed_pipe() if sink == "closed pipe" else os.open("/dev/full", os.O_WRONLY)
    number = {"stdout": 1, "stderr": 2}[where]
    options = {"closed": number} if sink == "closed" else {where: descriptor}
    process = start(body, **options)
    os.close(descriptor)
    assert process.wait(timeout=180) == 0
    assert (tmp_path / "done").exists()


def test_a_result_that_cannot_be_written_is_an_error(start: Start) -> None:
    with open("/dev/full", "w") as full:
        process = start("print(json.dumps({}))", "--json", stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == "script: done, but its JSON line could not be written: No space left on device\n"


def test_a_file_that_is_opened_is_never_standard_output(start: Start, tmp_path: Path) -> None:
    """Started with it closed, the next file would have its number, and get what libraries print."""
    body = f"print(open({str(tmp_path / 'file')!r}, 'w').fileno(), file=sys.stderr)"
    process = start(body, closed=1)
    assert int(process.communicate(timeout=60)[1]) > 2


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(start: Start) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    start("print('x' * 300_000)", stdout=writer)
    os.close(writer)
    time.sleep(0.3)  # by now it is full
    with os.fdopen(reader) as file:
        assert len(file.read()) == 300_001


def test_a_name_that_the_terminal_cannot_show_is_escaped(start: Start) -> None:
    process = start("print('猫')", env={"PYTHONIOENCODING": "ascii"})
    assert process.communicate(timeout=60) == ("\\u732b\n", "")


@pytest.mark.parametrize("home", [None, "/nonexistent", "relative", "/dev/null"])
def test_without_a_home_there_is_one_in_the_temporary_folder_and_it_is_said(tmp_path: Path, home: str | None) -> None:
    """`env -u HOME`: a user id without an entry in the password database has none then."""
    body = f"""
        import getpass, os
        assert os.environ["HOME"] == {str(tmp_path / "tmp" / f"slipway-{os.getuid()}")!r}
        (pathlib.Path.home() / ".cache").mkdir()
        print(getpass.getuser())
    """
    without = "import pwd; pwd.getpwuid = {}.__getitem__; import os\n"
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        without += f"os.environ.pop({name!r}, None)\n"
    without += "" if home is None else f"os.environ['HOME'] = {home!r}\n"
    code = without + SCRIPT.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{os.getuid()}\n"
    assert "set HOME to keep them elsewhere" in done.stderr


def test_a_home_that_can_be_written_is_left_alone(start: Start, tmp_path: Path) -> None:
    process = start("print(os.environ['HOME'])", env={"HOME": str(tmp_path)})
    assert process.communicate(timeout=60) == (f"{tmp_path}\n", "")


@pytest.mark.parametrize("variable", ["XDG_CONFIG_HOME", "XDG_CACHE_HOME"])
def test_matplotlib_gets_a_folder_where_its_own_cannot_be_written(start: Start, tmp_path: Path, variable: str) -> None:
    process = start(
        "print(os.environ['MPLCONFIGDIR'])",
        env={"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", variable: "/dev/null"},
    )
    assert process.communicate(timeout=60) == (
        f"{tmp_path / 'tmp' / f'slipway-{os.getuid()}'}/.config/matplotlib\n",
        "",
    )
    own = {"HOME": str(tmp_path), variable: "/dev/null", "MPLCONFIGDIR": "/mine"}
    assert start("print(os.environ['MPLCONFIGDIR'])", env=own).communicate(timeout=60) == ("/mine\n", "")


def test_unbuffered_output_is_written_at_once(start: Start) -> None:
    body = "print('out'); print('err', file=sys.stderr); os.kill(os.getpid(), 9)"
    assert start(body, env={"PYTHONUNBUFFERED": "1"}).communicate(timeout=60) == ("out\n", "err\n")


def test_openvino_reports_to_nobody(start: Start) -> None:
    body = """
        try:
            import openvino_telemetry
        except ImportError:
            print("absent")
    """
    assert start(body).communicate(timeout=60) == ("absent\n", "")


def test_the_server_s_engine_reports_to_nobody_either() -> None:
    body = "import sys, slipway.steps.engine_openvino; print('openvino_telemetry.main' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_substitute_home_that_others_can_write_to_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "tmp" / f"slipway-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / "tmp" / f"slipway-{os.getuid()}").chmod(0o777)
    process = start("pass", env={"HOME": "/nonexistent"})
    assert "others can write to it; set HOME to a folder of your own" in process.communicate(timeout=60)[1]
    assert process.returncode == 1


def test_a_library_that_is_missing_is_said_with_what_installs_it_and_a_module_of_ours_is_a_fault(start: Start) -> None:
    process = start("import nowhere.at_all")
    assert process.communicate(timeout=60) == (
        "",
        "script: nowhere is not installed: pip install 'slipway[train,build,serve,client,bench]' "
        "(in a clone: make setup)\n",
    )
    assert process.returncode == 1
    assert "Traceback" in start("import slipway.nowhere").communicate(timeout=60)[1]


def test_without_a_temporary_folder_it_says_what_to_set(start: Start) -> None:
    process = start("tempfile._candidate_tempdir_list = lambda: ['/proc', '/nowhere']\ntempfile.mkdtemp()")
    assert process.communicate(timeout=60)[1] == (
        "script: no temporary folder can be written; set TMPDIR to one that can\n"
    )
    assert process.returncode == 1


def test_a_users_folder_is_what_the_variable_says_or_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/given")
    assert user_folder("XDG_CACHE_HOME", ".cache") == Path("/given")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder("XDG_CACHE_HOME", ".cache") == tmp_path / ".cache"
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).startswith("/proc"))
    assert user_folder("XDG_CACHE_HOME", ".cache") == substitute_home() / ".cache"
    assert substitute_home().parent == tmp_path
