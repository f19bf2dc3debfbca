"""The encoders, timm's ResNets and VGG, tapped where the decoders join them, and the weights that they start from."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from carvana_ens import Size, TrainingError, UsageError, read_parameters

HUB = "hub"
RESNET = ("maxpool", "layer1", "layer2", "layer3", "layer4")  # 4, 4, 8, 16 and 32 pixels apart
VGG = ("features_6", "features_13", "features_23", "features_33", "features_43")  # after each pooling: 2 ... 32
ENCODERS = {
    "resnet34": (RESNET, (64, 64, 128, 256, 512)),
    "resnet50": (RESNET, (64, 256, 512, 1024, 2048)),
    "vgg16_bn": (VGG, (64, 128, 256, 512, 512)),
}
"""Layers of timm's networks whose outputs the decoders join, fine to coarse, and their channels."""


class Encoder(nn.Module):
    """A backbone of timm without weights, that gives the outputs of five of its layers.

    Args:
        name: a key of ENCODERS.
        colours: input channels.
        divisor: of the photo's sides, as encoder and decoder together need it.
    """

    def __init__(self, name: str, colours: int, divisor: int) -> None:
        super().__init__()
        self.name, self.divisor = name, divisor
        self.taps, self.channels = ENCODERS[name]
        # VGG's classifier, which is thrown away at once, would be made with 100 million numbers.
        spared = {"mlp_ratio": 1 / 4096} if self.taps is VGG else {}
        self.body = timm.create_model(name, features_only=True, in_chans=colours, **spared)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features, fine to coarse, of normalised images (N, colours, H, W).

        Raises:
            UsageError: H or W is no multiple of the divisor.
        """
        height, width = x.shape[2:]
        if height % self.divisor or width % self.divisor:
            fits = Size(*(-(-side // self.divisor) * self.divisor for side in (height, width)))
            raise UsageError(
                f"this RefineNet takes sides that are multiples of {self.divisor}, not {Size(height, width)}: "
                f"use size {fits}"
            )
        features = []
        for name, layer in self.body.items():
            x = layer(x)
            if name in self.taps:
                features.append(x)
        return features


def hub_weights(name: str, channels: int) -> dict[str, Tensor]:
    """The weights that timm has for an encoder and photos of 3 or 1 channels, from the hub or its local cache.

    Raises:
        TrainingError: they could not be had.
    """
    try:
        return timm.create_model(name, features_only=True, pretrained=True, in_chans=channels).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"no weights of encoder {name} from the hub ({_line(error)}): check the network, or set "
            "encoder_weights to a .safetensors or .pth file"
        ) from error


def load_encoder(encoder: nn.Module, path: Path, name: str) -> None:
    """Fills an encoder from a file of weights, timm's or torchvision's, matched by name whatever else the file holds.

    Photos of one channel get the sum of the first layer's three.

    Args:
        encoder: the ``body`` of an Encoder.
        path: ``.safetensors``, or what torch saved (``.pth``) with nothing but tensors.
        name: the encoder's, for messages.

    Raises:
        UsageError: no such file.
        TrainingError: the file is damaged, holds more than tensors, or does not fit; the encoder is as before.
    """
    if not path.is_file():
        raise UsageError(
            f"option encoder_weights names {path.absolute()}, which is no file: give its full path, or {HUB!r}"
        )
    found = {_plain(key): tensor for key, tensor in read_parameters(path).items()}
    # Old files lack the counters of batches seen.
    wanted = {key: own for key, own in encoder.state_dict().items() if not key.endswith("num_batches_tracked")}
    missing = [key for key in wanted if _plain(key) not in found]
    if missing:
        raise TrainingError(
            f"{path} does not hold the weights of encoder {name}: {len(missing)} of {len(wanted)} tensors are not in "
            f"it, first {missing[0]}; give the file of this very backbone"
        )
    matched = {key: found[_plain(key)] for key in wanted}
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
    encoder.load_state_dict(matched, strict=False)  # strict but for the counters


def _plain(key: str) -> str:
    # timm writes features_0 for features.0 where it takes a network apart.
    return key.replace("_", ".")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
