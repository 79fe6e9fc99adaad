"""Which cores an instance keeps to. Left to the kernel, two instances may share one while another core is idle."""

import os
from collections.abc import Mapping
from typing import Any


def keep_to_cores(instance: int, *, threads: int, first: int = 0) -> None:
    """Let this thread, and all that it starts from now on, run on `threads` of the cores that it may use now.

    Instances with following numbers get following cores, round and round.

    Args:
        instance: its number, from 0.
        first: where instance 0 begins; any number.
    """
    cores = sorted(os.sched_getaffinity(0))
    begin = first + instance * threads
    os.sched_setaffinity(0, {cores[core % len(cores)] for core in range(begin, begin + threads)})


def keep_as_configured(model: Mapping[str, Any], args: Mapping[str, str]) -> None:
    """For `initialize` in Triton's Python backend, before threads start: where the configuration has a `first_core`."""
    parameters = model["parameters"]
    first_core = parameters.get("first_core")
    if first_core is not None:
        keep_to_cores(
            int(args["model_instance_name"].rpartition("_")[2]),
            threads=int(parameters["threads"]["string_value"]),
            first=int(first_core["string_value"]),
        )
