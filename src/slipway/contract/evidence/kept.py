"""`old_test.json`: whether a run that was trained again lost anything on the test split of the run before."""

from slipway.contract.base import Contract
from slipway.contract.evidence.gate import FAIL, PASS, TOO_FEW, Comparison, Verdict, tolerated

FILE_NAME = "old_test.json"


class OldTest(Contract):
    """The answers of both runs' served engines to the old test images, compared in pairs."""

    old_bundle: str
    bundle: str
    old_engine_sha256: str
    """Hash of the manifest of the engine whose answers are compared."""
    engine_sha256: str
    overall: Comparison
    classes: dict[str, Comparison]
    prove_classes: bool

    @property
    def hindering(self) -> dict[str, Comparison]:
        """The classes that prevent a pass."""
        return {
            label: result for label, result in self.classes.items() if not tolerated(result, prove=self.prove_classes)
        }

    @property
    def verdict(self) -> Verdict:
        verdicts = {self.overall.verdict, *(result.verdict for result in self.hindering.values())}
        return FAIL if FAIL in verdicts else TOO_FEW if verdicts - {PASS} else PASS

    def lines(self) -> list[str]:
        hindering = [f"  class {label}: {result}" for label, result in self.hindering.items()]
        return [f"old test split: {self.overall}", *hindering]
