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
L4 = Card(
    name="NVIDIA L4",
    compute_capability="8.9",
    multiprocessors=58,
    memory_mib=22_000,
    driver="580.95.05",
    cuda="13.0",
)


def card_of(capability: str) -> Card:
    """A GPU of this compute capability: the L4 of 8.9, and otherwise the H100, even where it has another one."""
    return L4 if capability == L4.compute_capability else H100.model_copy(update={"compute_capability": capability})


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
