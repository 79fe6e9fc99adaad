"""Describes the changes of a gateway at a reload, without a secret."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from slipway.operations.gateway.settings import GatewaySettings, key_files


def contents(settings: GatewaySettings) -> dict[str, str]:
    """A digest of each thing that a gateway reads: settings, keys and certificate, by its name in a sentence."""
    found = {name: str(value) for name, value in settings if name not in ("teams", "tls")}
    for name, team in settings.teams.items():
        found[f"rate of {name}"] = f"{team.per_second} {team.burst}"
        for setting, path in key_files(team).items():
            found[f"{setting.removesuffix('_file').replace('_', ' ')} of {name}"] = (
                Path(path).read_text("utf-8").strip()
            )
    if settings.tls is not None:
        found["certificate"] = Path(settings.tls.certificate).read_text("utf-8")
        found["private key"] = Path(settings.tls.key).read_text("utf-8")
    return {name: sha256(text.encode()).hexdigest() for name, text in found.items()}


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Return the changes from `old` to `new` in words."""
    done = {
        "took up": [name for name in new if new[name] != old.get(name)],
        "withdrew": [name for name in old if name not in new],
    }
    said = [f"{what} {', '.join(names)}" for what, names in done.items() if names]
    return " and ".join(said) or "found nothing new"
