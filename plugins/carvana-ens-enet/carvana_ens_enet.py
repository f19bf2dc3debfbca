"""enet: a network of a third of a million parameters, doubling by repeated pixels or by max-unpooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens import Recipe, Size, TorchModel, TorchOptions, UsageError, option

FIRST = 16
"""Channels of the first block: its convolution's, and the pooled colours."""
DIVISOR = 8

Middle = Callable[[int], list[nn.Module]]
"""channels -> the convolutions in the middle of a bottleneck, on one grid."""


class ENet(nn.Module):
    """ENet with one class: an encoder of 22 bottlenecks down to an eighth of the grid, and a decoder of 5.

    Args:
        colours: input channels.
        unpool: the decoder puts features back where the encoder's pooling took its maxima, zeros elsewhere; else it
            repeats pixels.
        momentum: part of each new batch in the normalisation's running means.

    Source: A. Paszke et al. (arXiv 1606.02147), as enet_naive_upsampling and enet_unpooling of
    PavlosMelissinos/enet-keras have it: ReLU in the decoder, biases in the middle convolutions, TensorFlow's "same"
    padding (right and below) where the stride is 2, eps 1e-3.
    """

    def __init__(self, colours: int, unpool: bool, momentum: float) -> None:
        super().__init__()
        self.unpool = unpool
        self.first = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(colours, FIRST - colours, 3, stride=2))
        self.first_norm = nn.Sequential(_norm(FIRST, momentum), _prelu(FIRST))
        plain = _dilated(1)
        middles = [plain, _dilated(2), _asymmetric, _dilated(4), plain, _dilated(8), _asymmetric, _dilated(16)]
        self.down1 = Halving(FIRST, 64, 0.01, momentum)
        self.stage1 = nn.Sequential(*(Encoding(64, plain, 0.01, momentum) for _ in range(4)))
        self.down2 = Halving(64, 128, 0.1, momentum)
        self.stage2 = nn.Sequential(*(Encoding(128, middle, 0.1, momentum) for middle in middles * 2))
        self.up2 = Doubling(128, 64, momentum)
        self.stage3 = nn.Sequential(Decoding(64, momentum), Decoding(64, momentum))
        self.up1 = Doubling(64, FIRST, momentum)
        self.stage4 = Decoding(FIRST, momentum)
        self.head = nn.ConvTranspose2d(FIRST, 1, 2, stride=2)
        self.apply(_start_as_keras)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of normalised images (N, colours, H, W).

        Raises:
            UsageError: H or W is no multiple of 8.
        """
        height, width = images.shape[2:]
        if height % DIVISOR or width % DIVISOR:
            fits = Size(*(-(-side // DIVISOR) * DIVISOR for side in (height, width)))
            raise UsageError(
                f"enet takes sides that are multiples of {DIVISOR}, not {Size(height, width)}: use size {fits}"
            )
        x = self.first_norm(torch.cat([self.first(images), functional.max_pool2d(images, 2)], 1))
        x, places1 = self.down1(x)
        x, places2 = self.down2(self.stage1(x))
        x = self.up2(self.stage2(x), places2 if self.unpool else None)
        x = self.up1(self.stage3(x), places1 if self.unpool else None)
        return self.head(self.stage4(x))


class Encoding(nn.Module):
    """A bottleneck of the encoder, added to its input; ``middle``: its convolutions between the two of 1x1."""

    def __init__(self, channels: int, middle: Middle, dropout: float, momentum: float) -> None:
        super().__init__()
        self.branch = _encoding(channels, channels, middle, dropout, momentum)
        self.last = _prelu(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) of the same."""
        return self.last(self.branch(x) + x)


class Halving(nn.Module):
    """A bottleneck that halves the grid: 2x2 in place of the first 1x1, added to its max-pooled input."""

    def __init__(self, inputs: int, outputs: int, dropout: float, momentum: float) -> None:
        super().__init__()
        self.branch = _encoding(inputs, outputs, _dilated(1), dropout, momentum, stride=2)
        self.last = _prelu(outputs)
        self.new = outputs - inputs

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, outputs, H / 2, W / 2) of (N, inputs, H, W), and where in its plane of H x W each maximum stood."""
        pooled, places = functional.max_pool2d(x, 2, return_indices=True)
        pooled = functional.pad(pooled, (0, 0, 0, 0, 0, self.new))  # channels of zeros
        return self.last(self.branch(x) + pooled), places


class Decoding(nn.Module):
    """A bottleneck of the decoder, added to its input."""

    def __init__(self, channels: int, momentum: float) -> None:
        super().__init__()
        self.branch = _bottleneck(channels, channels, _dilated(1), _relu, momentum)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) of the same."""
        return functional.relu(self.branch(x) + x)


