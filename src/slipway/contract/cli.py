"""How every script ends: a message and exit code 1 for a SlipwayError, 130 for Ctrl-C; a bug keeps its traceback."""

import argparse
import sys
from collections.abc import Callable

from slipway.contract.errors import SlipwayError
from slipway.contract.targets import storage_error


def run(main: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line, call `main`, and exit with what it returns (None is 0)."""
    arguments = parser.parse_args()
    try:
        sys.exit(main(arguments))
    except SlipwayError as error:
        sys.exit(f"{parser.prog}: {error}")
    except OSError as error:  # a full disk, a folder that may not be written, and the like
        told = storage_error(error)
        if told is None:
            raise
        sys.exit(f"{parser.prog}: {told}")
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted; nothing half-written is left", file=sys.stderr)
        sys.exit(130)
