"""NVIDIA's releases, the libraries and the GPU of this machine, and what is said where a lane needs others."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Lane, ServingError, SpecError
from slipway.contract import card as card_module
from slipway.contract.card import cards
from slipway.contract.installed import Installed, differences
from slipway.contract.nvidia_releases import NEWEST, OLDEST_DALI, RELEASES, Release, release, release_of
from slipway.serving import servable
from slipway.serving.servable import check_libraries
from tests.support.cards import L4

IMAGE = Installed(release="26.08", tensorrt="11.2.1", dali="2.2.0", nvimgcodec="0.8.0.22")
LANE = Lane(
    lane="gpu",
    classifiers={},
    shm_default_bytes=1 << 20,
    release="26.08",
    tensorrt="11.2.1.2",
    dali="2.2.0",
    nvimgcodec="0.8.0.22",
)


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def test_the_releases_are_months_in_order_and_the_newest_is_the_last() -> None:
    names = [known.name for known in RELEASES]
    assert names == sorted(set(names))
    assert names[0] == "26.07"
    assert NEWEST.name == names[-1]
    for known in RELEASES:
        assert 1 <= numbers(known.name)[1] <= 12


@pytest.mark.parametrize("known", RELEASES, ids=lambda known: known.name)
def test_what_is_known_of_a_release_is_served(known: Release) -> None:
    assert known.dali is None or numbers(known.dali) >= numbers(OLDEST_DALI)
    assert known.tensorrt is None or 11 <= numbers(known.tensorrt)[0] < 12, "the one that plans are built for"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("26.06", "its DALI is 2.1.1, and the decode graph needs 2.2.0"),
        ("27.01", "not one of the releases of NVIDIA's images that are supported"),
        ("26.13", "supported; give one of 26.07, 26.08"),
        ("latest", "release 'latest': not one"),
        ("26.10; ls", "release '26.10; ls': not one"),
        ("", "release '': not one"),
    ],
)
def test_a_release_that_does_not_exist_or_is_too_old_is_refused_with_those_that_are_supported(
    name: str, says: str
) -> None:
    with pytest.raises(SpecError) as refusal:
        release(name)
    assert says in str(refusal.value)
    assert str(refusal.value).endswith(", ".join(known.name for known in RELEASES))


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"NVIDIA_TRITON_SERVER_VERSION": "26.08", "TRITON_SERVER_VERSION": "2.72.0"}, "26.08"),
        ({"NVIDIA_TENSORRT_VERSION": "26.10"}, "26.10"),
        ({"SLIPWAY_IMAGE_RELEASE": "26.08", "NVIDIA_TENSORRT_VERSION": "11.2.1"}, "26.08"),
        ({"NVIDIA_TENSORRT_VERSION": "8.5.2"}, None),
        ({"NVIDIA_TRITON_SERVER_VERSION": "unknown"}, None),
        ({}, None),
    ],
)
def test_the_release_is_what_the_image_says_of_itself(environment: dict[str, str], named: str | None) -> None:
    assert release_of(environment) == named


@pytest.mark.parametrize(
    ("needed", "says"),
    [
        ({"tensorrt": "11.2.1.2", "dali": "2.2.0", "nvimgcodec": "0.8.0.22"}, []),
        ({"tensorrt": "11.2", "nvimgcodec": "0.8"}, []),
        ({"tensorrt": None, "dali": None}, []),
        ({"tensorrt": "11.3.0"}, ["TensorRT 11.3.0 is needed, and 11.2.1 is installed in release 26.08"]),
        ({"dali": "2.2.1"}, ["DALI 2.2.1 is needed, and 2.2.0 is installed in release 26.08"]),
        ({"nvimgcodec": "0.8.0.23"}, ["nvImageCodec 0.8.0.23 is needed, and 0.8.0.22 is installed in release 26.08"]),
        ({"nvimgcodec": "0.80"}, ["nvImageCodec 0.80 is needed, and 0.8.0.22 is installed in release 26.08"]),
    ],
)
def test_each_library_of_another_version_is_named_with_both(needed: dict[str, str | None], says: list[str]) -> None:
    assert list(differences(needed, IMAGE)) == says


def test_a_library_that_is_not_there_is_named_as_such() -> None:
    nothing = Installed(release=None, tensorrt=None, dali=None, nvimgcodec=None)
    assert list(differences(LANE.libraries, nothing)) == [
        "TensorRT 11.2.1.2 is needed, and none is installed here",
        "DALI 2.2.0 is needed, and none is installed here",
        "nvImageCodec 0.8.0.22 is needed, and none is installed here",
    ]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Installed], None]:
    def install(what: Installed) -> None:
        monkeypatch.setattr(servable.Installed, "here", classmethod(lambda _: what))

    return install


def test_the_server_of_another_release_is_refused_with_the_command_for_the_right_one(
    installed: Callable[[Installed], None],
) -> None:
    installed(IMAGE)
    check_libraries(Path("models"), LANE)
    installed(Installed(release="26.09", tensorrt="11.3.0", dali="2.3.0", nvimgcodec="0.9.0.20"))
    with pytest.raises(ServingError) as refusal:
        check_libraries(Path("models"), LANE)
    said = str(refusal.value)
    assert "models: TensorRT 11.2.1.2 is needed, and 11.3.0 is installed in release 26.09; DALI 2.2.0 is needed" in said
    assert "slipway container serve models --release 26.08 --run" in said


def test_a_lane_that_needs_none_of_the_libraries_is_served_anywhere(installed: Callable[[Installed], None]) -> None:
    installed(Installed(release=None, tensorrt=None, dali="2.4.0", nvimgcodec="0.9.0.20"))
    check_libraries(Path("models"), Lane(lane="cpu", classifiers={}, shm_default_bytes=1 << 20))


def test_lane_json_says_nothing_of_what_does_not_apply_and_reads_back() -> None:
    cpu = Lane(lane="cpu", classifiers={}, shm_default_bytes=1 << 20)
    assert not {"release", *cpu.libraries} & cpu.plain().keys()
    for lane in (cpu, LANE):
        assert Lane.parse(lane.plain(), source="test") == lane
    assert LANE.plain()["dali"] == "2.2.0"


# The GPU, through stand-ins for NVIDIA's two libraries


class Library:
    """Functions that fill their first argument, as C would; every other function is missing."""

    def __init__(self, **functions: Any) -> None:
        vars(self).update(functions)


def fill(*values: int) -> Callable[..., int]:
    """The values in the order of the calls; the last again and again."""
    left = list(values)

    def function(pointer: Any, *_: Any) -> int:
        pointer._obj.value = left.pop(0) if len(left) > 1 else left[0]
        return 0

    return function


def text(value: bytes) -> Callable[..., int]:
    def function(buffer: Any, *_: Any) -> int:
        buffer.value = value
        return 0

    return function


def attribute(pointer: Any, which: int, _device: Any) -> int:
    pointer._obj.value = {16: 58, 75: 8, 76: 9}[which]
    return 0


def cuda_library(**other: Any) -> Library:
    functions = {
        "cuInit": lambda _: 0,
        "cuDriverGetVersion": fill(13000),
        "cuDeviceGetCount": fill(1),
        "cuDeviceGet": fill(0),
        "cuDeviceGetName": text(b"NVIDIA L4"),
        "cuDeviceTotalMem_v2": fill(22_000 << 20),
        "cuDeviceGetAttribute": attribute,
    }
    return Library(**functions | other)


NVML = Library(nvmlInit_v2=lambda: 0, nvmlSystemGetDriverVersion=text(b"580.95.05"), nvmlShutdown=lambda: 0)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`driver(cuda, nvml)` takes the place of the two libraries; None: there is no such library."""

    def install(cuda: Library | None, nvml: Library | None) -> None:
        def load(name: str) -> Library:
            library = {card_module.CUDA: cuda, card_module.NVML: nvml}[name]
            if library is None:
                raise OSError(f"{name}: cannot open shared object file")
            return library

        monkeypatch.setattr(ctypes, "CDLL", load)

    return install


