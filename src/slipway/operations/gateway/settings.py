"""`gateway.yaml`: listener, certificate, teams with their keys and rates, limits, and the servers behind."""

import ipaddress
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, PrivateAttr, field_validator, model_validator

from slipway.contract import SpecError
from slipway.contract.spec import LatencyGate
from slipway.contract.typed_file import Contract
from slipway.operations.journal.settings import Observe
from slipway.operations.labels.settings import Labels
from slipway.operations.watch.settings import WatchSettings
from slipway.serving.ports import HOST, Ports
from slipway.system.home import user_folder
from slipway.system.text import few

KEY_HEADER = "slipway-key"
"""Header (HTTP) or metadata (gRPC) with a team's key."""
TEAM_HEADER = "slipway-team"
"""Header with the team's name that the gateway puts in place of the key."""
FULL_SUFFIX = "_full"
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")
_TEAM = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def _team(name: str) -> str:
    if not _TEAM.fullmatch(name):
        raise ValueError("use 1 to 63 characters of a-z, 0-9, _ and -, beginning with a letter")
    return name


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        colon = ""
    if not colon or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("write an IPv4 address and a port, such as 0.0.0.0:8443")
    return text


Address = Annotated[str, AfterValidator(_address)]
Team = Annotated[str, AfterValidator(_team)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Tls(Contract):
    """The certificate that clients check, and its private key, in PEM."""

    certificate: str
    """File of the certificate, followed by those of its issuers; relative to the file of settings."""
    key: str
    """File of the private key. Only its owner may read it."""


class TeamKey(Contract):
    """A team's key and the rate that it may use."""

    key_file: str
    """File with the key in one line: 16 to 256 of A-Z, a-z, 0-9 and ._~+/=-. Only its owner may read it."""
    former_key_file: str | None = None
    """File with the key before, which is accepted too while the team's clients take up the new one."""
    per_second: int = Field(default=100, ge=1, le=1_000_000)
    """Requests each second that the team may send on average."""
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests that the team may send at once. The default is a second's worth."""


class ServerPorts(Contract):
    """The ports of one `slipway serve` on 127.0.0.1."""

    grpc: Port = Ports().grpc
    """Port of the server's gRPC."""
    http: Port = Ports().http
    """Port of the server's HTTP."""
    status: Port = Ports().status
    """Port of the supervisor, whose `/ready` decides whether the candidate gets requests."""
    metrics: Port | None = None
    """Port of tritonserver's metrics, for the monitoring alone. The default is the port before `status`, as it is where
    `slipway serve` is given no port."""

    @property
    def metrics_port(self) -> int:
        return self.metrics or self.status - 1

    @property
    def options(self) -> tuple[str, ...]:
        """The options of `slipway serve` for a server with these ports."""
        given = {"grpc": self.grpc, "http": self.http, "metrics": self.metrics_port, "status": self.status}
        return tuple(word for name, port in given.items() for word in (f"--{name}-port", str(port)))


class GatewaySettings(Contract):
    """A gateway in front of one or two servers."""

    listen: Address = f"{HOST}:8443"
    """Address and port for gRPC and HTTP. Other addresses than 127.0.0.1 need `tls`."""
    tls: Tls | None = None
    """Certificate and key of TLS; without them the gateway listens on 127.0.0.1 only."""
    teams: dict[Team, TeamKey] = Field(min_length=1)
    """Each team's key and rate, by the team's name."""
    repository: str | None = None
    """Repository whose classifiers clients may ask, relative to the file of settings. `slipway serve --gateway` serves
    its own."""
    stable: ServerPorts = ServerPorts()
    """The server that answers. `slipway serve --gateway` puts its own ports here."""
    candidate: ServerPorts | None = None
    """A second server, for a share of the requests or for copies of them."""
    max_request_bytes: int = Field(default=33 * 2**20, ge=2**16, le=2**30)
    """Largest body of a request. The default holds one image of the largest size that the guard takes (32 MiB)."""
    min_deadline_s: float = Field(default=0.010, ge=0.005, le=10)
    """Shortest gRPC deadline. tritonserver 2.51 can be ended by deadlines of 1 to 4 ms."""
    timeout_s: float = Field(default=10.0, gt=0, le=3600)
    """Longest time that the gateway waits for a server's answer."""
    budgets_ms: dict[str, float] = Field(default={})
    """Latency budget of a classifier, in ms: an edge of the latency histograms. The default is that of the spec, 50.
    `<name>_full` has the budget of `<name>` unless it is named too."""
    metrics_port: Port = 8004
    """Port of GET /stats/prometheus on 127.0.0.1."""
    workers: int = Field(default=1, ge=1, le=256)
    """Threads of Envoy that forward requests."""
    max_connections: int = Field(default=1000, ge=1, le=1_000_000)
    """Connections of clients at once; more are refused."""
    access_log: str | None = None
    """File for one JSON line of each request, without the client's address and without the key."""
    observe: Observe | None = None
    """Settings of the journal's sample; without them nothing is tapped."""
    watch: WatchSettings | None = None
    """Settings of the watch over the journal; `slipway watch` needs them."""
    labels: Labels | None = None
    """Settings of the labels that people are asked for, such as their number per day."""
    _file: Path = PrivateAttr()

    @classmethod
    def parse(cls, data: Any, *, source: str) -> Self:
        """As `Contract.parse`; `source` is the path of the file, which the settings then know as `file`."""
        settings = super().parse(data, source=source)
        settings._file = Path(source)
        return settings

    @field_validator("budgets_ms")
    @classmethod
    def _budgets_are_times(cls, budgets: dict[str, float]) -> dict[str, float]:
        for name, budget in budgets.items():
            if not 0 < budget <= 60_000:
                raise ValueError(f"{name}: {budget:g}; give above 0 and at most 60000 ms")
        return budgets

    @model_validator(mode="after")
    def _listens_safely_and_once(self) -> Self:
        host, _, port = self.listen.rpartition(":")
        if self.tls is None and not ipaddress.IPv4Address(host).is_loopback:
            raise ValueError(
                f"listen: {self.listen} is open to other machines, and keys would travel in plain text; give tls, or "
                f"listen on {HOST} (slipway gateway --self-signed FOLDER makes a certificate to try with)"
            )
        servers = [("stable", self.stable)] + ([("candidate", self.candidate)] if self.candidate else [])
        used = {int(port): "listen"}
        given = [("metrics_port", self.metrics_port)]
        given += [("observe.metrics_port", self.observe.metrics_port)] if self.observe else []
        given += [("watch.metrics_port", self.watch.metrics_port)] if self.watch else []
        for name, server in servers:
            given += [(f"{name}.{one}", number) for one, number in vars(server).items() if number is not None]
        for name, number in given:
            if number in used:
                raise ValueError(f"{name}: port {number} is that of {used[number]} too; all must differ")
            used[number] = name
        return self

    @property
    def file(self) -> Path:
        """The file that the settings were read from, as the user gave it, for the commands that a person is told."""
        return self._file

    @property
    def all_budgets_ms(self) -> dict[str, float]:
        """Latency budget in ms of each ensemble that has one: `<name>_full` has that of `<name>` unless it has its
        own."""
        plain = {name: budget for name, budget in self.budgets_ms.items() if not name.endswith(FULL_SUFFIX)}
        return {f"{name}{FULL_SUFFIX}": budget for name, budget in plain.items()} | self.budgets_ms

    @property
    def host_port(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host, int(port)

    @property
    def folder(self) -> Path:
        """The folder of the running gateway, in which its routes are."""
        return user_folder("XDG_STATE_HOME", ".local/state") / "slipway" / f"gateway-{self.host_port[1]}"

    @property
    def spool(self) -> Path:
        """Folder of Envoy's tap files; unused without `observe`."""
        given = self.observe.spool if self.observe else None
        return Path(given) if given else self.folder / "spool"

    @property
    def journal(self) -> Path:
        """The folder of the journal; of no meaning without `observe`."""
        given = self.observe.journal if self.observe else None
        return Path(given) if given else self.folder / "journal"


def read_settings(path: Path) -> GatewaySettings:
    """Read `gateway.yaml`; the files that it names become absolute.

    Raises:
        SpecError: the file is invalid, or a file that it names is missing.
    """
    settings = GatewaySettings.read(path)
    base = path.resolve().parent
    changes: dict[str, object] = {
        "teams": {
            name: team.model_copy(update={key: str(base / path) for key, path in key_files(team).items()})
            for name, team in settings.teams.items()
        }
    }
    if settings.tls is not None:
        changes["tls"] = Tls(certificate=str(base / settings.tls.certificate), key=str(base / settings.tls.key))
        _check_certificate(path, Path(base / settings.tls.certificate))
        read_secret(base / settings.tls.key, what="tls.key", source=path)
    for name in ("repository", "access_log"):
        if given := getattr(settings, name):
            changes[name] = str(base / given)
    if settings.observe is not None:
        folders = {name: getattr(settings.observe, name) for name in ("journal", "spool")}
        absolute = {name: str(base / given) for name, given in folders.items() if given}
        changes["observe"] = settings.observe.model_copy(update=absolute)
    if settings.labels is not None:
        changes["labels"] = settings.labels.below(base)
    return settings.model_copy(update=changes)


def _check_certificate(source: Path, certificate: Path) -> None:
    try:
        text = certificate.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{source}: tls.certificate: {certificate} cannot be read: {_reason(error)}") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise SpecError(
            f"{source}: tls.certificate: {certificate} has no certificate in PEM; name a file with the lines "
            "-----BEGIN CERTIFICATE-----"
        )


def key_files(team: TeamKey) -> dict[str, str]:
    """The files with a team's keys, by their name in the settings."""
    former = {"former_key_file": team.former_key_file} if team.former_key_file is not None else {}
    return {"key_file": team.key_file, **former}


def read_keys(settings: GatewaySettings, *, source: Path) -> dict[str, str]:
    """The team of each key; during a rotation, a team has two.

    Raises:
        SpecError: a file is missing, others may read it, it does not hold a key, or two files hold one key. No message
            contains a key.
    """
    teams: dict[str, str] = {}
    for name, team in settings.teams.items():
        for setting, path in key_files(team).items():
            what = f"teams.{name}.{setting}"
            key = read_secret(Path(path), what=what, source=source).strip()
            if not _KEY.fullmatch(key):
                raise SpecError(
                    f"{source}: {what}: {path} must hold one line of 16 to 256 of A-Z, a-z, 0-9 and ._~+/=-; slipway "
                    "gateway --new-key FILE makes one"
                )
            if (same := teams.get(key)) == name:
                raise SpecError(f"{source}: {what}: its key is that of key_file; give the key before, or leave it out")
            if same is not None:
                raise SpecError(
                    f"{source}: {what}: its key is that of {same} too; give each team its own, since the key says "
                    "whose rate a request counts for"
                )
            teams[key] = name
    return teams


def read_secret(path: Path, *, what: str, source: Path) -> str:
    """The text of a file that only its owner may read; raises SpecError otherwise."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{source}: {what}: {path} cannot be read: {_reason(error)}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SpecError(
            f"{source}: {what}: others than its owner may use {path} (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}"
        )
    return text


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.strerror}; take it from where you keep secrets, or make a new one (docs/keys.md)"
    if isinstance(error, OSError):
        return f"{error.strerror or error}; name another file, or change its permissions"
    return "not UTF-8 text; name a text file, which a certificate or key in PEM is"


def budget_edges_ms(settings: GatewaySettings) -> list[float]:
    """The classifiers' budgets, that of the spec's default included."""
    return sorted({LatencyGate().p99_ms, *settings.budgets_ms.values()})


def default_budgets(settings: GatewaySettings, models: Iterable[str]) -> str:
    """A sentence on the models whose latency counts at the default budget; empty if `budgets_ms` sets that of each."""
    names = sorted(set(models) - settings.all_budgets_ms.keys())
    budget = f"latency budget {LatencyGate().p99_ms:g} ms by default for {few(names)}; budgets_ms sets it"
    return budget if names else ""
