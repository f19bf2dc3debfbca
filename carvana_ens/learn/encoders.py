"""The encoder weights that training starts from: the option that names them, and their way into a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from carvana_ens.errors import TrainingError, UsageError, first_line
from carvana_ens.learn.checkpoints import read_parameters
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.model import option

HUB = "hub"


@dataclass(frozen=True)
class EncoderOptions(TorchOptions):
    """The recipe's options, and the encoder weights that training starts from; see ``load_encoder``.

    Raises:
        ValueError: an option out of its range.
    """

    encoder_weights: str = option(
        "",
        f'weights that training starts from: none, "{HUB}" (timm\'s own, online), or a .safetensors or .pth file',
        path=True,
    )


def load_encoder(encoder: nn.Module, weights: str, name: str, channels: int) -> None:
    """Fills the encoder of a new network; a model calls it in ``initialise``.

    Tensors are matched by name, where ``.`` and ``_`` count as one (timm writes stages_0 for stages.0 where it takes a
    network apart). Whatever else is there, such as a classifier, is left out, and so are BatchNorm's counters of
    batches. Where no name in a file that torch saved agrees (safetensors keeps no order), its first tensors are matched
    in order, if each has the kind (weight, bias, ...) and the shape of its counterpart, as in torchvision's
    MobileNetV2. For photos of one channel, layers that had three get the sum of these.

    Args:
        encoder: torchvision's or timm's network or a part of it, under their names of layers.
        weights: empty: the encoder stays as it is; ``hub``: those of ``timm.create_model(name, features_only=True)``,
            fetched once and then from its cache; else a file: ``.safetensors``, or what torch saved (``.pth``) with
            nothing but tensors.
        name: the encoder's, as timm names it.
        channels: of the photos, 3 or 1.

    Raises:
        UsageError: no such file, or timm has no weights of this name.
        TrainingError: the hub gave nothing, or the file is damaged, holds more than tensors, lacks one of the encoder,
            or has one of another shape or with values that are not finite; the encoder is as before.
    """
    if not weights:
        return
    own = _without_counters(encoder.state_dict())
    if weights == HUB:
        source, tensors = "timm's hub", _without_counters(_from_hub(name, channels))
        matched = _by_name(own, tensors)
    else:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UsageError(
                f"option encoder_weights names {path.absolute()}, which is no file: give its full path, or {HUB!r}"
            )
        source, tensors = str(path), _without_counters(read_parameters(path))
        matched = _by_name(own, tensors)
        if not matched and path.suffix.lower() != ".safetensors":
            matched = _in_order(own, tensors)
    advice = "give the file of this very network"
    missing = [key for key in own if key not in matched]
    if missing:
        raise TrainingError(
            f"{source} does not hold the weights of encoder {name}: {len(missing)} of {len(own)} tensors are not in "
            f"it, first {missing[0]}; {advice}"
        )
    for key, wanted in own.items():
        if channels == 1 and (wanted.shape[1:2], matched[key].shape[1:2]) == ((1,), (3,)):
            matched[key] = matched[key].sum(1, keepdim=True)
        if matched[key].shape != wanted.shape:
            fault = f"is {_shape(matched[key])}, not {_shape(wanted)}"
        elif not torch.isfinite(matched[key]).all():
            fault = "has values that are not finite"
        else:
            continue
        raise TrainingError(f"{source} does not fit encoder {name}: {key} {fault}; {advice}")
    encoder.load_state_dict(matched, strict=False)  # strict but for the counters


def _from_hub(name: str, channels: int) -> dict[str, Tensor]:
    import timm

    if not timm.models.is_model_pretrained(name):
        raise UsageError(f"timm has no weights for encoder {name}: give a file, or leave encoder_weights empty")
    try:
        network: nn.Module = timm.create_model(name, features_only=True, pretrained=True, in_chans=channels)
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"no weights of encoder {name} from the hub ({first_line(error)}): check the network, or set "
            "encoder_weights to a .safetensors or .pth file"
        ) from error
    return network.state_dict()


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Old files lack them, which would shift everything that is matched in order.
    return {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}


def _by_name(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {key.replace("_", "."): tensor for key, tensor in found.items()}
    places = {key: found.get(key, plain.get(key.replace("_", "."))) for key in own}
    return {key: tensor for key, tensor in places.items() if tensor is not None}


def _in_order(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    kinds, others = ([key.rpartition(".")[2] for key in tensors] for tensors in (own, found))
    # What follows is the classifier.
    return dict(zip(own, found.values(), strict=False)) if kinds == others[: len(kinds)] else {}


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
