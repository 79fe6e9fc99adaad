"""NVIDIA's monthly releases that the gpu lane supports, with the versions in the server's and the compiler's image of
each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway.errors import SpecError

if TYPE_CHECKING:
    from slipway.contract.card import Card  # `slipway container --help` needs none of it

OLDEST_DALI = "2.2.0"
"""The decode graph gives `adjust_orientation` to operators that take it from this version of DALI on."""


@dataclass(frozen=True)
class Release:
    """One release. A version may be a prefix, such as `11.3`; None is a version that we could not establish."""

    name: str
    """Name of the release as in the tags of NVIDIA's images, such as `26.10`."""
    cuda: str
    tensorrt: str | None
    dali: str | None
    nvimgcodec: str | None
    driver: str = "580"
    """The oldest driver branch: the one that came with CUDA 13.0, whose minor versions are compatible."""

    def driver_problem(self, gpus: "Iterable[Card]") -> str:
        """Return the reason why the driver of `gpus` is too old for this release; empty if it is not."""
        for gpu in gpus:
            if int(gpu.cuda.partition(".")[0]) < int(self.cuda.partition(".")[0]):
                return (
                    f"driver {gpu.driver or 'of this machine'} runs CUDA {gpu.cuda}, and release {self.name} has CUDA "
                    f"{self.cuda}, which needs driver {self.driver} or later"
                )
        return ""


RELEASES = (
    Release("26.07", cuda="13.3.1", tensorrt="11.1.0", dali="2.2.0", nvimgcodec="0.8"),
    Release("26.08", cuda="13.4.1", tensorrt="11.2.1", dali="2.2.0", nvimgcodec="0.8"),
    # No public source that we found names the versions that are None.
    Release("26.09", cuda="13.4.1", tensorrt="11.3", dali=None, nvimgcodec=None),
    Release("26.10", cuda="13.4.3", tensorrt=None, dali=None, nvimgcodec=None),
)
"""The oldest first."""
NEWEST = RELEASES[-1]
_REFUSED = {"26.06": f"its DALI is 2.1.1, and the decode graph needs {OLDEST_DALI}"}
_VARIABLES = ("SLIPWAY_IMAGE_RELEASE", "NVIDIA_TRITON_SERVER_VERSION", "NVIDIA_TENSORRT_VERSION")


def release(name: str) -> Release:
    """The release of that name.

    Raises:
        SpecError: there is none, or it is not supported; lists those that are.
    """
    for found in RELEASES:
        if found.name == name:
            return found
    reason = _REFUSED.get(name, "not one of the releases of NVIDIA's images that are supported")
    raise SpecError(f"release {name!r}: {reason}; give one of {', '.join(known.name for known in RELEASES)}")


def release_of(environment: Mapping[str, str]) -> str | None:
    """The release that the variables of our image, else of NVIDIA's, name, supported or not; None outside of them."""
    for variable in _VARIABLES:
        value = environment.get(variable, "")
        if len(value) == 5 and value[2] == "." and value.replace(".", "").isdecimal():
            return value
    return None
