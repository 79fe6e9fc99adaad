"""Rules that count requests at the gateway, by model, and with each classifier's own latency budget."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slipway.contract.spec import LatencyGate
from slipway.operations.gateway.access_logs import ANSWERS, LATENCY, SCOPE
from slipway.operations.gateway.routes import Node
from slipway.operations.monitoring.alerts import Case

WINDOW = "10m"
OVER, TIMED, ERRORS, ASKED, INVALID = (
    f"slipway:{name}:increase{WINDOW}" for name in ("over_budget", "timed", "errors", "answers", "invalid")
)
_ANSWERS, _LATENCY = f"envoy_{SCOPE}_{ANSWERS}", f"envoy_{SCOPE}_{LATENCY}"


def quoted(text: str) -> str:
    """`text` as a string of PromQL, whatever its characters are."""
    return json.dumps(text, ensure_ascii=False)


def one_of(names: Sequence[str]) -> str:
    """A regular expression of PromQL for exactly these names, as a string."""
    return quoted("|".join(re.escape(name) for name in names))


def edge(budget_ms: float) -> str:
    """The label `le` of a budget, as Envoy writes it, in µs."""
    return f"{1000 * budget_ms:.32g}"


@dataclass(frozen=True)
class Budget:
    """The models with one latency budget."""

    budget_ms: float
    models: tuple[str, ...]
    """Models with this budget; empty for the default, which is the budget of all others."""
    others: tuple[str, ...] = ()
    """Models with a budget of their own, for the default."""

    @property
    def matcher(self) -> str:
        return f"model=~{one_of(self.models)}" if self.models else f"model!~{one_of(self.others)}"

    @property
    def over(self) -> str:
        """The number of requests over this budget, by model and arm."""
        # Prometheus 2 keeps `le` as Envoy writes it, and Prometheus 3 makes it a decimal number.
        within = rf"{re.escape(edge(self.budget_ms))}(\.0)?"
        over = (
            f"increase({_LATENCY}_count{{{self.matcher}}}[{WINDOW}]) - ignoring (le) "
            f"increase({_LATENCY}_bucket{{{self.matcher},le=~{quoted(within)}}}[{WINDOW}])"
        )
        return f"sum by (model, arm) ({over})"

    def cases(self) -> list[Case]:
        """Tests of SlipwayOverBudget: 2 of 100 requests over the budget fire, and 5 of 1,000 do not."""
        model = self.models[-1] if self.models else f"not_{'_'.join(self.others)}"
        return [self._case(model, within="0+98x30", fires=True), self._case(model, within="0+199x30", fires=False)]

    def _case(self, model: str, *, within: str, fires: bool) -> Case:
        labels = f'model={quoted(model)},arm="stable"'
        count = "0+100x30" if fires else "0+200x30"
        bucket = f'{_LATENCY}_bucket{{{labels},le="{edge(self.budget_ms)}"}}'
        fired = ({"model": model, "arm": "stable"},) if fires else ()
        return Case(series={bucket: within, f"{_LATENCY}_count{{{labels}}}": count}, at="1m", fires=fired)


def budgets(budgets_ms: Mapping[str, float]) -> list[Budget]:
    """The default budget, and the others, smallest first."""
    models = defaultdict(list)
    for name in sorted(budgets_ms):
        models[budgets_ms[name]].append(name)
    own = [Budget(budget_ms, tuple(names)) for budget_ms, names in sorted(models.items())]
    return [Budget(LatencyGate().p99_ms, (), tuple(sorted(budgets_ms))), *own]


def recording_rules(budgets_ms: Mapping[str, float]) -> list[Node]:
    """Return the recording rules of the alerts and the dashboard: requests by model, errors, invalid requests, and
    requests over the budget.

    A request that the server refuses as invalid is its client's fault: one client could raise the share of errors, or
    hide it among its own requests. So it counts neither as an error nor as a request, but by its team.
    """
    invalid, bad = (
        " or ".join(f"increase({_ANSWERS}{{{labels}}}[{WINDOW}])" for labels in both)
        for both in (
            ('grpc="InvalidArgument"', 'grpc="",code="400"'),
            ('grpc!~"OK|InvalidArgument|"', 'grpc="",code!~"2..|400"'),
        )
    )
    asked = f'sum by (model) (increase({_ANSWERS}{{grpc!="InvalidArgument",code!="400"}}[{WINDOW}]))'
    return [
        {"record": ASKED, "expr": asked},
        {"record": ERRORS, "expr": f"sum by (model) ({bad}) or 0 * {asked}"},
        {"record": INVALID, "expr": f"sum by (model, team) ({invalid})"},
        {"record": TIMED, "expr": f"sum by (model, arm) (increase({_LATENCY}_count[{WINDOW}]))"},
        {"record": OVER, "expr": " or ".join(budget.over for budget in budgets(budgets_ms))},
    ]
