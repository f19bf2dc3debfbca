"""What networks that were written in Keras 2.0 share: their normalisation and how their parameters start."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from carvana_ens import option
from carvana_ens_unet.network import Norm, UnetOptions


def keras_norm(momentum: float) -> Norm:
    """Batch normalisation with Keras's eps. momentum: torch's, one minus that of Keras."""
    return lambda channels: nn.BatchNorm2d(channels, eps=1e-3, momentum=momentum)


def start_as_keras(network: nn.Module) -> nn.Module:
    """The network, its convolutions drawn as Keras draws them: Glorot's uniform numbers, biases 0.

    torch's own start halves the signal in every layer, and not all of these have a normalisation to bring it back.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


@dataclass(frozen=True)
class KerasOptions(UnetOptions):
    """The options of a network with Keras's slow running statistics.

    Raises:
        ValueError: an option out of its range.
    """

    momentum: float = option(
        0.01, "part of each new batch in the normalisation's running means; raise it for runs of under 500 steps"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.momentum <= 1:
            raise ValueError(f"option momentum is {self.momentum}: it must be above 0 and at most 1")
