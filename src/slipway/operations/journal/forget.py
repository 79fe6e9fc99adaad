"""Forgets what a person names, in the journal and in the spool."""

from pathlib import Path

from slipway.contract import SpecError
from slipway.operations.journal.spool import tap_files
from slipway.operations.journal.store import Store, sha256_of
from slipway.operations.journal.tapped import TapError, read_tapped
from slipway.system.text import command


def forget(store: Store, spool: Path, given: str) -> dict[str, int]:
    """Remove rows and images that `given` names; what of it is in the spool is not taken in.

    Args:
        given: number of a row, SHA-256 of an image, or id of a request, the gateway's or the client's.

    Returns:
        The number of `rows`, of `images` that no other row had, and of images in the spool (`spooled`).

    Raises:
        SpecError: `given` is empty, which is the client's id of every request without one.
    """
    if not given:
        rows = command("slipway journal rows", store.settings_file)
        raise SpecError(
            f"the name is empty; give the number of a row ({rows}), the SHA-256 of an image, or the id of a request"
        )
    return store.forget(given, spooled=_named(spool, given))


def _named(spool: Path, given: str) -> list[tuple[str, int]]:
    found = []
    for file in tap_files(spool):
        try:
            tapped = read_tapped(file.path.read_bytes())
        except (TapError, OSError):  # no row will come of it, or it is taken in just now
            continue
        whole = given in (file.request, tapped.client_id)
        for place, content in enumerate(tapped.images):
            if whole or sha256_of(content) == given:
                found.append((file.request, place))
    return found
