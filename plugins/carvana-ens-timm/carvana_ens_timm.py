"""timm-unet: a U-Net decoder on any timm backbone that gives a pyramid of features."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from carvana_ens import TorchModel, TorchOptions, TrainingError, UsageError, option, read_parameters

HUB = "hub"


@dataclass(frozen=True)
class TimmUnetOptions(TorchOptions):
    """The recipe's options, the backbone and the decoder.

    Raises:
        ValueError: an unknown backbone, or a number out of its range.
    """

    encoder: str = option(
        "mobilenetv2_100", "timm backbone: any of timm.list_models() that gives a pyramid of features"
    )
    encoder_weights: str = option(
        "",
        f'weights that training starts from: none, "{HUB}" (timm\'s own, online), or a .safetensors or .pth file',
        path=True,
    )
    decoder_channels: str = option("96,64,32,16,8", "widths of the decoder, one a doubling of the grid, coarse to fine")
    dropout: float = option(0.0, "part of the decoder's last channels that training drops, whole channels at a time")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not timm.is_model(self.encoder):
            near = difflib.get_close_matches(self.encoder, timm.list_models(), 3)
            hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() has the names"
            raise ValueError(f"option encoder is {self.encoder!r}, which timm {timm.__version__} does not know: {hint}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"option dropout is {self.dropout}: it must be at least 0 and below 1")
        parse_widths(self.decoder_channels)


def parse_widths(text: str) -> tuple[int, ...]:
    """Channel counts from ``"96,64,32"``.

    Raises:
        ValueError: the text is anything else.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 0 < int(word) <= 4096 for word in words):
        raise ValueError(f"option decoder_channels is {text!r}: write widths from 1 to 4096, as in 96,64,32,16,8")
    return tuple(int(word) for word in words)


