"""The processes that train one network together, as ``torchrun`` starts them: distributed data parallel.

Each process trains on its part of every mini-batch, gradients are averaged over all, and the first one writes. Torch is
imported where processes meet, so that a verb can ask for its rank without it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from carvana_ens.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """rank: of this process, from 0. size: processes in all. local: rank among the processes of this machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: of several GPUs, each takes its own."""
        if self.size == 1 or name not in ("auto", "cuda"):
            return name
        import torch

        return f"cuda:{self.local}" if name == "cuda" or torch.cuda.is_available() else name

    def meet(self, name: str) -> None:
        """Meets the other processes, on the device of this name; see ``join``."""
        if self.size > 1:
            from carvana_ens.learn.torch_model import pick_device

            self.join(pick_device(self.device(name)))

    def join(self, device: torch.device) -> None:
        """Meets the other processes, once for all trainings of this one."""
        if self.size == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            if device.type == "cuda":
                import torch

                torch.cuda.set_device(device)
            # a model that trains in one process alone lets the others wait for as long as it takes
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=7))
            atexit.register(distributed.destroy_process_group)

    def wait(self) -> None:
        """Goes on when all processes have come here."""
        if self.size > 1:
            from torch import distributed

            distributed.barrier()

    def of_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, in all of them."""
        return self.gathered(make() if self.first else None)[0]  # type: ignore[return-value]  # the first has made it

    def gathered(self, value: T) -> list[T]:
        """The value of every process, by rank, the same list in all."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[T | None] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every place is filled

    def summed(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            from torch import distributed

            value = value.clone()
            distributed.all_reduce(value)
        return value

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of this process, of nearly equal size for all and in order; empty where there are too few."""
        each, over = divmod(len(items), self.size)
        start = self.rank * each + min(self.rank, over)
        return items[start : start + each + (self.rank < over)]

    def wrapped(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network, its gradients averaged over all processes whenever they are computed."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)


def team_here() -> Team:
    """The team that torchrun put this process into; without it a team of one.

    Raises:
        UsageError: the variables that torchrun sets contradict each other.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys():
        return Team()
    texts = [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(text.isascii() and text.isdigit() for text in texts) or not int(texts[0]) < int(texts[1]):
        raise UsageError(f"RANK, WORLD_SIZE, LOCAL_RANK are {', '.join(texts)}: start the processes with torchrun")
    return Team(*map(int, texts))
