"""Every architecture of segmentation-models-pytorch, on every encoder that it has, as models ``smp-...``."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from carvana_ens import EncoderOptions, Recipe, TorchModel, TrainingError, UsageError, load_encoder, option

HUB = "hub"
OURS = frozenset(
    ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs", "self")
)
"""Arguments of an architecture that the host decides."""


@dataclass(frozen=True)
class SmpOptions(EncoderOptions):
    """The recipe's options, the encoder, and whatever else smp's constructor takes.

    Raises:
        ValueError: an unknown encoder, or arguments that are no JSON object.
    """

    encoder: str = option(
        "resnet34",
        "any of smp's encoders, or tu-NAME for one of timm.list_models(): resnet34, mit_b2, tu-convnext_nano",
    )
    encoder_weights: str = option(
        "",
        'weights that training starts from: none, "hub" (smp\'s ImageNet ones, online), "hub:NAME" for others of the '
        "encoder, or a .safetensors or .pth file",
        path=True,
    )
    arguments: str = option(
        "{}",
        "the architecture's other arguments as a JSON object, as in "
        '{"decoder_channels": [128, 64, 32, 16, 8], "decoder_attention_type": "scse"}',
    )
    drop_last: bool = option(
        True,
        "leave out the last mini-batch of an epoch if it is not full: some networks cannot learn from one photo",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = self.encoder.removeprefix("tu-")
        known = smp.encoders.get_encoder_names() if plain == self.encoder else timm.list_models()
        if plain.partition(".")[0] not in known:
            near = difflib.get_close_matches(plain, known, 3)
            hint = f"did you mean {', '.join(near)}?" if near else "smp.encoders.get_encoder_names() has the names"
            raise ValueError(
                f"option encoder is {self.encoder!r}, which smp {smp.__version__} does not have: {hint} (timm's are "
                "tu-NAME)"
            )
        parse_arguments(self.arguments)


@dataclass(frozen=True)
class DptOptions(SmpOptions):
    """The same on a vision transformer, which DPT needs."""

    encoder: str = option("tu-vit_base_patch16_224.augreg_in21k", "a vision transformer of timm, as tu-NAME")


def parse_arguments(text: str) -> dict[str, Any]:
    """Keyword arguments from a JSON object; an empty text is none.

    Raises:
        ValueError: it is anything else, or names what other options decide.
    """
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"option arguments is {text!r}: write a JSON object, as in " + '{"decoder_dropout": 0.1}')
    taken = sorted(OURS & found.keys())
    if taken:
        raise ValueError(f"option arguments has {', '.join(taken)}: other options decide these")
    return found


class SmpModel(TorchModel):
    """An architecture on an encoder; its state is that of smp's own network, name by name.

    Class attributes, beside those of TorchModel:
        architecture: smp's class. least: the shortest side that it takes. settings: arguments that differ from smp's.
    """

    Options: ClassVar[type] = SmpOptions
    options: SmpOptions
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "modern": Recipe(
            "the defaults of this version, every one written out, and ImageNet's weights of the encoder",
            options={"encoder_weights": HUB},
        )
    }
    architecture: ClassVar[Callable[..., nn.Module]]
    least: ClassVar[int] = 1
    settings: ClassVar[Mapping[str, Any]] = {}

    @cached_property
    def divisor(self) -> int:  # type: ignore[override]  # worked out when it is first wanted
        """Pixels between the encoder's coarsest features."""
        stride: int = self._unallocated().encoder.output_stride  # type: ignore[assignment]
        return stride

    def build(self) -> nn.Module:
        """The network, untrained: (N, C, H, W) in, logits (N, 1, H, W) out.

        Raises:
            UsageError: architecture, encoder and arguments do not go together.
        """
        return self._made(None)

    def _made(self, weights: str | bool | None) -> nn.Module:
        options = self.options
        arguments = {**self.settings, **parse_arguments(options.arguments)}
        known = [name for name in inspect.signature(self.architecture).parameters if name not in OURS]
        unknown = [name for name in arguments if name not in known]
        if unknown and not options.encoder.startswith("tu-"):  # those are handed on to timm
            raise UsageError(f"option arguments has {unknown[0]!r}, and {self._named} takes {', '.join(known)}")
        try:
            return type(self).architecture(
                options.encoder, encoder_weights=weights, in_channels=self.channels, classes=1, **arguments
            )
        except (KeyError, TypeError, ValueError, AssertionError, IndexError) as error:
            raise UsageError(
                f"{self._named} cannot be made on encoder {options.encoder} with arguments {options.arguments}: "
                f"{_line(error)}; choose others"
            ) from error

    def _unallocated(self) -> nn.Module:
        """The network without its parameters' memory, where its encoder can be made so."""
        try:
            with torch.device("meta"):
                return self.build()
        except RuntimeError:  # mit encoders read numbers while they are made
            return self.build()

    def initialise(self, network: nn.Module) -> None:
        """Gives a new network the encoder weights that training starts from.

        Raises:
            UsageError: no such file, or smp has no weights of this name.
            TrainingError: the file does not hold this encoder, or the hub gave nothing.
        """
        weights, encoder = self.options.encoder_weights, network.get_submodule("encoder")
        source, _, name = weights.partition(":")
        if source == HUB:
            encoder.load_state_dict(self._from_hub(name or "imagenet").get_submodule("encoder").state_dict())
            return
        inner = getattr(encoder, "model", None) if self.options.encoder.startswith("tu-") else encoder
        load_encoder(inner or encoder, weights, self.options.encoder, self.channels)

    def _from_hub(self, weights: str) -> nn.Module:
        name = self.options.encoder
        settings = smp.encoders.encoders.get(name, {}).get("pretrained_settings", {})
        known = ", ".join(settings) or "imagenet"
        if weights not in known.split(", "):
            raise UsageError(f"smp has no weights {weights!r} for encoder {name}: use hub:NAME of {known}")
        try:
            return self._made(weights if settings else True)  # timm's own
        except (OSError, RuntimeError) as error:
            raise TrainingError(
                f"no weights of encoder {name} from the hub ({_line(error)}): check the network, or set "
                "encoder_weights to a .safetensors or .pth file"
            ) from error

    def forward_maps(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """See ``TorchModel``.

        Raises:
            UsageError: a side is shorter than the architecture takes.
        """
        height, width = images.shape[2:]
        if min(height, width) < self.least:
            raise UsageError(
                f"{self._named} takes no photos of {height}x{width}: give the member a --size of "
                f"{self.least}x{self.least} or more"
            )
        return super().forward_maps(network, images)

    def count_parameters(self) -> int:
        """Number of trainable parameters; nothing of their size is allocated, but for mit encoders."""
        return sum(p.numel() for p in self._unallocated().parameters() if p.requires_grad)

    @property
    def _named(self) -> str:
        return f"smp.{self.architecture.__name__}"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _model(architecture: Callable[..., nn.Module], **attributes: Any) -> type[SmpModel]:
    """The model of an architecture of smp."""
    name = architecture.__name__
    told = {"__module__": __name__, "__doc__": f"smp.{name} on one of its encoders."}
    return type(f"Smp{name}", (SmpModel,), {**told, "architecture": staticmethod(architecture), **attributes})


SmpUnet = _model(smp.Unet)
SmpUnetPlusPlus = _model(smp.UnetPlusPlus)
SmpMAnet = _model(smp.MAnet)
SmpLinknet = _model(smp.Linknet)
SmpFPN = _model(smp.FPN)
SmpPSPNet = _model(smp.PSPNet)
SmpDeepLabV3 = _model(smp.DeepLabV3)
SmpDeepLabV3Plus = _model(smp.DeepLabV3Plus)
SmpPAN = _model(smp.PAN, least=128)
SmpUPerNet = _model(smp.UPerNet)
SmpSegformer = _model(smp.Segformer)
SmpDPT = _model(smp.DPT, Options=DptOptions, settings={"dynamic_img_size": True})
