"""The kernel's limits for a server: as high as may be, and a reason where they are too low."""

import resource
from pathlib import Path

import pytest

from slipway.contract import ServingError
from slipway.serving import limits
from slipway.serving.limits import MOST_OPEN_FILES, STACK_BYTES, ServerLimits, server_limits

Pair = tuple[int, int]
UNLIMITED: Pair = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
USUAL_STACK: Pair = (8 * 2**20, resource.RLIM_INFINITY)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """A machine with these limits: `kernel(files=(soft, hard), stack=…, space=…, overcommit="0")`."""

    def kernel(
        *, files: Pair = (1024, 4096), stack: Pair = USUAL_STACK, space: Pair = UNLIMITED, overcommit: str = "0"
    ) -> None:
        given = {resource.RLIMIT_NOFILE: files, resource.RLIMIT_STACK: stack, resource.RLIMIT_AS: space}
        monkeypatch.setattr(resource, "getrlimit", given.__getitem__)
        (tmp_path / "overcommit").write_text(f"{overcommit}\n")
        monkeypatch.setattr(limits, "_OVERCOMMIT", tmp_path / "overcommit")

    return kernel


def test_a_server_gets_the_hard_limit_of_files_and_stacks_that_hold_a_form(kernel) -> None:
    kernel()
    assert server_limits(instances=3) == ServerLimits(4096, STACK_BYTES)


@pytest.mark.parametrize("hard", [2**30, resource.RLIM_INFINITY & 0x7FFF_FFFF])
def test_a_hard_limit_without_bounds_is_not_taken_whole(kernel, hard: int) -> None:
    kernel(files=(1024, hard))
    assert server_limits(instances=3).open_files == MOST_OPEN_FILES


@pytest.mark.parametrize(("hard", "instances"), [(64, 3), (203, 3), (255, 16)])
def test_too_few_files_are_refused_with_the_number_that_is_needed(kernel, hard: int, instances: int) -> None:
    kernel(files=(hard, hard))
    with pytest.raises(
        ServingError, match=rf"{hard} files open here, and this server needs {192 + 4 * instances}.*nofile"
    ):
        server_limits(instances=instances)


@pytest.mark.parametrize(
    ("machine", "stack_bytes"),
    [
        ({"stack": (8 * 2**20, 64 * 2**20)}, 64 * 2**20),
        ({"stack": UNLIMITED}, STACK_BYTES),
        ({"space": (2**34, 2**34)}, 8 * 2**20),
        ({"overcommit": "2"}, 8 * 2**20),
    ],
    ids=["a low hard limit", "no limit, which is 2 MiB", "a limited address space", "no overcommitment"],
)
def test_a_stack_is_as_large_as_the_machine_can_give_to_every_thread(kernel, machine, stack_bytes: int) -> None:
    kernel(**machine)
    assert server_limits(instances=3).stack_bytes == stack_bytes


@pytest.mark.parametrize(("stack_bytes", "form"), [(STACK_BYTES, 128 * 2**20), (-1, 2**20), (8 * 2**20, 4 * 2**20)])
def test_a_form_may_take_half_of_a_stack(stack_bytes: int, form: int) -> None:
    assert ServerLimits(4096, stack_bytes).largest_form_bytes == form
