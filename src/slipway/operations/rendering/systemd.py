"""Units of systemd for one box: servers, gateway, journal, watch and daily timers, each with few rights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slipway.contract import SpecError
from slipway.operations.gateway.settings import GatewaySettings, ServerPorts
from slipway.operations.rendering.plan import MIB, ServerNeeds, absolute_path
from slipway.operations.rendering.pods import EXIT_S
from slipway.serving.container import ULIMITS

KIND = "systemd"
TARGET = "slipway.target"
STATE = "/var/lib/slipway"
RUNTIME = "/run/slipway"
"""Folder in memory that gateway and journal share."""
DAILY_S = 3600
"""Longest time that a daily unit may take."""
_FOR_EVER = ("# It is started again for ever: pauses grow in Slipway itself.", "StartLimitIntervalSec=0")
_RESTARTED = ("Restart=on-failure", "RestartSec=2")
_INSTALLED = ("[Install]", f"WantedBy={TARGET}", "")
_SPOOL = (
    "# In memory, for the spool; it stays while one of the units that share it is started again.",
    f"RuntimeDirectory={PurePosixPath(RUNTIME).name}",
    "RuntimeDirectoryMode=0700",
    "RuntimeDirectoryPreserve=yes",
)
_TIMERS = (
    "systemctl list-timers 'slipway-*'              # what runs each day, by classifier",
    "journalctl --unit 'slipway-labels@*' --unit 'slipway-turn@*'   # what it said",
)
_OWN_MACHINE = ("IPAddressDeny=any", "IPAddressAllow=localhost")
_FEW_RIGHTS = """
# Few rights: nothing but its state can be written, and nothing of others can be seen.
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
UMask=0077
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
""".strip()


@dataclass(frozen=True)
class Box:
    """Paths on the machine that serves."""

    program: str
    """The installed command."""
    settings: str
    """The gateway's settings."""
    repository: str
    candidate: str | None
    user: str
    fleet: str | None = None
    """The fleet file, for the reasons for a turn."""
    written: tuple[str, ...] = ()
    """Folders in the settings to which the units write: spool, journal and log."""

    def __post_init__(self) -> None:
        paths = {"--program": self.program, "--settings-at": self.settings, "the repository": self.repository}
        optional = {"the candidate": self.candidate, "--fleet-at": self.fleet}
        paths |= {what: path for what, path in optional.items() if path is not None}
        given = [*paths.items(), *(("the settings", folder) for folder in self.written), ("--user", self.user)]
        for what, text in given:
            if not text or any(char in text for char in " \t\n\"'\\%$"):
                raise SpecError(f"{what}: {text!r}: units of systemd take no spaces, quotes, % or $ in it; use another")
            if what != "--user":
                absolute_path(text, what=what)


@dataclass(frozen=True)
class Daily:
    """Classifiers for which a verb runs each day."""

    labelled: tuple[str, ...] = ()
    """Classifiers for which rows are chosen for labels."""
    turned: tuple[str, ...] = ()
    """Classifiers for which reasons for a turn are looked for."""


@dataclass(frozen=True)
class Unit:
    """A service."""

    name: str
    description: str
    command: Sequence[str]
    after: Sequence[str] = ()
    lines: Sequence[str] = ()
    """Lines of its own."""
    capabilities: str = ""
    system_calls: str = "@system-service"
    writes: bool = True
    """Whether the unit writes to the folders that the settings name."""
    daily_at: str | None = None
    """Time of day, UTC, at which a timer starts it; None for a unit that always runs."""

    def text(self, box: Box) -> str:
        always = self.daily_at is None
        ordered = [f"After={' '.join(['network-online.target', *self.after])}", "Wants=network-online.target"]
        return "\n".join(
            [
                "# Written by slipway render systemd.",
                "[Unit]",
                f"Description={self.description}",
                *ordered,
                f"PartOf={TARGET}",
                *(_FOR_EVER if always else ()),
                "",
                "[Service]",
                f"Type={'exec' if always else 'oneshot'}",
                f"ExecStart={' '.join([box.program, *self.command])}",
                *self.lines,
                f"User={box.user}",
                f"Group={box.user}",
                "StateDirectory=slipway",
                "StateDirectoryMode=0700",
                *([f"ReadWritePaths={' '.join(box.written)}"] if box.written and self.writes else []),
                "# The home alone: verbs that this user calls look in the same folders.",
                f"Environment=HOME={STATE}",
                "UnsetEnvironment=XDG_STATE_HOME XDG_CACHE_HOME",
                *(_RESTARTED if always else (f"TimeoutStartSec={DAILY_S}",)),
                "KillMode=mixed",
                f"TimeoutStopSec={EXIT_S}",
                "",
                *_FEW_RIGHTS.format(capabilities=self.capabilities).splitlines(),
                f"SystemCallFilter={self.system_calls}",
                "SystemCallErrorNumber=EPERM",
                "",
                *(_INSTALLED if always else ()),
            ]
        )

    def timer(self) -> str:
        """The timer of a daily unit."""
        return "\n".join(
            [
                "# Written by slipway render systemd.",
                "[Unit]",
                f"Description={self.description}, each day",
                f"PartOf={TARGET}",
                "",
                "[Timer]",
                f"OnCalendar=*-*-* {self.daily_at} UTC",
                "RandomizedDelaySec=15min",
                "# A box that was off at that time does it once it is on again.",
                "Persistent=true",
                "",
                *_INSTALLED,
            ]
        )


