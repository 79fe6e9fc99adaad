"""Runs `recipe.augment` as a DALI graph, between the serving decode and the normalisation.

Autograph rewrites these functions: an `if` on a value that DALI computes splits the batch. Every draw is a DALI
operator, so the pipeline's seed determines all of them.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from nvidia.dali import fn, math, types
from nvidia.dali.auto_aug import rand_augment, trivial_augment

from slipway.contract import SpecError
from slipway.contract.augmentation import RAND_MAGNITUDE, RAND_OPERATIONS, Augmentation, Changes, Colour, Erase, Policy
from slipway.steps.dali_graph import INTERPOLATION, decode, fit

TRIVIAL_SHIFT = 32 / 224
"""Largest shift as a share of the input: the paper's 32 of 224 pixels. DALI's default shifts an image out of sight."""


def augmented(encoded: Any, rare: Any, *, config: Mapping[str, Any], augment: Augmentation) -> Any:
    """Turn encoded bytes into pixels of the network's size, `UINT8 [H, W, 3]`.

    `config` is the content of `preprocess.json`; `rare` says which images get `augment.minority`.
    """
    pixels = _resized(encoded, config, augment)
    if augment.vertical_flip:
        pixels = fn.flip(pixels, horizontal=0, vertical=fn.random.coin_flip(probability=0.5))
    if augment.minority is None:
        pixels = changed(pixels, config, augment)
    elif rare:  # a value per image
        pixels = changed(pixels, config, augment.minority)
    else:
        pixels = changed(pixels, config, augment)
    if augment.horizontal_flip:
        pixels = fn.flip(pixels, horizontal=fn.random.coin_flip(probability=0.5))
    return pixels


def _resized(encoded: Any, config: Mapping[str, Any], augment: Augmentation) -> Any:
    """Return `UINT8 [H, W, 3]`: a random crop of each image, or the image resized as in serving."""
    if augment.resize == "serving":
        return fit(decode(encoded, config), config)
    part = fn.decoders.image_random_crop(  # only that part is decoded
        encoded,
        device=config["decoder"],
        output_type=types.RGB,
        adjust_orientation=config["exif_orientation"],
        random_area=augment.crop_scale,
        random_aspect_ratio=augment.crop_ratio,
    )
    return fn.resize(
        part, size=_size(config), interp_type=INTERPOLATION[config["interpolation"]], antialias=config["antialias"]
    )


def _size(config: Mapping[str, Any]) -> tuple[int, int]:
    return config["input_height"], config["input_width"]


def changed(pixels: Any, config: Mapping[str, Any], changes: Changes) -> Any:
    """Apply `changes` to `UINT8 [H, W, 3]` images of the input's size: ten times cheaper than on the originals."""
    if changes.colour is not None:
        pixels = _coloured(pixels, changes.colour)
    if changes.policy is not None:
        pixels = _by_policy(pixels, config, changes.policy)
    if changes.rotate_degrees:
        angle = _drawn(-changes.rotate_degrees, changes.rotate_degrees)
        pixels = fn.rotate(pixels, angle=angle, keep_size=True, fill_value=config["pad_value"])
    if changes.erase is not None:
        chosen = fn.random.coin_flip(probability=changes.erase.probability, dtype=types.BOOL)
        if chosen:
            pixels = _erased(pixels, config, changes.erase)
    return pixels


def _coloured(pixels: Any, colour: Colour) -> Any:
    strengths = {"brightness": colour.brightness, "contrast": colour.contrast, "saturation": colour.saturation}
    factors = {name: _drawn(1 - strength, 1 + strength) for name, strength in strengths.items()}
    if colour.hue_degrees:
        factors["hue"] = _drawn(-colour.hue_degrees, colour.hue_degrees)
    return fn.color_twist(pixels, **factors)


def _drawn(least: float, most: float) -> Any:
    """Draw a number for each image; DALI refuses to draw from a range of one point."""
    return fn.random.uniform(range=(least, max(most, float(np.nextafter(np.float32(least), np.float32(np.inf))))))


def _by_policy(pixels: Any, config: Mapping[str, Any], policy: Policy) -> Any:
    options = {"shape": _size(config), "fill_value": config["pad_value"], "excluded": list(policy.without)}
    if policy.kind == "trivial":
        return trivial_augment.trivial_augment_wide(pixels, max_translate_rel=TRIVIAL_SHIFT, **options)
    operations = RAND_OPERATIONS if policy.operations is None else policy.operations
    magnitude = RAND_MAGNITUDE if policy.magnitude is None else policy.magnitude
    return rand_augment.rand_augment(pixels, n=operations, m=magnitude, **options)


def _erased(pixels: Any, config: Mapping[str, Any], erase: Erase) -> Any:
    area, ratio = _drawn(*erase.area), math.exp(_drawn(*np.log(erase.ratio).tolist()))
    height, width = math.min(math.sqrt(area * ratio), 1.0), math.min(math.sqrt(area / ratio), 1.0)
    top, left = _drawn(0.0, 1.0) * (1.0 - height), _drawn(0.0, 1.0) * (1.0 - width)
    return fn.erase(
        pixels,
        anchor=fn.stack(top, left),
        shape=fn.stack(height, width),
        axis_names="HW",
        normalized=True,
        fill_value=[255 * channel for channel in config["mean"]],
    )


def check_policies(augment: Augmentation) -> None:
    """Raises SpecError: `without` names an operation that a policy does not have."""
    suites = {
        "trivial": trivial_augment.get_trivial_augment_wide_suite(use_shape=True),
        "rand": rand_augment.get_rand_augment_suite(use_shape=True),
    }
    for place, changes in (("", augment), ("minority.", augment.minority)):
        if changes is None or changes.policy is None:
            continue
        valid = sorted(operation.name for operation in suites[changes.policy.kind])
        for name in changes.policy.without:
            if name not in valid:
                raise SpecError(
                    f"recipe.augment.{place}policy.without: {name!r} given; the operations of {changes.policy.kind} "
                    f"are {', '.join(valid)}"
                )
        if len(set(changes.policy.without)) == len(valid):
            raise SpecError(f"recipe.augment.{place}policy.without: all operations given; leave the policy out")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide DALI's warnings about operator names that its own policies use; the usual filters do not."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if not issubclass(warning.category, DeprecationWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
