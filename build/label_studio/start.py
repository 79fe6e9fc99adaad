#!/usr/bin/env python3
"""Start a Label Studio of one user on 127.0.0.1, from the environment that `make label-studio` installs."""

import argparse
import os
import secrets
import shutil
import stat
import subprocess
from pathlib import Path

from slipway.system.arguments import Parser, port
from slipway.system.process import run

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv/label-studio/bin/label-studio"
FRESH = ROOT / ".venv/label-studio/fresh"
"""Holds a database without users and projects: a first start copies it, and saves half a minute of a core."""
DATABASE = "label_studio.sqlite3"
USER = "annotator@localhost.localdomain"
ENVIRONMENT = {
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}


def main(arguments: argparse.Namespace) -> None:
    if arguments.prepare:
        prepare(FRESH)
        return
    folder: Path = arguments.data.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (FRESH / DATABASE).is_file() and not (folder / DATABASE).exists():
        copy = shutil.copyfile(FRESH / DATABASE, folder / f"{DATABASE}.part")
        copy.rename(folder / DATABASE)  # whole, or not there
    token, password = secret(folder / "token", size=20), secret(folder / "password", size=12)
    url = f"http://127.0.0.1:{arguments.port}"
    print(f"{url}, after a minute the first time\n  user {USER}, password in {folder}/password")
    print(f"  in gateway.yaml: labels: {{label_studio: {{url: {url}, token_file: {folder}/token}}}}", flush=True)
    os.execve(
        PROGRAM,
        [
            *(str(PROGRAM), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(arguments.port)),
            *("--data-dir", str(folder), "--username", USER),
        ],
        {
            **os.environ,
            **ENVIRONMENT,
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
            "LABEL_STUDIO_PASSWORD": password,  # here, since everybody may read the words of a command
            "LABEL_STUDIO_USER_TOKEN": token,
        },
    )


def prepare(folder: Path) -> None:
    """Make the database in `folder`: every verb of Label Studio does so first, and `version` does nothing else."""
    words = (str(PROGRAM), "version", "--data-dir", str(folder))
    environment = {**os.environ, **ENVIRONMENT, "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL)


def secret(path: Path, *, size: int) -> str:
    """The content of a file that only its owner may read, which is made with a random text of `size` bytes."""
    if not path.is_file():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_hex(size)}\n")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return path.read_text(encoding="utf-8").strip()


def parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "runs/label-studio", help="folder of its data")
    parser.add_argument("--port", type=port, default=8080, help="port of its page")
    parser.add_argument(
        "--prepare", action="store_true", help="make the empty database that a first start copies, and end"
    )
    return parser


if __name__ == "__main__":
    run(main, parser())
