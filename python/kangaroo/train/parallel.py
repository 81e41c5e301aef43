"""One run in several processes: they share out a step's windows and hold the same adapter.

`torchrun -m kangaroo train ...` starts them. Each process takes its part of the forward passes of a
step (`windows.accumulation` counts all of them), gradients are added up, and every process takes
the same optimiser step; so any number of processes trains the adapter that one would. The first
alone writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(hours=6)  # the first writes features and checkpoints while the others wait


@dataclass(frozen=True)
class Team:
    """The processes of a run.

    Attributes:
        rank: of this process, 0..size-1.
    """

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """This process is the one that writes."""
        return self.rank == 0

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Sum over processes, in place; float32 tensors of one device."""
        if self.size == 1:
            return
        tensors = list(tensors)
        total = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(total)
        for tensor, part in zip(tensors, total.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def share(self, tensors: Iterable[Tensor]) -> None:
        """The first process's values, in place."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, 0)

    def any(self, wanted: bool, device: torch.device) -> bool:
        """Some process wants it."""
        vote = torch.tensor([float(wanted)], device=device)
        self.add_up([vote])
        return bool(vote.item())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Team()


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """The processes that torchrun started, this one among them; else this one alone."""
    if dist.is_initialized():  # by the caller
        yield Team(dist.get_rank(), dist.get_world_size())
    elif dist.is_torchelastic_launched():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        try:
            yield Team(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
    else:
        yield ALONE


def own_device(device: torch.device) -> torch.device:
    """A GPU of this process's own, where torchrun started it and "cuda" names none."""
    if device.type == "cuda" and device.index is None and dist.is_torchelastic_launched():
        device = torch.device("cuda", dist.get_node_local_rank())
        torch.cuda.set_device(device)
    return device


def shard_layers(layers: Iterable[Any], team: Team, device: torch.device) -> None:
    """Cut the parameters of a frozen target's layers over all processes; one gathers a layer while
    it runs. Embeddings, final norm and head stay whole.
    """
    # Not earlier: it takes seconds to import.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (team.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
