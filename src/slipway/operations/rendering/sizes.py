"""Quantities of Kubernetes."""

import re

from slipway.contract import SpecError

_UNITS = {"": 1, "k": 1000, "M": 10**6, "G": 10**9, "T": 10**12, "E": 10**18}
_UNITS |= {f"{name}i": 1024**power for power, name in enumerate(("", "K", "M", "G", "T", "P", "E")) if name}


def bytes_of(text: str) -> int:
    """`512Mi` as bytes; raises SpecError if it is not a quantity."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text)
    if found is None or found[2] not in _UNITS:
        raise SpecError(f"{text!r} is not a quantity of memory; write it as 512Mi or 2Gi")
    return int(float(found[1]) * _UNITS[found[2]])