class Doubling(nn.Module):
    """A bottleneck that doubles the grid: a transposed 3x3 in its middle, added to its doubled input."""

    def __init__(self, inputs: int, outputs: int, momentum: float) -> None:
        super().__init__()
        self.branch = _bottleneck(inputs, outputs, lambda inner: [_Doubled(inner, inner, 3, stride=2)], _relu, momentum)
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), _norm(outputs, momentum))

    def forward(self, x: Tensor, places: Tensor | None) -> Tensor:
        """(N, outputs, 2 H, 2 W) of (N, inputs, H, W); places: of the encoder's maxima, None to repeat pixels."""
        skip = self.skip(x)
        if places is None:
            skip = functional.interpolate(skip, scale_factor=2, mode="nearest")
        else:
            skip = functional.max_unpool2d(skip, places, 2)
        return functional.relu(self.branch(x) + skip)


def _bottleneck(
    inputs: int, outputs: int, middle: Middle, active: Callable[[int], nn.Module], momentum: float, stride: int = 1
) -> nn.Sequential:
    inner = outputs // 4
    return nn.Sequential(
        nn.Conv2d(inputs, inner, stride, stride=stride, bias=False),
        _norm(inner, momentum),
        active(inner),
        *middle(inner),
        _norm(inner, momentum),
        active(inner),
        nn.Conv2d(inner, outputs, 1, bias=False),
        _norm(outputs, momentum),
    )


def _encoding(
    inputs: int, outputs: int, middle: Middle, dropout: float, momentum: float, stride: int = 1
) -> nn.Sequential:
    return _bottleneck(inputs, outputs, middle, _prelu, momentum, stride).append(nn.Dropout2d(dropout))


class _Doubled(nn.ConvTranspose2d):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[:, :, :-1, :-1]  # what TensorFlow's "same" keeps


def _dilated(dilation: int) -> Middle:
    return lambda inner: [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation)]


def _asymmetric(inner: int) -> list[nn.Module]:
    row = nn.Conv2d(inner, inner, (1, 5), padding=(0, 2), bias=False)
    return [row, nn.Conv2d(inner, inner, (5, 1), padding=(2, 0))]


def _norm(channels: int, momentum: float) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum)  # Keras's eps


def _relu(_channels: int) -> nn.ReLU:
    return nn.ReLU(inplace=True)


def _prelu(channels: int) -> nn.PReLU:
    return nn.PReLU(channels, init=0.0)  # as Keras starts it


def _start_as_keras(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


@dataclass(frozen=True)
class EnetOptions(TorchOptions):
    """The recipe's options, with the photos as 0..1, and the decoder's way of doubling.

    Raises:
        ValueError: an option out of its range.
    """

    normalise: Literal["unit", "imagenet", "photo", "batch", "fold"] = option(
        "unit", "unit: 0..1, as its author had it; imagenet, photo, batch, fold: less their mean, by their deviation"
    )
    upsampling: Literal["nearest", "unpooling"] = option(
        "nearest", "how the decoder doubles: nearest repeats pixels, unpooling returns them to the encoder's maxima"
    )
    momentum: float = option(
        0.1, "part of each new batch in the normalisation's running means; its Keras source, taken at its word, has 0.9"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.momentum <= 1:
            raise ValueError(f"option momentum is {self.momentum}: it must be above 0 and at most 1")


ENET512 = Recipe(
    "the Keras solution's Enet512: border-weighted loss, Adam, rate lowered on a plateau. Not here: its split by photo "
    "(use --holdout 0.2); its normalisation of 0.9 new at each batch, taken for a slip, is --set momentum=0.9",
    size=Size(512, 512),
    options={
        "upsampling": "nearest",
        "colour": "rgb",
        "normalise": "unit",
        "pad": "none",
        "loss": "bce-positive,dice-batch",
        "border": "auto",
        "border_rule": "tensorflow",
        "optimiser": "adam",
        "rate": 1e-2,
        "weight_decay": 0.0,
        "schedule": "plateau",
        "plateau_factor": 0.333,
        "plateau_patience": 3,
        "plateau_delta": 1e-4,
        "plateau_least": 3e-4,
        "epochs": 50,
        "batch_size": 24,
        "drop_last": True,
        "best_by": "dice",
        "patience": 8,
        "min_delta": 1e-5,
        "hflip": 0.5,
        "warp": 0.5,
        "shift": 0.0625,
        "scale_least": 0.9,
        "scale_most": 1.1,
        "rotation": 0.0,
        "fill": "zero",
        "light": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "repaint": 0.0,
    },
)


class Enet(TorchModel):
    """ENet for one class."""

    Options = EnetOptions
    options: EnetOptions
    recipes: ClassVar[Mapping[str, Recipe]] = {"s0-enet": ENET512}
    size = Size(512, 512)
    divisor = DIVISOR

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        return ENet(self.channels, self.options.upsampling == "unpooling", self.options.momentum)
