"""Runs a stable server and a candidate behind a gateway, with users and the monitoring beside them."""

import contextlib
import io
import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.studies.lifecycle.result import Found
from benchmarks.studies.robustness.launcher import Launcher, launched
from slipway.operations.gateway.settings import read_settings
from slipway.operations.monitoring.render import render, write
from slipway.serving import Ports
from tests.support.gateway_users import ARMS, Answer, Users
from tests.support.gateways import free_beside, running_gateway
from tests.support.prometheus import (
    Prometheus,
    Webhook,
    free_port,
    needs_alertmanager,
    needs_prometheus,
    running_alertmanager,
    running_prometheus,
    webhook,
)
from tests.support.releases import ReleaseFolder, tempered

WEIGHTS = (100, 0, 100, 0, 100)
SETTLED_S, KILLED_S, BACK_S = 1.3, 9.0, 3.0
ALERTS = ("SlipwayCandidateUnhealthy", "SlipwayTargetDown")
WITHOUT = ("--approved-by", "study", "--without-verdict", "--reason", "a study of the switch")


@dataclass
class Setup:
    """An open release, its users, and where its alerts arrive."""

    release: ReleaseFolder
    users: Users
    hook: Webhook | None

    def verb(self, *words: str) -> tuple[Mapping[str, float], float]:
        """Call `slipway release WORDS`; returns its JSON line, with times in seconds, and the monotonic time of the
        call."""
        action, *others = words
        called = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = self.release(action, *others, "--json")
        assert not code, printed.getvalue()
        told: Mapping[str, float] = json.loads(printed.getvalue().splitlines()[-1])
        time.sleep(SETTLED_S)
        return told, called

    def last(self, called: float, **other: str) -> float:
        """Return the seconds from a call to the last request that was still answered as before: by this `arm` or
        `bundle`."""
        as_before = (one for one in list(self.users.answers) if other.items() <= one._asdict().items())
        return max((one.sent - called for one in as_before if one.sent > called), default=0.0)

    def wait_until_resolved(self, *, after: float) -> None:
        """Wait until the alerts of a kill at the Unix time `after` have gone, and the gateway knows that the candidate
        is back."""
        time.sleep(BACK_S)
        for name in ALERTS:
            if self.hook is not None:
                self.hook.first(name, after=after, status="resolved", seconds=60)


def try_releases(work: Path, found: Found, *, rounds: int) -> None:
    """Change weights, promote, roll back, and kill the candidate; and see what Envoy and Prometheus take."""
    stable = Ports.free()
    candidate = free_beside(stable)
    release = ReleaseFolder(work / "release", new=tempered(2.0), stable=stable, candidate=candidate)
    with contextlib.redirect_stdout(io.StringIO()):
        release.open_release()
    for name in ("stable", "candidate"):
        (work / name).mkdir()
    with contextlib.ExitStack() as stack:
        stack.enter_context(launched(release.stable, work / "stable", ports=stable, state=work / "state"))
        asked = stack.enter_context(running_gateway(release.gateway))
        hook, prometheus = stack.enter_context(_monitoring(release.gateway, work / "monitored", found))
        began = time.monotonic()
        users = Users(asked)
        stack.callback(users.stop)
        setup = Setup(release, users, hook)
        kills: list[Kill] = []
        for number in range(rounds):
            with launched(release.candidate, work / "candidate", ports=candidate, state=work / "state") as server:
                if number == 0:
                    _switch(setup, found, rounds=rounds)
                else:
                    setup.wait_until_resolved(after=kills[-1].at_unix)
                kills.append(_kill(setup, server))
        users.stop()
        _judge_kills(kills, users.answers, found)
        assert asked.gateway.process is not None
        memory = {"envoy": _mib(asked.gateway.process.pid)}
        if prometheus is not None:
            memory["prometheus"] = _mib(prometheus.pid)
            ran = psutil.Process(prometheus.pid).cpu_times()
            found.facts["prometheus_core_percent"] = 100 * (ran.user + ran.system) / (time.monotonic() - began)
        found.facts["memory_mib"] = memory


