"""`Augmentation`: what images of the train split, and of no other, go through after the serving decode."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from slipway.contract.base import Contract
from slipway.contract.decision import Probability

Strength = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(gt=0.0, le=100.0)]
RAND_OPERATIONS, RAND_MAGNITUDE = 2, 9  # of RandAugment where the spec leaves them out, as in its paper for ImageNet


def _rising(least_most: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < least_most[0] <= least_most[1]:
        raise ValueError("is [least, most] with 0 < least <= most")
    return least_most


def _share(least_most: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 < least_most[0] <= least_most[1] <= 1.0:
        raise ValueError("is [least, most] with 0 < least <= most <= 1")
    return least_most


Shares = Annotated[tuple[float, float], AfterValidator(_share)]
Ratios = Annotated[tuple[Ratio, Ratio], AfterValidator(_rising)]


class Colour(Contract):
    """Each number is drawn for each image; 0 leaves it as it is."""

    brightness: Strength = 0.0
    """The factor is drawn from 1 - this to 1 + this; so are those of contrast and saturation."""
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    """The angle is drawn from minus this to this."""


class Policy(Contract):
    """DALI's `auto_aug`: operations of 14 kinds, drawn for each image.

    `trivial`: one, as strong as a draw says (TrivialAugment Wide, https://arxiv.org/abs/2103.10158). `rand`:
    `operations` of one `magnitude` (RandAugment, https://arxiv.org/abs/1909.13719).
    """

    kind: Literal["trivial", "rand"] = "trivial"
    operations: int | None = Field(default=None, ge=1, le=14)
    """Of rand: 2 where left out."""
    magnitude: int | None = Field(default=None, ge=0, le=30)
    """Of rand, of 30: 9 where left out."""
    without: tuple[str, ...] = ()
    """Operations that would change what an image shows, by DALI's names: rotate turns a 6 to a 9."""

    @model_validator(mode="after")
    def _strength_belongs_to_rand(self) -> Self:
        if self.kind == "trivial" and (self.operations, self.magnitude) != (None, None):
            raise ValueError("operations and magnitude belong to kind: rand; trivial draws them")
        return self


class Erase(Contract):
    """A rectangle that becomes the mean colour (random erasing, https://arxiv.org/abs/1708.04896)."""

    probability: Probability = 0.25
    area: Shares = (0.02, 0.33)
    """Its share of the input, least and most."""
    ratio: Ratios = (0.3, 3.3)
    """Height to width, least and most."""


class Mix(Contract):
    """Images of a batch in pairs, by `timm.data.Mixup`; targets are mixed as the images are."""

    mixup_alpha: float = Field(default=0.0, ge=0.0, le=10.0)
    """Images are blended, with a share from Beta(alpha, alpha). https://arxiv.org/abs/1710.09412; 0: never."""
    cutmix_alpha: float = Field(default=0.0, ge=0.0, le=10.0)
    """A rectangle comes from the other image. https://arxiv.org/abs/1905.04899; 0: never."""
    probability: Probability = 1.0
    """Of mixing a batch at all; for each image or pair with `mode: elem` or `pair`."""
    cutmix_probability: Probability = 0.5
    """Of CutMix in the place of Mixup, where both have an alpha."""
    mode: Literal["batch", "pair", "elem"] = "batch"
    """What shares a draw: all of a batch, a pair, or nothing."""

    @model_validator(mode="after")
    def _something_is_mixed(self) -> Self:
        if not (self.mixup_alpha or self.cutmix_alpha):
            raise ValueError("mixup_alpha or cutmix_alpha must be over 0; or leave mix out")
        return self


class Changes(Contract):
    """What happens to an image that has the input's size, in this order."""

    colour: Colour | None = None
    policy: Policy | None = None
    rotate_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    """The angle is drawn from minus this to this; what comes in from outside is `preprocess.pad_value`."""
    erase: Erase | None = None


class Minority(Changes):
    """What happens to images of rare classes, in the place of what happens to the others."""

    below: float = Field(default=0.2, gt=0.0, le=1.0)
    """A class is rare when it has fewer train images than this share of the largest class's."""


class Augmentation(Changes):
    """Validation, calibration, test and serving see nothing of this."""

    resize: Literal["random_crop", "serving"] = "random_crop"
    """`random_crop`: a random part, stretched to the input. `serving`: as `preprocess` resizes, padded or cut."""
    crop_scale: Shares = (0.7, 1.0)
    """Of random_crop: the share of the image's area that is kept, least and most."""
    crop_ratio: Ratios = (3 / 4, 4 / 3)
    """Of random_crop: width to height of what is kept, least and most."""
    horizontal_flip: bool = True
    """Half of the images, mirrored."""
    vertical_flip: bool = False
    minority: Minority | None = None
    mix: Mix | None = None
