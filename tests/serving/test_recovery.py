"""A lost box is made again of what was kept: registry, backup, settings, keys. It answers as the old one did."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slipway.client import Client, Options, Result
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal.run import run_collector
from slipway.operations.journal.store import Store
from slipway.serving import Ports
from slipway.system.yaml_json import dump_yaml, read_plain
from tests.serving.conftest import EXAMPLE, Launched
from tests.support.gateways import KEYS, needs_envoy, write_gateway
from tests.support.journals import pictures, until
from tests.support.registries import small_registry
from tests.support.scripts import run_here
from tests.support.signing_keys import keys

pytestmark = needs_envoy
IMAGES = pictures(40)


class Box:
    """A folder with a repository, settings and keys, and what runs on it."""

    def __init__(self, folder: Path, launch: Callable[..., Launched], *, ports: Ports) -> None:
        self.folder, self._launch, self._ports = folder, launch, ports

    def slipway(self, verb: str, *words: str | Path) -> str:
        return run_here(verb, *words, cwd=self.folder).stdout

    def start(self) -> Launched:
        state = {"XDG_STATE_HOME": str(self.folder / "state")}
        launched = self._launch(
            self.folder / "repository", "--gateway", self.settings, ports=self._ports, environment=state
        )
        launched.wait_for("ready after")
        return launched

    @property
    def settings(self) -> Path:
        return self.folder / "gateway.yaml"

    def answers(self) -> list[Result]:
        host, _, port = read_plain(self.settings)["listen"].rpartition(":")
        options = Options(key=KEYS["pets"], certificate=self.folder / "tls/certificate.pem")
        with Client(f"grpcs://{host}:{port}", model="colours", options=options) as client:
            return [client.classify(image, full=True) for image in IMAGES]

    def collect(self, *, rows: int) -> None:
        """Empty the spool until the journal has as many rows; Envoy writes a tap file after its answer."""

        def are_there() -> bool:
            run_collector(read_settings(self.settings), ended=threading.Event(), say=lambda _: None, once=True)
            return len(self.rows()) == rows

        until(are_there)

    def rows(self) -> list[tuple[Any, ...]]:
        with Store.of(read_settings(self.settings), make=False) as store:
            return store.query(
                "SELECT id, request, bundle, label, score, probability, sha256, kept FROM rows ORDER BY id"
            )


def test_a_box_is_made_again_from_registry_and_backup_and_answers_as_the_lost_one(
    tmp_path: Path, launch: Callable[..., Launched], monkeypatch: Any
) -> None:
    ports, observed = Ports.free(), Ports.free().http
    kept, lost, new = tmp_path / "kept", tmp_path / "lost", tmp_path / "new"
    secret, public = keys(tmp_path)
    observe = {"share": 1.0, "per_second": 10_000, "metrics_port": observed, "journal": "journal"}
    settings = write_gateway(lost, ports=ports, observe=observe)
    plain = {**read_plain(settings), "repository": "repository"}
    plain["tls"] = {"certificate": "tls/certificate.pem", "key": "tls/private-key.pem"}
    settings.write_text(dump_yaml(plain))
    shutil.copytree(lost, kept)
    shutil.copytree(EXAMPLE, lost / "repository")
    with small_registry() as registry:
        monkeypatch.setenv("XDG_STATE_HOME", str(lost / "state"))
        box = Box(lost, launch, ports=ports)
        box.slipway("image", "build", "repository", "images:v1")
        box.slipway("image", "sign", "images:v1", "--key", secret)
        pushed = box.slipway("image", "push", "images:v1", f"{registry.host}/team/colours:v1")
        digest = pushed.split()[2]
        running = box.start()
        expected = box.answers()
        box.collect(rows=len(IMAGES))
        box.slipway("journal", "backup", settings, kept / "journal-backup")
        rows = box.rows()
        for process in [*running.below(), running.process]:
            process.kill()
        running.process.wait()
        shutil.rmtree(lost)

        shutil.copytree(kept, new)
        monkeypatch.setenv("XDG_STATE_HOME", str(new / "state"))
        box = Box(new, launch, ports=ports)
        box.slipway("image", "pull", f"{registry.host}/team/colours@{digest}", "images:v1", "--key", public)
        box.slipway("image", "unpack", "images:v1", "repository", "--key", public, "--lane", "cpu")
        box.slipway("journal", "restore", "gateway.yaml", "journal-backup")
    box.start()
    assert box.rows() == rows
    found = box.answers()
    for one, other in zip(found, expected, strict=True):
        assert (one.label, one.score, one.class_id, one.status, one.bundle) == (
            *(other.label, other.score, other.class_id, 0, other.bundle),
        )
        assert one.probability.tobytes() == other.probability.tobytes()
        assert one.embedding.tobytes() == other.embedding.tobytes()
    box.collect(rows=2 * len(IMAGES))
    assert box.rows()[: len(IMAGES)] == rows, "the journal goes on where the backup ended"
