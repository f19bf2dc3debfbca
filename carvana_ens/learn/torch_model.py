"""A model that is a torch network: name its defaults, write ``build``, and training and prediction are there."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens.errors import TrainingError, UsageError
from carvana_ens.learn.checkpoints import fit_parameters, read_parameters
from carvana_ens.learn.normalise import Statistics, keep_statistics, kept_statistics, normalised, statistics_of
from carvana_ens.learn.photos import Photos
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.regions import CroppedSamples
from carvana_ens.learn.resize import input_rule
from carvana_ens.learn.stages import stages_of
from carvana_ens.model import Batch, FitResult, FitTask, MemberConfig, Model, Output
from carvana_ens.types import ModelMaps, Size


class TorchModel(Model):
    """A network that gives one logit a pixel.

    Class attributes, beside those of Model:
        Options: TorchOptions, or a frozen dataclass derived from it.
        parallel: ``fit`` may be called in several processes at once, as torchrun starts them.
        divisor: input sides are padded (border repeated, right and below) to a multiple of it, and logits cropped
            back, so that ``build`` need not care about odd sizes.

    Its maps are finished on its device (``learn.device_maps``) unless it overrides ``predict``, ``predict_all`` or
    ``answer``.
    """

    Options: ClassVar[type] = TorchOptions
    output: ClassVar[Output] = "logits"
    trainable: ClassVar[bool] = True
    parallel: ClassVar[bool] = True
    size: ClassVar[Size | None] = Size(640, 960)
    batch_size: ClassVar[int] = 4
    divisor: int = 32

    options: TorchOptions

    def __init__(self, config: MemberConfig) -> None:
        super().__init__(config)
        last = stages_of(self.options)[-1].size
        if last is not None:  # what the network is trained for in the end is what it predicts at
            self.size = last  # type: ignore[misc]
        if self.options.normalise == "batch":  # a map may depend on its group, and on nothing else beside it
            self.context = "group"  # type: ignore[misc]
        self._statistics: Statistics | None = None
        self._network: nn.Module | None = None
        self._device = torch.device("cpu")

    def build(self) -> nn.Module:
        """The network, untrained: (N, channels, H, W) float32 to logits (N, 1, H, W), sides multiples of divisor.

        It may be built on torch's meta device (to count parameters): pretrained files belong in ``initialise``.

        For deep supervision it answers, in training mode only, a tuple of logit maps (N, 1, h, w), each on a grid of
        its own: first the finest, (N, 1, H, W), which is all that it answers in eval mode. Training sums the loss
        over all of them, with equal weights; see ``losses.summed_loss``.
        """
        raise NotImplementedError

    def initialise(self, network: nn.Module) -> None:
        """Puts pretrained parameters into a network that ``build`` just made, before its first epoch."""

    @property
    def channels(self) -> int:
        """Input channels of the network: 3, or 1 for option colour = gray or mean."""
        return 1 if self.options.colour in ("gray", "mean") else 3

    def fresh_network(self, seed: int) -> nn.Module:
        """A network to train: parameters drawn from ``seed``, then ``initialise``. Torch's own RNG is left alone.

        Raises:
            TrainingError: option normalise is fold, and the fold's photos were not seen: ``fit`` was not called.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.build()
            self.initialise(network)
        if self.options.normalise == "fold":
            if self._statistics is None:
                raise TrainingError(
                    f"member {self.config.name}: option normalise is fold, and an untrained network has no fold: "
                    "train it, or set normalise to another value"
                )
            keep_statistics(network, self._statistics)
        return network

    def load(self, checkpoint: Path | None, device: str) -> None:
        """Gets ready to predict.

        Args:
            checkpoint: .safetensors, or a foreign .pt / .pth of parameters alone; None: an untrained network.
            device: auto, cpu, cuda or mps (or cuda:1, ...).

        Raises:
            TrainingError: the checkpoint cannot be read, could run code, or does not fit the network.
            UsageError: the device is not there.
        """
        self._device = pick_device(device)
        if checkpoint is None:
            network = self.fresh_network(self.config.seed)
        else:
            parameters = read_parameters(checkpoint)
            network = self.build()
            if self.options.normalise == "fold":
                keep_statistics(network, Statistics(*torch.zeros(2, self.channels)))
            fit_parameters(network, parameters, checkpoint)
        self._network = place(network, self._device, self.options.channels_last).eval()
        if self.options.normalise == "fold":
            self._statistics = kept_statistics(self._network)

    def predict(self, batch: Batch) -> ModelMaps:
        """Logits (N, H, W) float32 on the grid of ``batch.images``, whatever that grid is."""
        images = torch.from_numpy(np.require(batch.images, requirements=["C", "W"])).to(self.device)
        return self.answer(images)[:, 0].cpu().numpy()

    @property
    def device(self) -> torch.device:
        """Where the network was loaded."""
        return self._device

    def answer(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) float32 logits of (N, H, W, 3) uint8 RGB, both on ``device``, which may still be at work."""
        if self._network is None:
            raise TrainingError(
                f"member {self.config.name} predicts before it is loaded: call load(checkpoint, device)"
            )
        with torch.inference_mode():
            return self.forward(self._network, images.permute(0, 3, 1, 2)).float()

    def forward(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of RGB images (N, 3, H, W), float in [0, 1] or uint8: colour, normalising, padding and
        the network.

        Raises:
            TrainingError: the network answers on another grid.
        """
        return self.forward_maps(network, images)[0]

    def forward_maps(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """All logit maps of a network in training mode, the finest first, which is that of ``forward``.

        Coarser ones are cropped to the cells that lie over the photo, in part or wholly. Arguments and errors as for
        ``forward``.
        """
        height, width = images.shape[2:]
        inputs = normalised(images, self.options, self._statistics)
        down, right = -height % self.divisor, -width % self.divisor
        if down or right:
            inputs = functional.pad(inputs, (0, right, 0, down), mode="replicate")
        inputs = inputs.contiguous(memory_format=layout(self.options.channels_last))
        answer = network(inputs)
        maps: tuple[Tensor, ...] = answer if isinstance(answer, tuple) and network.training else (answer,)
        shapes = [tuple(m.shape) if isinstance(m, Tensor) else type(m).__name__ for m in maps]
        expected = (inputs.shape[0], 1, *inputs.shape[2:])
        if shapes[:1] != [expected] or any(len(s) != 4 or s[:2] != expected[:2] for s in shapes):
            raise TrainingError(
                f"member {self.config.name}: the network answers {', '.join(map(str, shapes)) or 'no map'} to "
                f"{tuple(inputs.shape)}, not {expected}: report it to the author of model {self.config.model}"
            )
        rows, columns = inputs.shape[2:]
        return tuple(m[:, :, : -(-height * m.shape[2] // rows), : -(-width * m.shape[3] // columns)] for m in maps)

    def fit(self, task: FitTask) -> FitResult:
        """Trains one fold, resuming what a stopped run left in ``task.directory``; see ``learn.train``."""
        from carvana_ens.learn.train import train

        if self.options.roi and not (isinstance(task.train, CroppedSamples) and isinstance(task.valid, CroppedSamples)):
            raise TrainingError(
                f"member {self.config.name}: option roi is {self.options.roi}, but the photos to train on come whole: "
                "cut them to their boxes (learn.regions.CroppedSamples), or leave roi out"
            )
        if self.options.normalise == "fold" and task.train.ids:
            self._statistics = statistics_of(Photos(task.train, *input_rule(self)), self.options.colour)
        return train(self, task)

    def count_parameters(self) -> int:
        """Number of trainable parameters; nothing of their size is allocated."""
        with torch.device("meta"):
            return sum(p.numel() for p in self.build().parameters() if p.requires_grad)


def pick_device(name: str) -> torch.device:
    """The torch device of ``auto | cpu | cuda | mps`` (or ``cuda:1``).

    Raises:
        UsageError: no such device, or not on this machine.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}.get(device.type)
    if count is None:
        raise UsageError(f"device {name!r} is unknown: use auto, cpu, cuda or mps")
    if (device.index or 0) >= count:
        raise UsageError(f"device {name} is not there on this machine: use auto or cpu")
    return device


def layout(channels_last: bool) -> torch.memory_format:
    """How images and filters lie in memory."""
    return torch.channels_last if channels_last else torch.contiguous_format


def place(network: nn.Module, device: torch.device, channels_last: bool = True) -> nn.Module:
    """The network on the device, its filters laid out as the inputs are."""
    return network.to(device=device, memory_format=layout(channels_last))  # type: ignore[call-overload,no-any-return]
