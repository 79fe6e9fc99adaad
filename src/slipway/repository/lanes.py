"""The two lanes by name: each has `DECODER`, `check`, `chain` and `shm_bytes`."""

from types import ModuleType

from slipway.contract.lane import LaneName
from slipway.repository import cpu_lane, gpu_lane

LANE_MODULES: dict[LaneName, ModuleType] = {"cpu": cpu_lane, "gpu": gpu_lane}
