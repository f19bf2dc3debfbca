"""A timm backbone as what the decoders need: one map of features a grid, on grids that halve exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens import UsageError

ADVICE = "choose a backbone with a pyramid, such as mobilenetv2_100, resnet34 or convnext_nano"
ONE_CHANNEL = {"gray": (0.299, 0.587, 0.114), "mean": (1 / 3, 1 / 3, 1 / 3)}
"""How the host makes one channel of red, green and blue: luma (ITU-R BT.601), or their mean."""
Colour = Literal["rgb", "bgr", "gray", "mean", "hsv"]


class Encoder(nn.Module):
    """A backbone whose features come by their stride.

    ``channels`` holds the channels of the features at each stride (pixels between neighbouring features), fine to
    coarse. Where a backbone has several maps on one grid, as dilated ones do, the deepest stands for it.

    Args:
        backbone: of ``timm.create_model(..., features_only=True)``.
        scale: (2, C) a factor and a summand for each channel of the images, from ``own_scale``; None: as they are.
    """

    scale: Tensor | None

    def __init__(self, backbone: Any, scale: Tensor | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.reductions: list[int] = list(backbone.feature_info.reduction())
        self.channels: dict[int, int] = dict(zip(self.reductions, backbone.feature_info.channels(), strict=True))
        # Not in checkpoints: the backbone's name decides it.
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Features (N, channels[s], H / s, W / s) by stride s, fine to coarse, of images (N, C, H, W).

        Raises:
            UsageError: a side is no multiple of the largest stride.
        """
        height, width = images.shape[-2:]
        coarsest = self.reductions[-1]
        if height % coarsest or width % coarsest:
            up = [side + -side % coarsest for side in (height, width)]
            raise UsageError(
                f"photos of {height}x{width} have a side that is no multiple of {coarsest}: pad them to {up[0]}x{up[1]}"
            )
        if self.scale is not None:
            factor, summand = self.scale[:, None, :, None, None]
            images = images * factor + summand
        pyramid = {}
        for stride, features in zip(self.reductions, self.backbone(images), strict=True):
            grid = (height // stride, width // stride)
            # Convolutions without padding (Inception's) shrink a grid by a little more than half.
            exact = tuple(features.shape[-2:]) == grid
            pyramid[stride] = (
                features if exact else functional.interpolate(features, grid, mode="bilinear", align_corners=False)
            )
        return pyramid


def make_encoder(name: str, colour: Colour = "rgb", output_stride: int = 0, *, imagenet: bool = False) -> Encoder:
    """A backbone without weights, tried once on zeros.

    Args:
        name: timm's.
        colour: what the backbone sees: gray and mean are one channel.
        output_stride: 8 or 16: the last stages are dilated, so that the coarsest features lie no farther apart;
            0: the backbone's own stride.
        imagenet: the inputs are normalised by ImageNet's mean and deviation; where the backbone's own weights expect
            others, its inputs are scaled to them.

    Raises:
        UsageError: it gives no pyramid of features, cannot be dilated, or only takes photos of one size.
    """
    channels = 1 if colour in ONE_CHANNEL else 3
    backbone = _create(name, channels, output_stride)
    reductions, counts = backbone.feature_info.reduction(), backbone.feature_info.channels()
    powers = all(isinstance(r, int) and r > 0 and r & (r - 1) == 0 for r in reductions)
    if not powers or list(reductions) != sorted(reductions) or len(set(reductions)) < 2 or reductions[-1] < 8:
        raise UsageError(f"encoder {name} has features {reductions} pixels apart, which is no pyramid: {ADVICE}")
    zeros = torch.zeros(1, channels, 3 * reductions[-1], 4 * reductions[-1])
    backbone.eval()  # so that the zeros leave no trace in running statistics
    try:
        with torch.no_grad():
            shapes = [tuple(features.shape) for features in backbone(zeros)]
    except Exception as error:
        raise UsageError(f"encoder {name} does not take photos of any size ({line(error)}): {ADVICE}") from error
    if [shape[1:2] for shape in shapes if len(shape) == 4] != [(count,) for count in counts]:
        raise UsageError(f"encoder {name} gives features of shapes {shapes}, not (N, channels, H, W): {ADVICE}")
    backbone.train()
    statistics = backbone.pretrained_cfg
    scale = own_scale(statistics["mean"], statistics["std"], colour) if imagenet else None
    return Encoder(backbone, scale)


def coarsest_stride(name: str, output_stride: int = 0) -> int:
    """Pixels between the coarsest features of a backbone.

    Raises:
        UsageError: it gives no features, or cannot be dilated.
    """
    stride: int = _create(name, 3, output_stride).feature_info.reduction()[-1]
    return stride


def _create(name: str, channels: int, output_stride: int) -> Any:
    dilated: dict[str, Any] = {"output_stride": output_stride} if output_stride else {}
    try:
        backbone: Any = timm.create_model(name, features_only=True, in_chans=channels, **dilated)
    except Exception as error:  # timm raises whatever its constructor meets
        if output_stride:
            raise UsageError(
                f"encoder {name} cannot be made with output_stride {output_stride} ({line(error)}): leave it at 0, or "
                "choose one that can be dilated, such as resnet34, mobilenetv2_100 or convnext_nano"
            ) from error
        raise UsageError(f"encoder {name} gives no features ({line(error)}): {ADVICE}") from error
    coarsest = backbone.feature_info.reduction()[-1]
    if output_stride not in (0, coarsest):
        raise UsageError(
            f"encoder {name} has its coarsest features {coarsest} pixels apart in spite of output_stride "
            f"{output_stride}: leave it at 0"
        )
    return backbone


def own_scale(mean: Sequence[float], deviation: Sequence[float], colour: Colour) -> Tensor | None:
    """What turns channels normalised by ImageNet's mean and deviation into those that a backbone was trained with.

    Args:
        mean: of the three colours in [0, 1], by which the backbone's own photos were normalised.
        deviation: likewise.
        colour: of the channels.

    Returns:
        (2, C) float32, a factor and then a summand for each channel; None where nothing is to be done.
    """
    rows = [IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, tuple(mean), tuple(deviation)]
    if rows[:2] == rows[2:]:
        return None
    table = torch.tensor(rows, dtype=torch.float64)
    if colour in ONE_CHANNEL:
        table = (table * table.new_tensor(ONE_CHANNEL[colour])).sum(1, keepdim=True)
    elif colour == "bgr":
        table = table.flip(1)
    given_mean, given_deviation, own_mean, own_deviation = table
    return torch.stack([given_deviation, given_mean - own_mean]).div(own_deviation).float()


def line(error: BaseException) -> str:
    """An error of another library in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