def systemd_files(
    settings: GatewaySettings,
    server: ServerNeeds,
    box: Box,
    *,
    candidate: ServerNeeds | None,
    daily: Daily,
    notes: Sequence[str] = (),
) -> dict[str, str]:
    """Every unit by its file name; equal input gives equal bytes.

    Args:
        notes: sentences for the person who installs the units.

    Raises:
        SpecError: the settings have a candidate and no repository of it is given, or the other way round.
    """
    if (settings.candidate is None) != (candidate is None):
        raise SpecError(
            "candidate: the settings name its ports, and --candidate-repository its folder; give both, or neither"
        )
    units = [_server("server", settings.stable, server, box.repository, program=box.program)]
    if candidate is not None and settings.candidate is not None and box.candidate is not None:
        units.append(_server("candidate", settings.candidate, candidate, box.candidate, program=box.program))
    units.append(_gateway(settings, box))
    if settings.observe is not None:
        units.append(_follower("journal", "keeps a sample of requests", ["journal", "run", box.settings], lines=_SPOOL))
    if settings.watch is not None:
        units.append(_follower("watch", "watches drift and accuracy", ["watch", "run", box.settings]))
    names = [f"slipway-{unit.name}.service" for unit in units]
    files = {name: unit.text(box) for name, unit in zip(names, units, strict=True)}
    for unit, classifiers in _daily_units(daily, box):
        files |= {f"slipway-{unit.name}.service": unit.text(box), f"slipway-{unit.name}.timer": unit.timer()}
        names += [f"slipway-{unit.name}{classifier}.timer" for classifier in classifiers]
    return {**files, TARGET: _target(names), "README.md": _readme([*files], box, notes)}


def _server(name: str, ports: ServerPorts, server: ServerNeeds, repository: str, *, program: str) -> Unit:
    options = {"grpc": ports.grpc, "http": ports.http, "metrics": ports.metrics_port, "status": ports.status}
    words = [word for option, port in options.items() for word in (f"--{option}-port", str(port))]
    devices = ["PrivateDevices=yes"]
    if server.lane.needs_gpu:
        devices = ["DevicePolicy=closed", "DeviceAllow=char-nvidia* rw"]
    limits = {"NOFILE": ULIMITS["nofile"], "STACK": ULIMITS["stack"], "MEMLOCK": "infinity"}
    return Unit(
        name,
        f"Slipway: tritonserver on {PurePosixPath(repository).name}",
        ["serve", repository, *words, "--timeout-s", str(server.start_s)],
        lines=[
            f"ExecReload={program} reload --status-port {ports.status}",
            "# Nobody but this machine reaches it, and it reaches nobody: the gateway serves others.",
            *_OWN_MACHINE,
            f"MemoryMax={server.memory_bytes * 2 // MIB}M",
            *(f"Limit{limit}={value}" for limit, value in limits.items()),
            *devices,
        ],
        # The launcher hides the server's key with ptrace.
        system_calls="@system-service ptrace",
        writes=False,
    )


