"""The comparison with peers: what it asks of them, without their environments."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from pathlib import Path

import pytest
from aiohttp import web

from benchmarks.studies.peers.__main__ import main, parser, spread, times
from benchmarks.studies.peers.environments import LOCKS, versions_of
from benchmarks.studies.peers.servers.classifier import Settings, worker_number
from benchmarks.studies.peers.stacks import FRAMEWORKS, PEERS, Http, form, kept_cores, raw
from slipway.benchmark.server import ServedAnswer
from slipway.contract import SpecError
from slipway.contract.evidence.origin import versions
from slipway.contract.evidence.studies import PeersResult
from tests.support.scripts import ROOT, run_study


@asynccontextmanager
async def peer(answer: web.StreamResponse | None) -> AsyncIterator[str]:
    """An HTTP server that gives this answer to everything, or none."""

    async def reply(request: web.Request) -> web.StreamResponse:
        await request.read()
        if answer is None:
            await asyncio.Event().wait()
        return answer or web.Response()

    app = web.Application()
    app.router.add_post("/classify", reply)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/classify"
    await runner.cleanup()


def asked(reply: web.StreamResponse | None) -> ServedAnswer | str:
    async def ask() -> ServedAnswer | str:
        async with peer(reply) as url, Http(url, [raw(b"image")]) as connection:
            return await connection.answer(0, deadline_s=0.5)

    return asyncio.run(ask())


def test_a_right_answer_is_one_with_status_0() -> None:
    right = {"label": "cat", "score": 0.75, "status": 0}
    assert asked(web.json_response(right)) == ServedAnswer(b"cat", 0.75, b"")
    assert asked(web.json_response(right | {"status": 2})) == "STATUS 2"


def test_what_is_no_answer_is_not_taken_for_a_quick_one() -> None:
    assert asked(web.Response(status=503)) == "error 503"
    assert asked(None) == "timed out"

    async def nobody() -> ServedAnswer | str:
        async with Http("http://127.0.0.1:9/classify", [raw(b"image")]) as connection:
            return await connection.answer(0, deadline_s=1)

    assert asyncio.run(nobody()).startswith("error Connection")


def test_a_form_holds_the_image_as_it_is() -> None:
    image = bytes(range(256)) * 3
    body, headers = form(image, field="file")
    message = message_from_bytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
    (part,) = message.get_payload()
    assert part.get_param("name", header="content-disposition") == "file"
    assert part.get_payload(decode=True) == image


def test_each_worker_of_a_peer_has_a_number_of_its_own_while_it_lives() -> None:
    settings = Settings(workers=2, port=os.getpid())
    (first, holder), (second, other) = worker_number(settings), worker_number(settings)
    assert (first, second) == (0, 1)
    with pytest.raises(RuntimeError, match="2 workers were asked for"):
        worker_number(settings)
    holder.close()
    again, holder = worker_number(settings)
    assert again == 0
    holder.close()
    other.close()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core every thread keeps to it")
def test_a_thread_below_a_process_that_keeps_to_a_core_is_seen() -> None:
    ready = "print(flush=True); input()"
    core = max(os.sched_getaffinity(0))
    for pin, kept in (("", set()), (f"os.sched_setaffinity(0, [{core}])", {core})):
        code = f"import os\nif os.fork():\n os.wait()\nelse:\n {pin or 'pass'}; {ready}"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdin
            process.stdout.readline()
            assert kept_cores(process.pid) == kept
            process.stdin.write(b"\n")


def test_the_ratio_has_an_interval_of_two_standard_errors() -> None:
    found = times([10, 12, 11], [8, 9, 9])
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(1.1 ** (7 / 3))
    assert spread([0.5, 2.0]).mean == pytest.approx(1)


def test_a_single_round_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(SpecError, match="--rounds 1: one round shows no spread; give 2 or more"):
        main(parser().parse_args(["--rounds", "1"]))


@pytest.mark.parametrize("name", sorted({peer.environment for peer in PEERS.values()}))
def test_every_environment_is_pinned_to_the_libraries_that_do_our_work(name: str) -> None:
    pinned = versions_of(name)
    ours = ("numpy", "nvidia-dali-cuda130", "openvino")
    here = versions(ours)
    assert {library: pinned[library] for library in ours} == {library: here[library] for library in ours}
    lock = (LOCKS / f"{name}.lock").read_text(encoding="utf-8")
    assert lock.count("--hash=sha256:") >= len(pinned) > 10
    assert not re.search("://|--(extra-)?index-url|--find-links", lock)


def test_every_peer_has_its_script_and_nothing_else_lies_there() -> None:
    scripts = {path.name for path in (ROOT / "benchmarks/studies/peers/servers").glob("[a-z]*_*.py")}
    assert scripts == {peer.script for peer in PEERS.values()}


def test_every_framework_is_measured_with_our_steps_and_with_those_of_a_skilled_team() -> None:
    for name, framework in FRAMEWORKS.items():
        skilled = PEERS[f"{name}_skilled"]
        assert PEERS[name] is framework
        assert (framework.options, framework.same_work) == ((), True)
        assert (skilled.script, skilled.options, skilled.same_work) == (framework.script, ("--skilled",), False)


def test_help_teaches_without_any_environment(tmp_path: Path) -> None:
    done = run_study("peers", "--help", cwd=tmp_path)
    assert all(name in done.stdout for name in PEERS)


def test_the_page_says_what_was_measured() -> None:
    found = PeersResult.read(ROOT / "benchmarks/results/peers.json")
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    for name, ratio in found.times_the_capacity.items():
        rates = found.capacity_per_s[name]
        held = f"{min(rates):.0f} to {max(rates):.0f}" if round(min(rates)) < round(max(rates)) else f"{rates[0]:.0f}"
        p50, p99 = (found.light_load.over_slipway_fused[name][key].mean for key in ("p50_ms", "p99_ms"))
        setting = found.settings[name].removeprefix("batches up to ")
        row = f"| {held} | {setting} | {ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) |"
        assert f"{row} {p50:.2f} | {p99:.2f} |" in page, name
