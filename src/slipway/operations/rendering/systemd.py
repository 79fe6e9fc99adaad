"""Units of systemd for one box: servers, gateway, journal and watch, each with few rights."""

from collections.abc import Sequence
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
    written: tuple[str, ...] = ()
    """Folders in the settings to which the units write: spool, journal and log."""

    def __post_init__(self) -> None:
        paths = {"--program": self.program, "--settings-at": self.settings, "the repository": self.repository}
        paths |= {"the candidate": self.candidate} if self.candidate is not None else {}
        given = [*paths.items(), *(("the settings", folder) for folder in self.written), ("--user", self.user)]
        for what, text in given:
            if not text or any(char in text for char in " \t\n\"'\\%$"):
                raise SpecError(f"{what}: {text!r}: units of systemd take no spaces, quotes, % or $ in it; use another")
            if what != "--user":
                absolute_path(text, what=what)


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

    def text(self, box: Box) -> str:
        ordered = [f"After={' '.join(['network-online.target', *self.after])}", "Wants=network-online.target"]
        return "\n".join(
            [
                "# Written by slipway render systemd.",
                "[Unit]",
                f"Description={self.description}",
                *ordered,
                f"PartOf={TARGET}",
                "# It is started again for ever: pauses grow in Slipway itself.",
                "StartLimitIntervalSec=0",
                "",
                "[Service]",
                "Type=exec",
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
                "Restart=on-failure",
                "RestartSec=2",
                "KillMode=mixed",
                f"TimeoutStopSec={EXIT_S}",
                "",
                *_FEW_RIGHTS.format(capabilities=self.capabilities).splitlines(),
                f"SystemCallFilter={self.system_calls}",
                "SystemCallErrorNumber=EPERM",
                "",
                "[Install]",
                f"WantedBy={TARGET}",
                "",
            ]
        )


def systemd_files(
    settings: GatewaySettings, server: ServerNeeds, box: Box, *, candidate: ServerNeeds | None
) -> dict[str, str]:
    """Every unit by its file name; equal input gives equal bytes.

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
        units.append(_follower("journal", "keeps a sample of requests", ["journal", "run", box.settings]))
    if settings.watch is not None:
        units.append(_follower("watch", "watches drift and accuracy", ["watch", "run", box.settings]))
    names = [f"slipway-{unit.name}.service" for unit in units]
    files = {name: unit.text(box) for name, unit in zip(names, units, strict=True)}
    return {**files, TARGET: _target(names), "README.md": _readme(names, box)}


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
        lines=["ExecReload=/bin/kill -USR1 $MAINPID", "PrivateDevices=yes", f"LimitNOFILE={ULIMITS['nofile']}"],
        capabilities="CAP_NET_BIND_SERVICE" if settings.host_port[1] < 1024 else "",
    )


def _follower(name: str, what: str, command: Sequence[str]) -> Unit:
    return Unit(
        name,
        f"Slipway: {what}",
        command,
        after=["slipway-gateway.service"],
        lines=[*_OWN_MACHINE, "PrivateDevices=yes", "Nice=10"],
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


def _readme(names: Sequence[str], box: Box) -> str:
    lines = [
        "# Slipway as services of systemd",
        "",
        "Written by `slipway render systemd`; keep changes in drop-ins (`systemctl edit`). First, on the machine that "
        f"serves: `{box.program}`, in a virtual environment with the extras `serve` and `operate`; `{box.settings}`, "
        "with the keys and the certificate that it names; and the repositories. Then, in this folder:",
        "",
        "```bash",
        f"useradd --system --home-dir {STATE} --shell /usr/sbin/nologin {box.user}",
        f"chown {box.user} KEYS_AND_CERTIFICATE          # mode 600: what {PurePosixPath(box.settings).name} names",
        *([f"install --directory --owner {box.user} --mode 700 {' '.join(box.written)}"] if box.written else []),
        "cp *.service *.target /etc/systemd/system/",
        "systemctl daemon-reload",
        f"systemctl enable --now {TARGET}",
        "systemctl reload slipway-gateway               # new keys, certificate or classifiers",
        f"sudo -H -u {box.user} {box.program} release status {box.settings}   # verbs find the state of the services",
        "```",
        "",
        "Units: " + ", ".join(f"`{name}`" for name in names) + ".",
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
        if path is not None
    }
    return tuple(sorted(found))