def _gateway(settings: GatewaySettings, box: Box) -> Unit:
    return Unit(
        "gateway",
        "Slipway: Envoy, with TLS, keys and rates",
        ["gateway", box.settings],
        after=["slipway-server.service"],
        lines=[
            "ExecReload=/bin/kill -USR1 $MAINPID",
            "PrivateDevices=yes",
            f"LimitNOFILE={ULIMITS['nofile']}",
            *(_SPOOL if settings.observe is not None else ()),
        ],
        capabilities="CAP_NET_BIND_SERVICE" if settings.host_port[1] < 1024 else "",
    )


def _daily_units(daily: Daily, box: Box) -> Iterator[tuple[Unit, Sequence[str]]]:
    """Yield the unit of each daily verb, a template, with the classifiers for which it runs."""
    if daily.labelled:
        words = ["labels", "select", box.settings, "--classifier", "%i"]
        yield _follower("labels@", "chooses rows of %i for labels", words, daily_at="00:15:00"), daily.labelled
    if daily.turned and box.fleet is not None:
        words = ["turn", "propose", box.settings, box.fleet, "%i"]
        lines = ("# 2: no reason.", "SuccessExitStatus=2")
        unit = _follower("turn@", "looks for reasons for a turn of %i", words, lines=lines, daily_at="01:15:00")
        yield unit, daily.turned


def _follower(
    name: str, what: str, command: Sequence[str], *, lines: Sequence[str] = (), daily_at: str | None = None
) -> Unit:
    return Unit(
        name,
        f"Slipway: {what}",
        command,
        after=["slipway-gateway.service"],
        lines=[*lines, *_OWN_MACHINE, "PrivateDevices=yes", "Nice=10"],
        daily_at=daily_at,
    )


def _target(names: Sequence[str]) -> str:
    return "\n".join(
        [
            "# Written by slipway render systemd.",
            "[Unit]",
            "Description=Slipway: everything of one box",
            f"Wants={' '.join(names)}",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        ]
    )


def _readme(names: Sequence[str], box: Box, notes: Sequence[str]) -> str:
    timers = any(name.endswith(".timer") for name in names)
    fleet = f"; and `{box.fleet}` with its runs" if box.fleet is not None else ""
    lines = [
        "# Slipway as services of systemd",
        "",
        "Written by `slipway render systemd`; keep changes in drop-ins (`systemctl edit`). First, on the machine that "
        f"serves: `{box.program}`, in a virtual environment with the extras `serve` and `operate`; `{box.settings}`, "
        f"with the keys and the certificate that it names; and the repositories{fleet}. Then, in this folder:",
        "",
        "```bash",
        f"useradd --system --home-dir {STATE} --shell /usr/sbin/nologin {box.user}",
        f"chown {box.user} KEYS_AND_CERTIFICATE          # mode 600: what {PurePosixPath(box.settings).name} names",
        *([f"install --directory --owner {box.user} --mode 700 {' '.join(box.written)}"] if box.written else []),
        f"cp *.service *.target {'*.timer ' if timers else ''}/etc/systemd/system/",
        "systemctl daemon-reload",
        f"systemctl enable --now {TARGET}",
        "systemctl reload slipway-gateway               # new keys, certificate or classifiers",
        f"sudo -H -u {box.user} {box.program} release status {box.settings}   # verbs find the state of the services",
        *(_TIMERS if timers else ()),
        "```",
        "",
        "Units: " + ", ".join(f"`{name}`" for name in names) + ".",
        *(f"\n- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def written_folders(settings: GatewaySettings, *, source: Path, at: str) -> tuple[str, ...]:
    """The folders outside the state that the gateway and the journal write, on the machine that serves.

    Args:
        source: the settings here, beside which relative paths are.
        at: the settings there.
    """
    observe = settings.observe
    named = [observe.spool, observe.journal] if observe else []
    named += [str(Path(settings.access_log).parent)] if settings.access_log else []
    here, there = source.resolve().parent, PurePosixPath(at).parent
    found = {
        str(there / Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
        for path in named
        if path is not None and not PurePosixPath(path).is_relative_to(RUNTIME)
    }
    return tuple(sorted(found))


def spool_notes(settings: GatewaySettings) -> list[str]:
    """A sentence for spools that may be on a disk; none for those in `RUNTIME`, or without a journal."""
    if settings.observe is None or settings.spool.is_relative_to(RUNTIME):
        return []
    return [
        f"The spool is not below {RUNTIME}: unless a tmpfs is mounted at its place, sampled requests wait for a disk. "
        f"Write spool: {RUNTIME}/spool below observe:, and render again; the units make that folder in memory."
    ]
