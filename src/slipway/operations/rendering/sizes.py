"""Quantities of Kubernetes."""

import re
from fractions import Fraction

from slipway.contract import SpecError

_UNITS: dict[str, int | Fraction] = {"": 1, "m": Fraction(1, 1000)}
_UNITS |= {name: 1000**power for power, name in enumerate(("", "k", "M", "G", "T", "P", "E")) if name}
_UNITS |= {f"{name}i": 1024**power for power, name in enumerate(("", "K", "M", "G", "T", "P", "E")) if name}
_QUANTITY = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,2})|([A-Za-z]*))")


def bytes_of(text: str) -> int:
    """`512Mi`, `1e9` or `1.5G` as bytes; raises SpecError if it is not a quantity."""
    found = _QUANTITY.fullmatch(text)
    if found is None or (found[3] or "") not in _UNITS:
        raise SpecError(f"{text!r} is not a quantity of memory; write it as 512Mi or 2Gi")
    number = Fraction(found[1])
    return int(number * Fraction(10) ** int(found[2]) if found[2] else number * _UNITS[found[3] or ""])