class TimmUnetModel(TorchModel):
    """A U-Net on a timm backbone; training starts from the backbone weights that the options name."""

    Options = TimmUnetOptions
    options: TimmUnetOptions
    divisor = 32  # that of nearly all backbones; build sets the one that it finds

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out.

        Raises:
            UsageError: the backbone gives no pyramid, or the decoder's widths do not fit it.
        """
        options = self.options
        network = TimmUnet(
            make_encoder(options.encoder, self.channels), parse_widths(options.decoder_channels), options.dropout
        )
        self.divisor = network.reductions[-1]
        return network

    def initialise(self, network: nn.Module) -> None:
        """Gives a new network the backbone weights that training starts from.

        Raises:
            UsageError: no such file, or timm has no weights for the backbone.
            TrainingError: the file holds no weights of the backbone, or the hub gave none.
        """
        weights = self.options.encoder_weights
        if weights == HUB:
            network.encoder.load_state_dict(hub_weights(self.options.encoder, self.channels))
        elif weights:
            load_encoder(network.encoder, Path(weights).expanduser(), self.options.encoder)


class TimmUnet(nn.Module):
    """A U-Net: from the coarsest features up, each doubling joined by the features of its grid where there are any.

    Args:
        encoder: from ``make_encoder``.
        widths: channels after each doubling of the grid, down to the input's own.
        dropout: part of the last channels that training drops.

    Raises:
        UsageError: the number of widths is not the number of doublings.

    Source: O. Ronneberger et al. (arXiv 1505.04597), with the encoder's last features in place of the bottom.
    """

    def __init__(self, encoder: nn.Module, widths: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.reductions: list[int] = encoder.feature_info.reduction()
        channels = dict(zip(self.reductions, encoder.feature_info.channels(), strict=True))
        deepest = self.reductions[-1]
        doublings = deepest.bit_length() - 1
        if len(widths) != doublings:
            raise UsageError(
                f"option decoder_channels has {len(widths)} widths, but this encoder's coarsest features lie "
                f"{deepest} pixels apart: give {doublings} widths"
            )
        self.strides = [deepest >> step for step in range(1, doublings + 1)]
        inputs = [channels[deepest], *widths[:-1]]
        self.blocks = nn.ModuleList(
            _conv_twice(before + channels.get(stride, 0), width)
            for before, stride, width in zip(inputs, self.strides, widths, strict=True)
        )
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of normalised images (N, C, H, W); any H and W that the encoder takes."""
        features = dict(zip(self.reductions, self.encoder(images), strict=True))
        height, width = images.shape[-2:]
        x = features[self.reductions[-1]]
        for block, stride in zip(self.blocks, self.strides, strict=True):
            skip = features.get(stride)
            # Sizes are taken, not doubled: some encoders (Inception's) shrink a grid by a little more than half.
            grid = (-(-height // stride), -(-width // stride)) if skip is None or stride == 1 else skip.shape[-2:]
            x = functional.interpolate(x, size=grid, mode="nearest")
            x = block(x if skip is None else torch.cat([x, skip], 1))
        return self.head(x)


def _conv_twice(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def make_encoder(name: str, channels: int) -> nn.Module:
    """A backbone without weights, tried once on zeros.

    Args:
        name: timm's.
        channels: of the photos, 3 or 1.

    Raises:
        UsageError: it gives no pyramid of features, or only takes photos of one size.
    """
    advice = "choose a backbone with a pyramid, such as mobilenetv2_100, resnet34 or convnext_nano"
    try:
        encoder = timm.create_model(name, features_only=True, in_chans=channels)
    except Exception as error:  # timm raises whatever its constructor meets
        raise UsageError(f"encoder {name} gives no features ({_line(error)}): {advice}") from error
    reductions, counts = encoder.feature_info.reduction(), encoder.feature_info.channels()
    powers = all(isinstance(r, int) and r > 0 and r & (r - 1) == 0 for r in reductions)
    if len(reductions) < 2 or not powers or list(reductions) != sorted(set(reductions)):
        raise UsageError(f"encoder {name} has features {reductions} pixels apart, which is no pyramid: {advice}")
    zeros = torch.zeros(1, channels, 3 * reductions[-1], 4 * reductions[-1])
    encoder.eval()  # so that the zeros leave no trace in running statistics
    try:
        with torch.no_grad():
            shapes = [tuple(feature.shape) for feature in encoder(zeros)]
    except Exception as error:
        raise UsageError(f"encoder {name} does not take photos of any size ({_line(error)}): {advice}") from error
    if [shape[1:2] for shape in shapes if len(shape) == 4] != [(count,) for count in counts]:
        raise UsageError(f"encoder {name} gives features of shapes {shapes}, not (N, channels, H, W): {advice}")
    encoder.train()
    return encoder


def hub_weights(name: str, channels: int) -> dict[str, Tensor]:
    """The weights that timm has for a backbone and photos of 3 or 1 channels, from the hub or its local cache.

    Raises:
        UsageError: timm has none.
        TrainingError: they could not be had.
    """
    if not timm.models.is_model_pretrained(name):
        raise UsageError(f"timm has no weights for encoder {name}: give a file, or leave encoder_weights empty")
    try:
        return timm.create_model(name, features_only=True, pretrained=True, in_chans=channels).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"no weights of encoder {name} from the hub ({_line(error)}): check the network, or set "
            "encoder_weights to a .safetensors or .pth file"
        ) from error


def load_encoder(encoder: nn.Module, path: Path, name: str) -> None:
    """Fills a backbone from a file of weights.

    Tensors are matched by name, whatever else the file holds. Where no name agrees, those of a file that torch saved
    (safetensors keeps no order) are matched in order, if each has the shape and the kind (weight, bias, ...) of its
    counterpart, as torchvision's MobileNetV2 has. Photos of one channel get the sum of the first layer's three.

    Args:
        encoder: from ``make_encoder``.
        path: ``.safetensors``, or what torch saved (``.pth``) with nothing but tensors.
        name: the backbone's, for messages.

    Raises:
        UsageError: no such file.
        TrainingError: the file is damaged, holds more than tensors, or does not fit; the backbone is as before.
    """
    if not path.is_file():
        raise UsageError(
            f"option encoder_weights names {path.absolute()}, which is no file: give its full path, or {HUB!r}"
        )
    found = _without_counters(read_parameters(path))
    wanted = _without_counters(encoder.state_dict())
    by_name = {_plain(key): tensor for key, tensor in found.items()}
    missing = [key for key in wanted if _plain(key) not in by_name]
    ordered = path.suffix != ".safetensors" and len(missing) == len(wanted)
    if not missing:
        matched = {key: by_name[_plain(key)] for key in wanted}
    elif ordered and [_kind(key) for key in wanted] == [_kind(key) for key in found][: len(wanted)]:
        matched = dict(zip(wanted, found.values(), strict=False))  # what follows is the classifier
    else:
        raise TrainingError(
            f"{path} does not hold the weights of encoder {name}: {len(missing)} of {len(wanted)} tensors are not in "
            f"it, first {missing[0]}; give the file of this very backbone"
        )
    first = next(iter(wanted))
    if wanted[first].shape[1:2] == (1,) and matched[first].shape[1:2] == (3,):
        matched[first] = matched[first].sum(1, keepdim=True)
    for key, tensor in matched.items():
        if tensor.shape != wanted[key].shape:
            fault = f"is {_shape(tensor)}, not {_shape(wanted[key])}"
        elif not torch.isfinite(tensor).all():
            fault = "has values that are not finite"
        else:
            continue
        raise TrainingError(f"{path} does not fit encoder {name}: {key} {fault}; give the file of this very backbone")
    encoder.load_state_dict(matched, strict=False)  # strict but for the counters of batches seen


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Old files lack BatchNorm's num_batches_tracked, which would shift everything that is matched in order.
    return {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}


def _plain(key: str) -> str:
    # timm writes stages_0 for stages.0 where it takes a network apart for its features.
    return key.replace("_", ".")


def _kind(key: str) -> str:
    return key.rpartition(".")[2]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
