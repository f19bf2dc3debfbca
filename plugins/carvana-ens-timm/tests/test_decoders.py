from __future__ import annotations

import itertools

import pytest
import torch
from carvana_ens_timm.fpn import FpnDecoder
from carvana_ens_timm.linknet import LinknetDecoder
from carvana_ens_timm.unet import UnetDecoder
from torch.nn import functional

from carvana_ens import UsageError

vision = pytest.importorskip("torchvision")


def pyramid(channels, height, width):
    return {stride: torch.randn(2, count, height // stride, width // stride) for stride, count in channels.items()}


def with_drawn_statistics(decoder):
    """The decoder as after training: no normalisation is the identity."""
    for name, tensor in decoder.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "var" in name or "weight" in name else tensor.uniform_(-0.5, 0.5)
    return decoder.eval()


def repeated(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def normed(x, p, name):
    """Batch normalisation in eval mode, then ReLU."""
    mean, var, scale, shift = (
        p[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)


@pytest.mark.parametrize("channels", [{2: 3, 4: 5}, {1: 2, 4: 5}])
def test_the_unet_decoder_joins_repeated_features_with_those_of_the_same_grid(channels):
    torch.manual_seed(0)
    decoder = with_drawn_statistics(UnetDecoder(channels, (5, 4)))
    p, features = decoder.state_dict(), pyramid(channels, 8, 12)
    x = features[4]
    for number, stride in enumerate((2, 1)):
        x = torch.cat([repeated(x), *([features[stride]] if stride in features else [])], 1)
        for layer in (0, 3):
            x = functional.conv2d(x, p[f"blocks.{number}.{layer}.weight"], padding=1)
            x = normed(x, p, f"blocks.{number}.{layer + 1}")
    expected = functional.conv2d(x, p["head.1.weight"], p["head.1.bias"], padding=1)
    with torch.no_grad():
        torch.testing.assert_close(decoder(features), expected)


def test_a_unet_decoder_needs_a_width_for_each_doubling():
    with pytest.raises(UsageError, match=r"has 4 widths.*32 pixels apart: give 5"):
        UnetDecoder({16: 8, 32: 8}, (64, 32, 16, 8))


def enlarged(x, factor):
    """Bilinear enlargement: pixels are squares, and those beyond the rim are as those at it."""
    for axis in (2, 3):
        side = x.shape[axis]
        at = ((torch.arange(side * factor) + 0.5) / factor - 0.5).clamp(0, side - 1)
        low = at.floor().long()
        high = (low + 1).clamp(max=side - 1)
        part = (at - low).view([-1 if number == axis else 1 for number in range(4)])
        x = x.index_select(axis, low) * (1 - part) + x.index_select(axis, high) * part
    return x


@pytest.mark.parametrize("channels", [{2: 2, 4: 3, 8: 5, 16: 7}, {4: 3, 8: 5}, {4: 3, 16: 7}, {8: 3, 16: 4}])
def test_the_fpn_decoder_is_torchvisions_pyramid_and_the_panoptic_branch(channels):
    torch.manual_seed(0)
    decoder = with_drawn_statistics(FpnDecoder(channels, 12, 8))
    p, features = decoder.state_dict(), pyramid(channels, 32, 48)
    strides = [stride for stride in channels if stride >= 4]
    finest = strides[0]

    lin = vision.ops.FeaturePyramidNetwork([channels[stride] for stride in strides], 12)
    for number in range(len(strides)):  # ours runs from coarse to fine
        for theirs, ours in (("inner_blocks", "laterals"), ("layer_blocks", "smooth")):
            for part in ("weight", "bias"):
                tensor = p[f"{ours}.{len(strides) - 1 - number}.{part}"]
                lin.get_parameter(f"{theirs}.{number}.0.{part}").data.copy_(tensor)
    with torch.no_grad():
        levels = lin({str(stride): features[stride] for stride in strides})

    total = 0
    for number, stride in enumerate(reversed(strides)):
        x, doublings = levels[str(stride)], (stride // finest).bit_length() - 1
        for step in range(max(1, doublings)):
            layer = f"branches.{number}.{4 * step}"
            norm = f"branches.{number}.{4 * step + 1}"
            x = functional.conv2d(x, p[f"{layer}.weight"], padding=1)
            groups = x.reshape(2, 8, -1)  # 8 channels in as many groups
            spread, centre = torch.var_mean(groups, 2, correction=0, keepdim=True)
            x = ((groups - centre) / (spread + 1e-5).sqrt()).reshape(x.shape)
            x = (x * p[f"{norm}.weight"][:, None, None] + p[f"{norm}.bias"][:, None, None]).clamp(min=0)
            x = enlarged(x, 2) if doublings else x
        total = total + x
    expected = enlarged(functional.conv2d(total, p["head.1.weight"], p["head.1.bias"]), finest)
    with torch.no_grad():
        torch.testing.assert_close(decoder(features), expected, rtol=1e-4, atol=1e-4)


def transposed(x, weight, bias=None):
    """Transposed convolution of stride 2 with a 3x3 kernel, uncropped: each pixel spreads its kernel."""
    n, _, h, w = x.shape
    out = x.new_zeros(n, weight.shape[1], 2 * h + 1, 2 * w + 1)
    for row in range(3):
        for column in range(3):
            spread = torch.einsum("nihw,io->nohw", x, weight[:, :, row, column])
            out[:, :, row : row + 2 * h : 2, column : column + 2 * w : 2] += spread
    return out if bias is None else out + bias[:, None, None]


@pytest.mark.parametrize(
    ("channels", "widths"),
    [
        ({2: 6, 4: 8, 8: 12, 16: 20}, [20, 12, 8, 8]),  # the features of stride 2 have no part
        ({4: 8, 8: 12}, [12, 8, 8]),
        ({8: 12, 16: 20}, [20, 12, 12, 12]),  # no features of strides 4 and 2
    ],
)
def test_the_linknet_decoder_is_the_winners(channels, widths):
    torch.manual_seed(0)
    decoder = with_drawn_statistics(LinknetDecoder(channels))
    p, features = decoder.state_dict(), pyramid(channels, 32, 48)
    coarsest = max(channels)
    x = features[coarsest]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        name = f"blocks.{number}"
        assert p[f"{name}.0.weight"].shape == (inputs // 4, inputs, 1, 1)
        assert p[f"{name}.6.weight"].shape == (outputs, inputs // 4, 1, 1)
        x = normed(torch.einsum("nihw,oi->nohw", x, p[f"{name}.0.weight"][..., 0, 0]), p, f"{name}.1")
        x = normed(transposed(x, p[f"{name}.3.weight"])[:, :, 1:, 1:], p, f"{name}.4")
        x = normed(torch.einsum("nihw,oi->nohw", x, p[f"{name}.6.weight"][..., 0, 0]), p, f"{name}.7")
        stride = coarsest >> (number + 1)
        if stride > 2 and stride in channels:
            x = x + features[stride]
    assert x.shape[2:] == (16, 24)
    x = transposed(x, p["head.0.weight"], p["head.0.bias"]).clamp(min=0)
    assert x.shape == (2, 32, 33, 49)
    x = functional.conv2d(x, p["head.2.weight"], p["head.2.bias"]).clamp(min=0)
    x = functional.pad(x, (1, 1, 1, 1))
    expected = functional.conv2d(x, p["head.5.weight"], p["head.5.bias"])
    with torch.no_grad():
        torch.testing.assert_close(decoder(features), expected, rtol=1e-4, atol=1e-5)