def _switch(setup: Setup, found: Found, *, rounds: int) -> None:
    in_force, promoted, rolled_back, undone = [], [], [], []
    for percent in WEIGHTS:
        told, called = setup.verb("weight", str(percent))
        in_force.append(max(told["seconds"], setup.last(called, arm="stable" if percent else "candidate")))
    for _ in range(rounds):
        setup.verb("weight", "100")
        told, called = setup.verb("rollback")
        rolled_back.append(max(told["weight_zero_s"], setup.last(called, arm="candidate")))
        setup.verb("weight", "50")
        told, called = setup.verb("promote", *WITHOUT)
        promoted.append(max(told["seconds"], setup.last(called, bundle=setup.release.old.id)))
        told, called = setup.verb("rollback")
        undone.append(max(told["seconds"], setup.last(called, bundle=setup.release.new.id)))
    found.judge("weight in force", in_force, limit=1, unit="s")
    found.judge("promotion", promoted, limit=10, unit="s")
    found.judge("rollback", rolled_back, limit=1, unit="s")
    found.judge("failed while weights change", [len(setup.users.failed())], limit=0, unit="requests")
    found.facts |= {"requests": len(setup.users.answers), "undone_s": undone}


@dataclass(frozen=True)
class Kill:
    """A kill of the candidate while it has half of the requests, and when its alerts came."""

    at: float
    """`time.monotonic()`."""
    at_unix: float
    alerts_s: list[float]


def _kill(setup: Setup, candidate: Launcher) -> Kill:
    setup.verb("weight", "50")
    killed, killed_unix = time.monotonic(), time.time()
    candidate.process.send_signal(signal.SIGKILL)  # the kernel ends its server with it
    time.sleep(KILLED_S)
    return Kill(
        killed, killed_unix, [setup.hook.first(name, after=killed_unix) for name in ALERTS] if setup.hook else []
    )


def _judge_kills(kills: list[Kill], answers: list[Answer], found: Found) -> None:
    """Judge all requests that were under way at a kill, or sent in the nine seconds after it."""
    requests, failed_s = [], []
    for kill in kills:
        of_kill = [one for one in answers if one.at > kill.at and one.sent < kill.at + KILLED_S]
        requests.append(len(of_kill))
        failed_s.append([one.at - kill.at for one in of_kill if one.arm not in ARMS])
    shares = [100 * len(lost) / sent for lost, sent in zip(failed_s, requests, strict=True)]
    found.judge("failed after a kill", shares, limit=2, unit="%")
    found.judge("failing after a kill", [max(lost, default=0.0) for lost in failed_s], limit=6, unit="s")
    if alerts_s := [seconds for kill in kills for seconds in kill.alerts_s]:
        found.judge("alert at the webhook", alerts_s, limit=15, unit="s")
    found.facts |= {"killed_requests": requests, "killed_failed": [len(lost) for lost in failed_s]}


@contextmanager
def _monitoring(gateway: Path, folder: Path, found: Found) -> Iterator[tuple[Webhook | None, Prometheus | None]]:
    """Run the output of `slipway render monitoring` in Prometheus and Alertmanager, if these are installed."""
    for needed in (needs_prometheus, needs_alertmanager):
        if needed.args[0]:
            found.leave_out("alert at the webhook", needed.kwargs["reason"])
            yield None, None
            return
    with webhook() as hook:
        port = free_port()
        settings = read_settings(gateway)
        write(render(settings, webhook=hook.url, alertmanager=f"127.0.0.1:{port}"), folder / "files")
        with (
            running_alertmanager(folder / "files/alertmanager.yml", folder / "alertmanager", port=port),
            running_prometheus(folder / "files/prometheus.yml", folder / "prometheus") as prometheus,
        ):
            yield hook, prometheus


def _mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 2**20)
