"""linknet34, linknet18 and linknet50: LinkNets on ResNets, the first from Carvana's first place."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal

import timm
import torch
from torch import Tensor, nn

from carvana_ens import TorchModel, TorchOptions, TrainingError, UsageError, option, read_parameters

HUB = "hub"


class LinkNet(nn.Module):
    """A LinkNet: each doubling is added to the encoder's features of its grid, except the last two.

    Args:
        encoder: a ResNet of timm.
        colours: input channels.

    Source: A. Chaurasia and E. Culurciello (arXiv 1707.03718), with the head of albu's LinkNet34.
    """

    def __init__(self, encoder: str, colours: int) -> None:
        super().__init__()
        self.encoder = make_encoder(encoder, colours)
        widths = self.encoder.feature_info.channels()
        self.blocks = nn.ModuleList(_doubling(before, after) for before, after in pairwise([*widths[::-1], widths[0]]))
        # Without padding the first two layers give H + 1 and H - 1 rows; the last brings back H.
        self.head = nn.Sequential(
            nn.ConvTranspose2d(widths[0], 32, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, 2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of normalised images (N, colours, H, W); H and W multiples of 32."""
        *skips, x = self.encoder(images)
        for block in self.blocks:
            x = block(x)
            if skips:
                x = x + skips.pop()
        return self.head(x)


def make_encoder(name: str, colours: int) -> nn.Module:
    """A ResNet without weights: features of its four stages, at strides 4, 8, 16 and 32."""
    return timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4), in_chans=colours)


def _doubling(inputs: int, outputs: int) -> nn.Module:
    """1x1 convolution to a quarter of the channels, 3x3 transposed convolution of stride 2, 1x1 convolution."""
    quarter = inputs // 4
    layers: list[nn.Module] = []
    for layer in (
        nn.Conv2d(inputs, quarter, 1),
        nn.ConvTranspose2d(quarter, quarter, 3, stride=2, padding=1, output_padding=1),
        nn.Conv2d(quarter, outputs, 1),
    ):
        layers += [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class LinkNetOptions(TorchOptions):
    """The recipe's options with the input rule of the authors, and the weights that training starts from."""

    colour: Literal["bgr", "rgb", "gray"] = option("bgr", "what the network sees: bgr, rgb or gray (one channel)")
    normalise: Literal["unit", "imagenet", "photo"] = option(
        "unit", "unit: 0..1; imagenet: ImageNet's mean and deviation; photo: each photo's own"
    )
    pad: Literal["zero", "edge", "reflect", "none"] = option(
        "zero", "zero, edge, reflect: pixels beside the photo, which is not resized; none: resized to the input size"
    )
    encoder_weights: str = option(
        "",
        f'weights that training starts from: none, "{HUB}" (timm\'s own, online), or a .safetensors or .pth file',
        path=True,
    )
    output_conv: bool = option(False, "a 1x1 convolution of the logits at the end, as the Keras solution has it")


class LinkNet34(TorchModel):
    """LinkNet on ResNet-34, on whole photos with black columns and rows up to a multiple of 32."""

    Options = LinkNetOptions
    options: LinkNetOptions
    size = None
    divisor = 32
    encoder: ClassVar[str] = "resnet34"

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        network = LinkNet(self.encoder, self.channels)
        if self.options.output_conv:
            network.head.append(nn.Conv2d(1, 1, 1))
        return network

    def initialise(self, network: nn.Module) -> None:
        """Gives a new network the ResNet weights that training starts from.

        Raises:
            UsageError: no such file.
            TrainingError: the file does not hold this ResNet, or the hub gave nothing.
        """
        weights = self.options.encoder_weights
        if weights == HUB:
            network.encoder.load_state_dict(hub_weights(self.encoder, self.channels))
        elif weights:
            load_encoder(network.encoder, Path(weights).expanduser(), self.encoder)


class LinkNet18(LinkNet34):
    """The same on ResNet-18, the encoder of the LinkNet paper."""

    encoder = "resnet18"


class LinkNet50(LinkNet34):
    """The same on ResNet-50."""

    encoder = "resnet50"


def hub_weights(name: str, colours: int) -> dict[str, Tensor]:
    """ImageNet's weights of torchvision's ResNet for photos of 3 or 1 channels, from timm's hub or its local cache.

    Raises:
        TrainingError: they could not be had.
    """
    try:
        network = timm.create_model(
            f"{name}.tv_in1k", features_only=True, pretrained=True, out_indices=(1, 2, 3, 4), in_chans=colours
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"no weights of {name} from the hub ({_line(error)}): check the network, or set encoder_weights to a "
            ".safetensors or .pth file"
        ) from error
    return network.state_dict()


def load_encoder(encoder: nn.Module, path: Path, name: str) -> None:
    """Fills a ResNet from a file of weights, torchvision's or timm's: tensors are matched by name, and the file may
    hold more (the classifier). Photos of one channel get the sum of the first layer's three.

    Raises:
        UsageError: no such file.
        TrainingError: the file is damaged, holds more than tensors, or does not fit; the encoder is as before.
    """
    if not path.is_file():
        raise UsageError(
            f"option encoder_weights names {path.absolute()}, which is no file: give its full path, or {HUB!r}"
        )
    matched = read_parameters(path)
    # Old files lack the counters of batches seen, which nothing uses.
    wanted = {key: tensor for key, tensor in encoder.state_dict().items() if not key.endswith("num_batches_tracked")}
    first = next(iter(wanted))
    if first in matched and (matched[first].shape[1:2], wanted[first].shape[1:2]) == ((3,), (1,)):
        matched[first] = matched[first].sum(1, keepdim=True)
    for key, tensor in wanted.items():
        if key not in matched:
            fault = "is not in it"
        elif matched[key].shape != tensor.shape:
            fault = f"is {tuple(matched[key].shape)}, not {tuple(tensor.shape)}"
        elif not torch.isfinite(matched[key]).all():
            fault = "has values that are not finite"
        else:
            continue
        raise TrainingError(f"{path} does not fit encoder {name}: {key} {fault}; give the file of this very network")
    encoder.load_state_dict({key: matched[key] for key in wanted}, strict=False)


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
