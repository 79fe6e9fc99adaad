"""Renders one HTML page on the accuracy of a bundle, from its own files and the images of its data set."""

from slipway.report.evaluation.page import MISTAKES_SHOWN, Heatmaps, render

__all__ = ["MISTAKES_SHOWN", "Heatmaps", "render"]
