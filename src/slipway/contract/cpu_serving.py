"""`CpuServing`: how the steps of a classifier run on the cpu lane, with every choice of `serving` made."""

from typing import Literal, Self, TypeAlias

from pydantic import Field

from slipway.contract.base import Contract
from slipway.contract.spec import Serving

Layout: TypeAlias = Literal["steps", "shared_decode", "fused"]
INSTANCES = 2
"""Instances of each step where a spec names the layout and nothing else."""
MERGED = 2
"""Largest batch of waiting requests that `auto` allows: on two cores at 100 requests/s, P99 was 57 ms with batches of
up to 2, 83 ms with 4 and 96 ms with 8 (docs/adr/0058)."""
MOST_INSTANCES = 64


class CpuServing(Contract):
    """The part of a classifier's settings that `serving.layout: auto` chooses; `lane.json` has it."""

    layout: Layout
    preprocess_instances: int = Field(ge=1, le=MOST_INSTANCES)
    """Processes of the preprocess step, if the layout has one."""
    instances: int = Field(ge=1, le=MOST_INSTANCES)
    """Processes of the step that runs the engine."""
    threads: int = Field(ge=1, le=64)
    """Threads of each process."""
    pinned: bool
    preferred_batch_size: int = Field(ge=0, le=128)
    """0: up to `max_batch_size`."""

    @classmethod
    def of(cls, serving: Serving) -> Self:
        """The settings of a `serving` in which nothing is left to choose; see `settle`."""
        return cls.model_validate({name: getattr(serving, name) for name in cls.model_fields})

    def __str__(self) -> str:
        """For whoever assembles: `fused, 2 processes of 1 thread, pinned, batches of up to 2`."""
        several = "" if self.layout == "fused" else f"{self.preprocess_instances} + "
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        batches = f", batches of up to {self.preferred_batch_size}" if self.preferred_batch_size else ""
        processes = "process" if not several and self.instances == 1 else "processes"
        pinned = ", pinned" if self.pinned else ""
        return f"{self.layout}, {several}{self.instances} {processes} of {threads}{pinned}{batches}"


def settle(serving: Serving, *, cores: int, classifiers: int, shares_decode: bool = False) -> Serving:
    """`serving` with a value for everything that it leaves to the machine; what it gives stays (docs/adr/0058).

    Args:
        cores: of the machine that will serve.
        classifiers: number of classifiers that share them.
        shares_decode: whether an ensemble for several classifiers takes its steps.
    """
    chosen = CpuServing(
        layout=serving.layout if serving.layout != "auto" else _layout(classifiers, shares_decode=shares_decode),
        **_processes(serving, cores=cores, classifiers=classifiers),
        threads=serving.threads,
        pinned=serving.layout == "auto" and classifiers == 1,
        preferred_batch_size=min(MERGED, serving.max_batch_size) if serving.layout == "auto" else 0,
    )
    open_fields = {name for name in CpuServing.model_fields if getattr(serving, name) in (None, "auto")}
    return serving.model_copy(update=chosen.model_dump(include=open_fields))


def is_settled(serving: Serving) -> bool:
    """Whether the machine makes no difference to `serving`."""
    return serving.layout != "auto"


def _layout(classifiers: int, *, shares_decode: bool) -> Layout:
    if shares_decode:
        return "steps"
    return "fused" if classifiers == 1 else "shared_decode"


def _processes(serving: Serving, *, cores: int, classifiers: int) -> dict[str, int]:
    """One process of an engine for each of its classifier's share of the cores; decoders for all of them."""
    if serving.layout != "auto":
        instances = serving.instances or INSTANCES
        return {"instances": instances, "preprocess_instances": serving.preprocess_instances or instances}
    fitting = min(MOST_INSTANCES, max(1, cores // serving.threads))
    return {"instances": -(-fitting // classifiers), "preprocess_instances": fitting}
