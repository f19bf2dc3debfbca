"""refinenet-v1 ... refinenet-v6 as models of carvana-ens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from carvana_ens import EncoderOptions, Size, TorchModel, load_encoder, option
from carvana_ens_refinenet import recipes as authors
from carvana_ens_refinenet.gated import GatedRefineNet
from carvana_ens_refinenet.network import Plan, RefineNet


@dataclass(frozen=True)
class RefineNetOptions(EncoderOptions):
    """The recipe's options, with the photos as their author had them, and the encoder's weights."""

    colour: Literal["bgr", "rgb", "gray", "mean", "hsv"] = option(
        "bgr", "what the network sees: bgr, rgb, hsv, or one channel: gray (luma) or mean (of red, green and blue)"
    )
    normalise: Literal["unit", "imagenet", "photo", "batch", "fold"] = option(
        "unit", "unit: 0..1, as its author had it; imagenet, photo, batch, fold: less their mean, by their deviation"
    )


class _RefineNet(TorchModel):
    Options = RefineNetOptions
    options: RefineNetOptions
    size = Size(1024, 1024)

    def initialise(self, network: nn.Module) -> None:
        """Gives a new network the encoder's weights that training starts from.

        Raises:
            UsageError: no such file.
            TrainingError: the file does not hold the encoder's weights, or the hub gave none.
        """
        encoder = network.encoder
        load_encoder(encoder.body, self.options.encoder_weights, encoder.name, self.channels)


class _Planned(_RefineNet):
    plan: ClassVar[Plan]

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out."""
        return RefineNet(self.plan, self.channels)


class RefineNetV1(_Planned):
    """ResNet50; features are added."""

    recipes = authors.main(1)
    plan = Plan(
        "resnet50",
        middle=3,
        pooled=False,
        units=((512,), (256,), (64,), (64,), ()),
        kernel=3,
        added=4,
        head=(32, 16),
    )


class RefineNetV2(_Planned):
    """ResNet50; features are concatenated, but for the finest."""

    recipes = authors.main(2)
    plan = Plan(
        "resnet50",
        middle=1,
        pooled=False,
        units=((), (512,), (256,), (64,), (64,)),
        kernel=1,
        added=1,
        head=(32, 16),
    )


class RefineNetV3(_Planned):
    """Version 2 with two units at a time."""

    recipes = authors.main(3)
    plan = Plan(
        "resnet50",
        middle=1,
        pooled=False,
        units=((), (512, 512), (256, 256), (64, 64), (64,)),
        kernel=1,
        added=1,
        head=(16, 8),
    )


class RefineNetV4(_Planned):
    """ResNet34, halved once more; features are concatenated, two units at a time."""

    recipes = authors.main(4)
    plan = Plan(
        "resnet34",
        middle=1,
        pooled=True,
        units=((), (1024, 512), (512, 256), (256, 128), (128, 64), (64, 64)),
        kernel=1,
        added=0,
        head=(16, 8),
    )
    divisor = 64


class RefineNetV5(_Planned):
    """VGG16 with normalisation, halved once more; features are concatenated as they are."""

    recipes = authors.main(5)
    plan = Plan(
        "vgg16_bn",
        middle=3,
        pooled=True,
        units=((512,), (256,), (128,), (64,), (32,), ()),
        kernel=0,
        added=0,
        head=(16,),
    )
    divisor = 64


class RefineNetV6(_RefineNet):
    """VGG16 with normalisation; gated features, and a loss on seven maps."""

    recipes = authors.gated()
    divisor = 64

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out; in training mode a tuple of seven maps."""
        return GatedRefineNet(self.channels)
