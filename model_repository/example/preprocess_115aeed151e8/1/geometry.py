"""The size to which an image is resized, and where the input is cut out of that: one rule for DALI and for numpy.

This file is copied into model repositories: the standard library alone, Python 3.10 to 3.13.
"""

from collections.abc import Mapping
from typing import Any


def geometry(
    size_hw: Any, size_wh: Any, config: Mapping[str, Any], *, largest: Any, smallest: Any, constant: Any
) -> Any:
    """The new size of an image, and the position of the input in it.

    As torchvision's Resize and CenterCrop compute it, since DALI's own rounding differs by up to a pixel:
    `int(size * long / short)`, and an offset rounded half to even.

    Args:
        size_hw: height and width of the image, INT64 `[2]`; `size_wh` is the same, turned round.
        largest: the element-wise maximum of two arrays; `smallest` the minimum.
        constant: makes an INT64 array of a list.

    Returns:
        new_hw: INT64 `[2]`.
        position_hw: two numbers, the offset as a share of what is cut off; meaningless for `resize: pad`.
    """
    input_hw = [config["input_height"], config["input_width"]]
    target_hw = [round(side / config["crop_fraction"]) for side in input_hw]
    bound = largest if config["resize"] == "crop" else smallest  # cover the target, or stay inside it
    new_hw = largest(bound(constant(target_hw[::-1]) * size_hw // size_wh, constant(target_hw)), 1)
    surplus_hw = new_hw - constant(input_hw)
    offset_hw = (surplus_hw + ((surplus_hw // 2) & 1)) // 2  # surplus / 2, rounded half to even
    position_hw = offset_hw / largest(surplus_hw, 1)
    return new_hw, (position_hw[0], position_hw[1])
