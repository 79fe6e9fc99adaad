"""Simulates releases whose truth is known, many runs at once: counts of both arms in blocks of five seconds, and
labels."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from slipway.operations.release.counts import BLOCK_S

Array = npt.NDArray[np.float64]
Truth = Literal["same", "worse", "at the limit"]

PER_S = 100.0
WEIGHT = 0.1
MINUTES = 75.0
"""Time of each run: promotions are possible after the hour of `bake_minutes`."""


@dataclass(frozen=True)
class Counted:
    """Counts of requests and errors, `[runs, blocks]`."""

    candidate_requests: Array
    candidate_errors: Array
    candidate_slow: Array
    stable_requests: Array
    stable_errors: Array


@dataclass(frozen=True)
class Bursts:
    """Blocks in which a share of an arm's requests fails, whatever release it is."""

    per_block: float
    """Probability that a burst begins in a block."""
    share: float
    blocks: int
    shared: bool = False
    """Whether both arms have the same bursts, as if a service that both need is down."""
    more: float = 1.0
    """Frequency of the candidate's bursts over that of stable's, if each arm has its own."""


@dataclass(frozen=True)
class Scenario:
    """One kind of release. `truth` says which verdicts are false."""

    name: str
    truth: Truth
    minutes: float = MINUTES
    errors: float = 0.01
    ratio: float = 1.0
    calm_min: float = 0.0
    """Minutes in which the candidate has as few errors as stable, before the ratio holds."""
    caught_min: float = 15.0
    """Minutes within which a worse candidate is to be rolled back."""
    slow: float = 0.002
    bursts: Bursts | None = None
    slow_bursts: Bursts | None = None
    weights: tuple[float, ...] = (WEIGHT,)
    """Weights of the candidate, each for an equal part of the time; the error rate doubles with each part."""
    per_s: float = PER_S
    """Requests of both arms."""
    judged: bool = field(default=True)
    """Whether the bars apply; otherwise the figures show a limit of the method."""

    @property
    def calm_looks(self) -> int:
        """Number of looks at which the candidate is as good as stable."""
        return round(60 * self.calm_min / BLOCK_S)

    @property
    def caught_looks(self) -> int:
        """Looks within which a worse candidate is to be rolled back."""
        return round(60 * self.caught_min / BLOCK_S)

    def simulate(self, rng: np.random.Generator, runs: int) -> Counted:
        blocks = round(self.minutes * 60 / BLOCK_S)
        part = np.arange(blocks) * len(self.weights) // blocks
        weight, base = np.array(self.weights)[part], self.errors * 2.0**part
        requests = [rng.poisson(self.per_s * BLOCK_S * share, (runs, blocks)) for share in (weight, 1 - weight)]
        bursting = self._bursting(rng, (runs, blocks), self.bursts)
        ratio = np.where(np.arange(blocks) < self.calm_looks, 1.0, self.ratio)
        shares = base * ratio, base
        candidate, stable = (rng.binomial(of, np.minimum(share, 1)) for of, share in zip(requests, shares, strict=True))
        if self.bursts:
            candidate += rng.binomial(requests[0] - candidate, self.bursts.share * bursting[0])
            stable += rng.binomial(requests[1] - stable, self.bursts.share * bursting[1])
        slow = np.full((runs, blocks), self.slow)
        if self.slow_bursts:
            slow = self.slow + self.slow_bursts.share * self._bursting(rng, (runs, blocks), self.slow_bursts)[0]
        counts = (requests[0], candidate, rng.binomial(requests[0], np.minimum(slow, 1)), requests[1], stable)
        return Counted(*(values.astype(np.float64) for values in counts))

    @staticmethod
    def _bursting(
        rng: np.random.Generator, shape: tuple[int, int], bursts: Bursts | None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        def one(more: float) -> npt.NDArray[np.bool_]:
            if bursts is None:
                return np.zeros(shape, dtype=bool)
            begins = rng.random(shape) < more * bursts.per_block
            lasting = begins.copy()
            for later in range(1, bursts.blocks):
                lasting[:, later:] |= begins[:, :-later]
            return lasting

        first = one(bursts.more if bursts else 1.0)
        return first, first if bursts and bursts.shared else one(1.0)


@dataclass(frozen=True)
class Labelled:
    """Releases whose differing images are labelled one by one; only one version answers each image rightly."""

    name: str
    truth: Truth
    lost: float
    """Probability that the stable version is the right one."""
    labels: int = 1000
    compared: int = 10_000
    """Number of compared images, of which these differ."""
    judged: bool = True
    calm_looks: ClassVar[int] = 0

    @property
    def caught_looks(self) -> int:
        return self.labels

    def simulate(self, rng: np.random.Generator, runs: int) -> tuple[Array, Array]:
        """Simulate the lost and won images at each label, `[runs, labels]`."""
        lost = (rng.random((runs, self.labels)) < self.lost).astype(np.float64)
        return lost, 1 - lost


LABELLED = (
    Labelled("disagreements, as many lost as won", "same", 1 / 2),
    Labelled("disagreements, twice as many lost as won", "worse", 2 / 3),
)
SHORT, LONG = Bursts(0.01, 0.3, 1), Bursts(0.003, 0.3, 6)
SHARED = Bursts(0.002, 0.5, 12, shared=True)
STALLS, LONG_STALLS = Bursts(0.01, 0.5, 1), Bursts(0.003, 0.1, 24)
SCENARIOS = (
    Scenario("no difference, 1 % errors", "same"),
    Scenario("no difference, 0.1 % errors", "same", errors=0.001),
    Scenario("no difference, no errors", "same", errors=0.0),
    Scenario("no difference, weight 10, 25, 50 %, errors double", "same", errors=0.005, weights=(0.1, 0.25, 0.5)),
    Scenario("errors x2 of 0.5 %", "worse", errors=0.005, ratio=2, judged=False),
    Scenario("errors x2 of 1 %", "worse", ratio=2),
    Scenario("errors x2 of 2 %", "worse", errors=0.02, ratio=2),
    Scenario("errors x3 of 1 %", "worse", ratio=3),
    Scenario("errors 0 to 2 %", "worse", errors=1e-5, ratio=2000),
    Scenario("every request fails", "worse", errors=1e-3, ratio=1000),
    Scenario("every request fails after 1 min", "worse", errors=1e-3, ratio=1000, calm_min=1),
    Scenario("every request fails after 10 min", "worse", errors=1e-3, ratio=1000, calm_min=10, caught_min=40),
    Scenario("errors x2 for an hour", "at the limit", ratio=2),
    Scenario("bursts of 5 s, 30 % fail, each arm its own", "same", bursts=SHORT),
    Scenario("bursts of 5 s, all fail, each arm its own", "same", errors=0.001, bursts=Bursts(0.005, 1.0, 1)),
    Scenario("bursts of 30 s, 30 % fail, each arm its own", "same", bursts=LONG),
    Scenario("bursts of 60 s, 50 % fail, both arms at once", "same", bursts=SHARED),
    Scenario("bursts of 30 s, 10 % fail, each arm its own", "same", bursts=Bursts(0.003, 0.1, 6)),
    Scenario("bursts of 2 min, 10 % fail, each arm its own", "same", bursts=Bursts(0.003, 0.1, 24)),
    Scenario("bursts of 2 min, 40 % fail, each arm its own", "same", bursts=Bursts(0.001, 0.4, 24)),
    Scenario("bursts of 2 min, 40 % fail, 2 requests/s", "same", bursts=Bursts(0.001, 0.4, 24), per_s=2, judged=False),
    Scenario(
        "bursts of 2 min, 40 % fail, 2 requests/s, weight 50 %",
        "same",
        bursts=Bursts(0.001, 0.4, 24),
        weights=(0.5,),
        per_s=2,
    ),
    Scenario("every request fails, 2 requests/s", "worse", errors=1e-3, ratio=1000, per_s=2),
    Scenario("bursts of 5 min, 10 % fail, each arm its own", "same", bursts=Bursts(0.001, 0.1, 60), judged=False),
    Scenario("errors x2 of 1 %, bursts of 5 s, each arm its own", "at the limit", ratio=2, bursts=SHORT),
    Scenario("errors x2 of 1 %, bursts of 30 s, each arm its own", "at the limit", ratio=2, bursts=LONG),
    Scenario("errors x2 of 1 %, bursts of 60 s, both arms at once", "at the limit", ratio=2, bursts=SHARED),
    Scenario("bursts of 5 s, all fail, four times as many", "at the limit", bursts=Bursts(0.005, 1.0, 1, more=4)),
    Scenario("slow candidate, 2 % over the budget", "worse", slow=0.02),
    Scenario("slow candidate, 1.5 % over the budget", "worse", slow=0.015, caught_min=60),
    Scenario("1 % over the budget", "at the limit", slow=0.01),
    Scenario("0.9 % over the budget, in stalls of 5 s", "same", slow=0.004, slow_bursts=STALLS),
    Scenario("0.9 % over the budget, in stalls of 2 min", "same", slow_bursts=LONG_STALLS, judged=False),
    Scenario("1.1 % over the budget, in stalls of 5 s", "at the limit", slow=0.006, slow_bursts=STALLS),
)
