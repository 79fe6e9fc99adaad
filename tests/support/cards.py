"""A GPU that no test needs in truth."""

from slipway.contract.card import Card

H100 = Card(
    name="NVIDIA H100",
    compute_capability="9.0",
    multiprocessors=132,
    memory_mib=81_000,
    driver="580.95.05",
    cuda="13.0",
)
