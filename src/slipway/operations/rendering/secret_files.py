"""The teams' keys and the certificate as files for a cluster's Secrets, which only their owner may read."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from slipway.contract import SpecError
from slipway.operations.gateway.certificate import Certificate
from slipway.operations.gateway.listener import KEYS, key_resource
from slipway.operations.gateway.settings import read_keys, read_secret
from slipway.operations.rendering.plan import tls_settings
from slipway.system.targets import check_folder, told
from slipway.system.yaml_json import dump_yaml

CERTIFICATE, PRIVATE_KEY = "tls.crt", "tls.key"
"""The names that a Secret of type kubernetes.io/tls has."""


def write_secrets(source: Path, out: Path) -> list[str]:
    """Write `keys.yaml`, `tls.crt` and `tls.key`, whole or not at all; returns their names.

    Raises:
        SpecError: the settings, a key or the certificate are wrong, or `out` exists.
        StorageError: it cannot be written.
    """
    settings = tls_settings(source)
    assert settings.tls is not None
    if said := Certificate.read(settings.tls, source=source).problem(datetime.now(UTC)):
        raise SpecError(f"{source}: tls.certificate: {said}")
    files = {
        KEYS: dump_yaml(key_resource(read_keys(settings, source=source))),
        CERTIFICATE: Path(settings.tls.certificate).read_text(encoding="utf-8"),
        PRIVATE_KEY: read_secret(Path(settings.tls.key), what="tls.key", source=source),
    }
    if out.exists():
        raise SpecError(f"{out} exists; give another folder, or remove it: secrets are written over nothing")
    check_folder(out, kind="rendered")
    with told(out):
        out.mkdir(parents=True, mode=0o700)
        try:
            for name, text in files.items():
                (out / name).touch(mode=0o600)
                (out / name).write_text(text, encoding="utf-8")
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
    return sorted(files)
