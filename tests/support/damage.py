"""Files as somebody could damage or forge them."""

import os
from pathlib import Path


def flip_byte(path: Path, at: int | None = None) -> None:
    """Change one bit of the byte `at`, or of the one in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


class Payload:
    """Unpickling this makes the folder `trace`: a stand-in for whatever somebody hides in a pickle."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)
