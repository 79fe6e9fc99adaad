"""Renders one HTML page of measurements, with the cost of a million images at the measured speeds."""

from slipway.benchmark.page.accuracy import Accuracy
from slipway.benchmark.page.cost import Cost, cost_lines, costs
from slipway.benchmark.page.files import ResultFile, read_files
from slipway.benchmark.page.render import render
from slipway.benchmark.page.verdicts import VerdictCard, cards
from slipway.contract.prices import Priced, Prices

__all__ = [
    "Accuracy",
    "Cost",
    "Priced",
    "Prices",
    "ResultFile",
    "VerdictCard",
    "cards",
    "cost_lines",
    "costs",
    "read_files",
    "render",
]
