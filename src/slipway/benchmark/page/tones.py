"""What a verdict looks like."""

from slipway.benchmark.statistics import Verdict
from slipway.pages.tables import Tone

TONES: dict[Verdict, Tone] = {
    Verdict.PASS: "good",
    Verdict.FAIL: "bad",
    Verdict.TOO_FEW: "warn",
    Verdict.LATE: "warn",
}
