"""What a verdict looks like."""

from typing import Literal

from slipway.contract.evidence.latency import Verdict

Tone = Literal["good", "warn", "bad", "plain"]
TONES: dict[Verdict, Tone] = {
    Verdict.PASS: "good",
    Verdict.FAIL: "bad",
    Verdict.TOO_FEW: "warn",
    Verdict.LATE: "warn",
}
