"""`Augmentation`: random changes to training images after the serving decode."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from slipway.contract.decision import Probability
from slipway.contract.typed_file import Contract

Strength = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(gt=0.0, le=100.0)]
RAND_OPERATIONS, RAND_MAGNITUDE = 2, 9  # RandAugment's defaults, from its paper for ImageNet


def _rising(least_most: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < least_most[0] <= least_most[1]:
        raise ValueError("must be [least, most] with 0 < least <= most")
    return least_most


def _share(least_most: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < least_most[0] <= least_most[1] <= 1.0:
        raise ValueError("must be [least, most] with 0 < least <= most <= 1")
    return least_most


Shares = Annotated[tuple[float, float], AfterValidator(_share)]
Ratios = Annotated[tuple[Ratio, Ratio], AfterValidator(_rising)]


class Colour(Contract):
    """Colour jitter, drawn for each image. 0 leaves a property unchanged."""

    brightness: Strength = 0.0
    """The brightness factor is drawn from 1 - `brightness` to 1 + `brightness`."""
    contrast: Strength = 0.0
    """The contrast factor is drawn from 1 - `contrast` to 1 + `contrast`."""
    saturation: Strength = 0.0
    """The saturation factor is drawn from 1 - `saturation` to 1 + `saturation`."""
    hue_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    """The hue angle is drawn between minus and plus `hue_degrees`."""


class Policy(Contract):
    """A policy of DALI's `auto_aug`, which draws from 14 kinds of operations for each image.

    `trivial` applies one operation of random strength (TrivialAugment Wide, https://arxiv.org/abs/2103.10158). `rand`
    applies a fixed number of operations of a fixed magnitude (RandAugment, https://arxiv.org/abs/1909.13719).
    """

    kind: Literal["trivial", "rand"] = "trivial"
    """`trivial` applies one operation of random strength, `rand` several of the same `magnitude`."""
    operations: int | None = Field(default=None, ge=1, le=14)
    """Operations per image for `rand`. The default is 2."""
    magnitude: int | None = Field(default=None, ge=0, le=30)
    """Magnitude of every operation for `rand`, from 0 to 30. The default is 9."""
    without: tuple[str, ...] = ()
    """Operations to leave out, by DALI's names, because they change the class: `rotate` turns a 6 into a 9."""

    @model_validator(mode="after")
    def _strength_belongs_to_rand(self) -> Self:
        if self.kind == "trivial" and (self.operations, self.magnitude) != (None, None):
            raise ValueError("operations and magnitude belong to kind: rand; trivial draws them")
        return self


class Erase(Contract):
    """Random erasing: a rectangle is filled with the mean colour (https://arxiv.org/abs/1708.04896)."""

    probability: Probability = 0.25
    """Share of the images in which a rectangle is erased, from 0 to 1."""
    area: Shares = (0.02, 0.33)
    """Least and greatest share of the input that the rectangle covers."""
    ratio: Ratios = (0.3, 3.3)
    """Least and greatest ratio of the rectangle's height to its width."""


class Mix(Contract):
    """`timm.data.Mixup` mixes pairs of images in a batch, and their targets in the same proportion."""

    mixup_alpha: float = Field(default=0.0, ge=0.0, le=10.0)
    """Mixup blends two images by a share from Beta(alpha, alpha) (https://arxiv.org/abs/1710.09412). 0 turns it off."""
    cutmix_alpha: float = Field(default=0.0, ge=0.0, le=10.0)
    """CutMix pastes a rectangle from another image (https://arxiv.org/abs/1905.04899). 0 turns it off."""
    probability: Probability = 1.0
    """Probability of mixing a batch; with `mode: elem` or `pair`, of mixing an image or a pair."""
    cutmix_probability: Probability = 0.5
    """Probability of CutMix instead of Mixup when both have an alpha."""
    mode: Literal["batch", "pair", "elem"] = "batch"
    """Images that share one draw: a whole batch, a pair, or (`elem`) a single image."""

    @model_validator(mode="after")
    def _something_is_mixed(self) -> Self:
        if not (self.mixup_alpha or self.cutmix_alpha):
            raise ValueError("mixup_alpha or cutmix_alpha must be above 0; or leave mix out")
        return self


class Changes(Contract):
    """Changes to an image after it is resized to the input, in this order."""

    colour: Colour | None = None
    """Colour jitter. The default is none."""
    policy: Policy | None = None
    """Operations that a published policy draws. The default is none."""
    rotate_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    """The angle is drawn between minus and plus `rotate_degrees`; `preprocess.pad_value` fills the corners."""
    erase: Erase | None = None
    """Random erasing. The default is none."""


class Minority(Changes):
    """Changes to images of rare classes, instead of those to other images."""

    below: float = Field(default=0.2, gt=0.0, le=1.0)
    """A class is rare if it has fewer training images than this share of the largest class."""


class Augmentation(Changes):
    """Random changes to training images. Validation, calibration, test and serving never see them."""

    resize: Literal["random_crop", "serving"] = "random_crop"
    """`random_crop` stretches a random part to the input. `serving` resizes, pads and crops as `preprocess` does."""
    crop_scale: Shares = (0.7, 1.0)
    """Least and greatest share of the image's area that `random_crop` keeps."""
    crop_ratio: Ratios = (3 / 4, 4 / 3)
    """Least and greatest ratio of width to height of the part that `random_crop` keeps."""
    horizontal_flip: bool = True
    """Mirror half of the images left to right."""
    vertical_flip: bool = False
    """Turn half of the images upside down."""
    minority: Minority | None = None
    """Changes to images of rare classes, instead of those to other images. By default all images are changed alike."""
    mix: Mix | None = None
    """Mixing of pairs of images and their targets. The default is none."""
