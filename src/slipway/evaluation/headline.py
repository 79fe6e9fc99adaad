"""What is said first of an evaluation, by its task."""

from collections.abc import Mapping
from typing import Any


def headline(found: Mapping[str, Any]) -> str:
    """Top-1, or mAP and the share of images with all of their labels and no other."""
    if "map" in found:
        return f"mAP {found['map']:.4f}, all labels right {found['exact_match']:.2%}"
    return f"top-1 {found['top1']:.2%}"
