"""A GPU that no test needs in truth."""

from slipway.contract import PlanSettings
from slipway.contract.card import Card

H100 = Card(
    name="NVIDIA H100",
    compute_capability="9.0",
    multiprocessors=132,
    memory_mib=81_000,
    driver="580.95.05",
    cuda="13.0",
)
PLAN_ON_H100 = PlanSettings(
    version="11.2.1.2",
    compute_capability="9.0",
    card=H100,
    batch_sizes=(1, 32, 32),
    single_image_profile=True,
    optimization_level=3,
    hardware_compatibility="none",
    version_compatible=False,
)
