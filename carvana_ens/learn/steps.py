"""Steps of the optimiser: mixed precision, collected gradients, clipping, moving averages, and what of them is kept."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from carvana_ens.errors import UsageError
from carvana_ens.learn.losses import summed_loss
from carvana_ens.learn.optimisers import Kind, make_optimiser
from carvana_ens.learn.parallel import Team
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.types import Json

if TYPE_CHECKING:
    from carvana_ens.learn.torch_model import TorchModel

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class MiniBatch(NamedTuple):
    """inputs: (n, 3, H, W) float RGB in [0, 1]. targets: (n, 1, H, W) float in [0, 1]. weight: what its loss counts in
    the gradient of the step. photos: how many of them are this process's to count, n or 0.
    """

    inputs: Tensor
    targets: Tensor
    weight: float
    photos: int


class Stepper:
    """A network in training with its optimiser.

    kept: the network whose parameters are validated and kept: the trained one, or with option ``ema`` its average.
    """

    def __init__(
        self, model: TorchModel, network: nn.Module, options: TorchOptions, device: torch.device, team: Team
    ) -> None:
        """network: on its device, with the parameters to start from.

        Raises:
            UsageError: a precision that the device does not have.
        """
        if options.precision == "float16" and device.type == "cpu":
            raise UsageError(f"option precision is float16, but the device is {device}: take bfloat16 or float32 there")
        self.model, self.network, self.options, self.device = model, network, options, device
        self._trained = [p for p in network.parameters() if p.requires_grad]
        run: nn.Module = network
        if options.compile != "none":
            run = torch.compile(network, backend=options.compile)  # type: ignore[assignment]
        self._run = team.wrapped(run, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "float16")
        self._average: AveragedModel | None = None
        if options.ema:
            average = get_ema_multi_avg_fn(options.ema)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(network, multi_avg_fn=average)
        self.renew(options.optimiser)

    @property
    def kept(self) -> nn.Module:
        return self.network if self._average is None else self._average.module

    def renew(self, kind: Kind) -> None:
        """A fresh optimiser in place of the old."""
        self._optimiser = make_optimiser(self.network, self.options, kind)

    def train(self) -> None:
        """Puts the network into training mode."""
        self._run.train()

    def step(self, batches: Iterable[MiniBatch], count: int, rate: float) -> tuple[Tensor, int]:
        """Moves the parameters once, by the gradients of ``count`` mini-batches.

        Returns:
            The mean loss over this process's photos, a scalar on the device before the step, and their number.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        total, photos = torch.zeros((), device=self.device), 0
        for number, batch in enumerate(batches, 1):
            parted = isinstance(self._run, DistributedDataParallel) and number < count
            with self._run.no_sync() if parted else nullcontext():  # type: ignore[operator]
                loss = self._loss(batch)
                self._scaler.scale(loss * batch.weight).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * batch.photos
            photos += batch.photos
        self._scaler.unscale_(self._optimiser)
        if self.options.clip_value:
            clip_grad_value_(self._trained, self.options.clip_value)
        if self.options.clip_norm:
            clip_grad_norm_(self._trained, self.options.clip_norm)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._average is not None:
            self._average.update_parameters(self.network)
        return total / max(photos, 1), photos

    def _loss(self, batch: MiniBatch) -> Tensor:
        dtype = PRECISIONS[self.options.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            maps = self.model.forward_maps(self._run, batch.inputs)
        return summed_loss(maps, batch.targets, self.options)

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors: parameters, moments of the optimiser, averaged parameters."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for number, moments in self._optimiser.state_dict()["state"].items():
            kept = {name: value for name, value in moments.items() if isinstance(value, Tensor)}
            tensors.update({f"optimiser.{number}.{name}": tensor for name, tensor in kept.items()})
        if self._average is not None:
            tensors.update({f"average.{name}": tensor for name, tensor in self._average.state_dict().items()})
        return tensors

    def numbers(self) -> dict[str, Json]:
        """The state as JSON: the scale of float16's gradients."""
        return dict(self._scaler.state_dict())

    def take(self, tensors: dict[str, Tensor], numbers: dict[str, Json]) -> None:
        """Goes on from ``tensors`` and ``numbers``; the network's own parameters are in it already."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part_of(tensors, "optimiser").items():
            number, _, moment = name.partition(".")
            state.setdefault(int(number), {})[moment] = tensor
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
        if self._average is not None:
            self._average.load_state_dict(part_of(tensors, "average"))
        if numbers:
            self._scaler.load_state_dict(numbers)


def part_of(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part of a state, ``network``, ``optimiser`` or ``average``, without its name."""
    start = f"{part}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
