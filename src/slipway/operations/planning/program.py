"""A mixed-integer program, built row by row and solved by HiGHS through SciPy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Program:
    """Minimises `price @ x` for 0 <= x <= upper."""

    def __init__(self, size: int) -> None:
        self.price, self.upper, self.whole = np.zeros(size), np.full(size, np.inf), np.zeros(size, dtype=int)
        self._entries: list[tuple[int, int, float]] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def constrain(self, terms: Mapping[int, float], *, least: float = -np.inf, largest: float = np.inf) -> None:
        """Add `least <= sum(terms) <= largest`, with the factor of each variable."""
        self._entries.extend((len(self._low), int(column), value) for column, value in terms.items())
        self._low.append(least)
        self._high.append(largest)

    def solve(self, *, nodes: int) -> Any:
        """SciPy's result after so many nodes of the search tree, a limit that does not depend on the machine's speed.

        `x` is None if no solution was found; `mip_dual_bound` bounds the price from below.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        rows, columns, values = zip(*self._entries, strict=True)
        matrix = coo_array((values, (rows, columns)), shape=(len(self._low), len(self.price))).tocsr()
        return milp(
            self.price,
            constraints=LinearConstraint(matrix, np.array(self._low), np.array(self._high)),
            integrality=self.whole,
            bounds=Bounds(np.zeros(len(self.price)), self.upper),
            options={"node_limit": nodes},
        )
