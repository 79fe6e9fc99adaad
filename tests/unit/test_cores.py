"""Which cores an instance keeps to, in a process of its own: the test's is to keep all of its own."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, sys
import slipway.steps.cores as cores
allowed, call, values = json.loads(sys.argv[1])
kept = []
os.sched_getaffinity = lambda pid: set(allowed)
os.sched_setaffinity = lambda pid, cores: kept.append(sorted(cores))
getattr(cores, call)(**values)
print(json.dumps(kept))
"""


def kept(allowed: list[int], call: str, values: dict[str, object]) -> list[list[int]]:
    """What would be asked of the kernel of a machine with those cores."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([allowed, call, values])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("allowed", "values", "expected"),
    [
        ([0, 1], {"instance": 0, "threads": 1}, [0]),
        ([0, 1], {"instance": 1, "threads": 1}, [1]),
        ([0, 1], {"instance": 2, "threads": 1}, [0]),
        ([4, 5, 8, 9], {"instance": 1, "threads": 2}, [8, 9]),  # of a container's, not of the machine's
        ([4, 5, 8, 9], {"instance": 1, "threads": 3}, [4, 5, 9]),
        ([0, 1], {"instance": 0, "threads": 5}, [0, 1]),
        ([0, 1, 2], {"instance": 1, "threads": 1, "first": 2**32 - 1}, [1]),
    ],
)
def test_following_instances_get_following_cores(
    allowed: list[int], values: dict[str, object], expected: list[int]
) -> None:
    assert kept(allowed, "keep_to_cores", values) == [expected]


def configured(instance: str, **parameters: str) -> list[list[int]]:
    model = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    args = {"model_name": "fused_0123456789ab", "model_instance_name": instance}
    return kept([0, 1, 2, 3], "keep_as_configured", {"model": model, "args": args})


def test_a_step_keeps_to_cores_only_where_its_configuration_says_so() -> None:
    assert configured("fused_0123456789ab_0_1", threads="1") == []
    for number, core in enumerate((3, 0, 1, 2)):
        assert configured(f"fused_0123456789ab_0_{number}", threads="1", first_core="7") == [[core]]


def test_a_single_instance_has_no_number_of_its_own() -> None:
    assert configured("fused_0123456789ab_0", threads="1", first_core="2") == [[2]]


def test_the_kernel_takes_it() -> None:
    program = "import os; from slipway.steps.cores import keep_to_cores as keep; keep(1, threads=1); "
    command = [sys.executable, "-c", program + "print(*os.sched_getaffinity(0))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cores = sorted(os.sched_getaffinity(0))
    assert done.stdout.split() == [str(cores[1 % len(cores)])]
