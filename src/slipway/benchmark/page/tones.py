"""Chooses the colour of a verdict."""

from slipway.contract.evidence.latency import Verdict
from slipway.pages.tables import Badge, Tone

TONES: dict[Verdict, Tone] = {
    Verdict.PASS: "good",
    Verdict.FAIL: "bad",
    Verdict.TOO_FEW: "warn",
    Verdict.LATE: "warn",
}


def badge(verdict: Verdict) -> Badge:
    return Badge(verdict, TONES[verdict])
