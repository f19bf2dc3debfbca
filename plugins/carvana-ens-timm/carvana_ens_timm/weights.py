"""The weights that a backbone starts from: timm's own, or those of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from carvana_ens import TrainingError, UsageError, read_parameters
from carvana_ens_timm.encoder import line

HUB = "hub"


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
            f"no weights of encoder {name} from the hub ({line(error)}): check the network, or set "
            "encoder_weights to a .safetensors or .pth file"
        ) from error


def load_backbone(backbone: nn.Module, path: Path, name: str) -> None:
    """Fills a backbone from a file of weights.

    Tensors are matched by name, whatever else the file holds. Where no name agrees, those of a file that torch saved
    (safetensors keeps no order) are matched in order, if each has the shape and the kind (weight, bias, ...) of its
    counterpart, as in torchvision's MobileNetV2 and EfficientNet-Lite's files. Photos of one channel get the sum of the
    first layer's three.

    Args:
        backbone: of ``make_encoder``.
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
    wanted = _without_counters(backbone.state_dict())
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
    backbone.load_state_dict(matched, strict=False)  # strict but for the counters of batches seen


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
