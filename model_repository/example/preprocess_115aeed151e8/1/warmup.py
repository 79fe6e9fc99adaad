"""What an instance runs before it reports ready."""

from collections.abc import Mapping
from typing import Any


def warmup_sizes(model: Mapping[str, Any]) -> tuple[int, ...]:
    """Sizes of the batches to run, by the configuration as Triton gives it: one image, and as many as waiting requests
    are merged into.

    A client's larger request compiles its shapes when it comes, and the process keeps them: 20 MiB at 224 pixels.
    """
    count = int(model["parameters"].get("warmup_batches", {}).get("string_value", 0))
    merged = model.get("dynamic_batching", {}).get("preferred_batch_size", ())
    return (1, max(merged, default=model["max_batch_size"])) * count
