"""Slipway: from a folder of images to a verified, load-tested NVIDIA Triton model repository."""

__version__ = "0.1.0"
