"""Renders one HTML page on the quality of a build, from the files of bundle, graphs and engines alone."""

from slipway.report.build import Build
from slipway.report.page import render
from slipway.report.verdict import LaneVerdict, Todo, lane_verdicts, todos

__all__ = ["Build", "LaneVerdict", "Todo", "lane_verdicts", "render", "todos"]
