"""Turns `Compute` into Lightning's devices, for a single process or one of those that torchrun started."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import lightning
import torch

from slipway.contract import SpecError
from slipway.contract.recipe import Compute
from slipway.training.data.order import TrainingProcess


@dataclass(frozen=True)
class Devices:
    """Arguments of a `lightning.Trainer`."""

    accelerator: str
    devices: int
    """Devices of each machine."""
    num_nodes: int
    strategy: str
    sync_batchnorm: bool

    @property
    def processes(self) -> int:
        return self.devices * self.num_nodes


def devices_of(compute: Compute, environment: Mapping[str, str] = os.environ) -> Devices:
    """Return the devices to train on.

    Raises:
        SpecError: the spec contradicts torchrun, or needs torchrun.
    """
    devices, nodes = compute.devices or 1, compute.nodes or 1
    if "TORCHELASTIC_RUN_ID" in environment:
        local = int(environment["LOCAL_WORLD_SIZE"])
        devices, nodes = local, int(environment["WORLD_SIZE"]) // local
        for name, asked, started in (("devices", compute.devices, devices), ("nodes", compute.nodes, nodes)):
            if asked not in (None, started):
                raise SpecError(
                    f"compute.{name}: {asked} given, but torchrun started {started}; leave it out, or start {asked}"
                )
    elif nodes > 1:
        raise SpecError(
            f"compute.nodes: {nodes} given, but torchrun did not start this; run on each machine: torchrun --nnodes "
            f"{nodes} --nproc-per-node {devices} --rdzv-endpoint HOST:PORT -m slipway train …"
        )
    gpu = compute.accelerator == "gpu" or (compute.accelerator == "auto" and torch.cuda.is_available())
    if gpu and torch.cuda.device_count() < devices:
        raise SpecError(
            f"compute.devices: {devices} given, but this machine has {torch.cuda.device_count()} GPUs; write at most "
            "that many, or accelerator: cpu"
        )
    several = devices * nodes > 1
    return Devices(
        accelerator="gpu" if gpu else "cpu" if several else compute.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if several and compute.strategy == "auto" else compute.strategy,
        sync_batchnorm=gpu and several,  # torch has none for CPUs, where each process normalises over its own images
    )


def process_of(trainer: lightning.Trainer) -> TrainingProcess:
    return TrainingProcess(rank=trainer.global_rank, world_size=trainer.world_size, local_rank=trainer.local_rank)


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process writes the result, by its environment: known before there is a trainer."""
    return int(environment.get("RANK", environment.get("LOCAL_RANK", "0"))) == 0
