"""What the file does not say, or says wrongly, as options; and how levels become what a network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from carvana_ens import UsageError, option

Triple = tuple[float, ...]
NORMALISING: dict[str, tuple[float, Triple, Triple]] = {
    "levels": (1.0, (0.0,), (1.0,)),
    "unit": (1 / 255, (0.0,), (1.0,)),
    "signed": (1 / 255, (0.5,), (0.5,)),
    "imagenet": (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""scale, mean and std by name: a value is (level x scale - mean) / std. ImageNet's are torchvision's."""


@dataclass(frozen=True)
class OnnxOptions:
    """What ``carvana-ens add-model onnx --set NAME=VALUE`` can change; "file" takes what the file says.

    Raises:
        ValueError: an option out of its range, or numbers that cannot be read.
    """

    layout: Literal["file", "nchw", "nhwc"] = option(
        "file",
        "axes of the input: photos, channels, height, width, or channels last; file: by where 3 or 1 channels are",
    )
    colour: Literal["file", "rgb", "bgr", "gray"] = option(
        "file", "order of the input's channels; file: by its metadata, else rgb, and gray (luma) for one channel"
    )
    normalise: Literal["file", "levels", "unit", "signed", "imagenet"] = option(
        "file",
        "what the input takes: levels: 0..255; unit: 0..1; signed: -1..1; imagenet: unit, less ImageNet's mean, by its "
        "deviation; file: by its metadata, and levels for an input of bytes",
    )
    scale: float = option(0.0, "factor of the levels 0..255, in place of normalise's; 0: normalise's")
    mean: str = option("", "subtracted after scaling, in place of normalise's: one number, or of red,green,blue")
    std: str = option("", "divides what is left, in place of normalise's: one number, or of red,green,blue")
    multiple: int = option(1, "sides are padded (border repeated, right and below) to a multiple of it, maps cut back")
    output: str = option("", "name of the output that is the map; empty: the only one that can be")
    channel: int = option(
        -1, "channel of the output that is the object, from 0; -1: the only one, or the second of two"
    )
    activation: Literal["file", "none", "sigmoid", "softmax"] = option(
        "file",
        "what the output still needs: none: it is probabilities; file: by its last operator (of logits: softmax for "
        "two channels, sigmoid for one)",
    )
    threads: int = option(0, "threads on the CPU; 0: one for each core")

    def __post_init__(self) -> None:
        for name, least in (("scale", 0), ("multiple", 1), ("channel", -1), ("threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be {least} or more")
        numbers(self.mean, "mean")
        if 0 in numbers(self.std, "std"):
            raise ValueError(f"option std is {self.std}: it must not be 0")


def numbers(text: str, name: str) -> Triple:
    """One number or three, as in ``"0.485,0.456,0.406"``; none for an empty text.

    Raises:
        ValueError: the text is anything else.
    """
    try:
        found = tuple(float(word) for word in text.split(",")) if text else ()
    except ValueError:
        found = (0.0, 0.0)
    if len(found) not in (0, 1, 3) or not np.isfinite(found).all():
        raise ValueError(f"option {name} is {text!r}: write one number, or three as in 0.485,0.456,0.406")
    return found


@dataclass(frozen=True)
class Normalising:
    """How a network sees levels. scale, mean, std: see ``NORMALISING``; colour: rgb, bgr or gray; dtype: of the input.

    mean and std are of red, green and blue, whatever the order of the input's channels.
    """

    scale: float
    mean: Triple
    std: Triple
    colour: str
    dtype: np.dtype[np.generic]

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.generic]:
        """(N, H, W, C) in the input's colour and dtype, from (N, H, W, 3) uint8 RGB."""
        if self.colour == "gray":
            luma = images @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
            levels = np.rint(luma)[..., None].astype(images.dtype)
        else:
            levels = images
        if self.dtype == images.dtype:
            values: NDArray[np.generic] = levels
        else:
            mean, std = (np.array(part, np.float32) for part in (self.mean, self.std))
            values = ((levels * np.float32(self.scale) - mean) / std).astype(self.dtype)
        return values[..., ::-1] if self.colour == "bgr" else values


def normalising(options: OnnxOptions, colour: str, dtype: np.dtype[np.generic]) -> Normalising:
    """What options say of levels, for an input of this colour and dtype.

    Raises:
        UsageError: they do not say it, or numbers and colour or dtype do not go together.
    """
    name = options.normalise
    if name == "file":
        if dtype == np.uint8 or options.scale:
            name = "levels"
        else:
            raise UsageError(
                "the file does not say how levels 0..255 are to be normalised: set normalise to imagenet, unit, signed "
                "or levels, or set scale, mean and std, as the network was trained"
            )
    scale, mean, std = NORMALISING[name]
    scale = options.scale or scale
    mean, std = numbers(options.mean, "mean") or mean, numbers(options.std, "std") or std
    if colour == "gray" and (len(mean), len(std)) != (1, 1):
        raise UsageError("the input has one channel, and mean or std three numbers: set mean and std to one each")
    if dtype == np.uint8 and (scale, mean, std) != NORMALISING["levels"]:
        raise UsageError(
            "the input takes bytes, levels 0..255 as they are: set normalise=levels, no scale, mean or std"
        )
    return Normalising(scale, mean, std, colour, dtype)


def channel_of(count: int, options: OnnxOptions, activation: str) -> tuple[int, str]:
    """The output's channel that is the object, of ``count``, and what is to be done: none, sigmoid or softmax.

    activation: what the options or the file say, or "logits".

    Raises:
        UsageError: neither the number of channels nor the options decide it.
    """
    channel = options.channel
    if channel >= count:
        raise UsageError(f"option channel is {channel}, and the output has {count} channels, from 0: set a smaller one")
    if channel < 0:
        if count > 2 or (count == 2 and activation == "sigmoid"):
            raise UsageError(f"the output has {count} channels: set channel to the object's, from 0 to {count - 1}")
        channel = count - 1
    if activation == "logits":
        if count > 2:
            raise UsageError(
                f"the output has {count} channels of logits: set activation to softmax (one class a pixel) or sigmoid"
            )
        activation = "softmax" if count == 2 else "sigmoid"
    if activation == "softmax" and count == 1:
        raise UsageError("the output has one channel, of which softmax makes 1 everywhere: set activation=sigmoid")
    return channel, activation


def object_logits(channels: Sequence[NDArray[np.float32]], channel: int) -> NDArray[np.float32]:
    """Logits whose sigmoid is the softmax of one channel: z_c less the log of the sum of exp over the others."""
    others = [values for number, values in enumerate(channels) if number != channel]
    rest = others[0]
    for values in others[1:]:
        rest = np.logaddexp(rest, values)
    return channels[channel] - rest