def test_a_card_is_what_the_driver_says(driver: Callable[..., None]) -> None:
    driver(cuda_library(), NVML)
    assert cards() == (L4,)
    assert str(L4) == "NVIDIA L4 (compute capability 8.9, 58 multiprocessors, 21 GiB)"


@pytest.mark.parametrize(
    "cuda",
    [None, cuda_library(cuInit=lambda _: 100), cuda_library(cuDeviceGetCount=fill(0))],
    ids=["no driver", "no device", "none shown"],
)
def test_without_a_driver_or_a_gpu_there_is_no_card(cuda: Library | None, driver: Callable[..., None]) -> None:
    driver(cuda, None)
    assert cards() == ()


def test_without_the_management_library_the_driver_has_no_version(driver: Callable[..., None]) -> None:
    driver(cuda_library(), None)
    assert [found.driver for found in cards()] == [""]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"driver": "610.43.02", "cuda": "13.3"}, True),
        ({"memory_mib": 20_700}, True),
        ({"memory_mib": 12_000}, False),
        ({"multiprocessors": 29}, False),
        ({"name": "NVIDIA L40S", "multiprocessors": 142}, False),
    ],
)
def test_a_card_is_of_the_same_model_by_name_multiprocessors_and_memory(other: dict[str, Any], same: bool) -> None:
    assert L4.same_model(L4.model_copy(update=other)) is same
