"""Resources that a container of a lane needs: user, ports, rights, memory for tensors and space for files."""

from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract.lane import MOST_GPUS

if TYPE_CHECKING:
    from slipway.serving.contents import Contents

MODELS = "/models"
"""Folder above the repository, in the container."""
INNER_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002, "status": 8003}
TRITON_USER = "1000:1000"  # of NVIDIA's image
FALLBACK_START_S = 1800
"""Seconds for ONNX Runtime to build the engines of its graphs, which it does in every new container."""
GROWN_SHM_BYTES = 2 << 20
"""Shared memory of a step that grew to hold two largest batches of ordinary photographs, for each image of a batch."""
SPARE_SHM_BYTES, SPARE_TMP_BYTES = 64 * 2**20, 512 * 2**20
ULIMITS = {"memlock": -1, "stack": 67108864, "nofile": 65536}
"""Pinned memory for copies to the GPU, stacks as NVIDIA advises, and a file for each connection."""


def shm_bytes(contents: "Contents", *, loads: int = 2, gpus: int = MOST_GPUS) -> int:
    """Most shared memory for the steps of `loads` repositories on a machine with `gpus` GPUs at most: of two, where one
    is loaded again beside the old one. A step starts with less and grows where clients send many images at once."""
    grown = GROWN_SHM_BYTES * max((model.config.max_batch_size for model in contents.models.values()), default=0)
    of_each = max(contents.lane.shm_default_bytes, grown)
    return loads * contents.stubs(gpus=gpus) * of_each + SPARE_SHM_BYTES


def tmp_bytes(contents: "Contents", repository: Path) -> int:
    """Space for the launcher's copies of two repositories, and for the engines that ONNX Runtime builds."""
    copies = 4 if contents.lane.fallback else 2  # ONNX Runtime keeps the engines there that it builds of its graphs
    return copies * sum(path.stat().st_size for path in repository.rglob("*")) + SPARE_TMP_BYTES
