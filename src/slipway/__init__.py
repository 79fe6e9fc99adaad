"""Slipway: from a folder of images to a verified, load-tested NVIDIA Triton model repository."""

__version__ = "0.2.0.dev0"
