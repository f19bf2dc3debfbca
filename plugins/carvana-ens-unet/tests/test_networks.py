"""Each network is the published one: its answer equals that of the same parameters in a slow, separate reading."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from carvana_ens_unet import asanakoy, eugenbobrov, junhongxu, petrosgk
from torch.nn import functional

from carvana_ens import MemberConfig

SHRINK = 16


def published(model_class, size, **options):
    """A network of random numbers in float64 with its parameters by name, and photos on a grid of ``size``."""
    model = model_class(MemberConfig(name="m", model="m", options={"shrink": SHRINK, **options}))
    network = model.fresh_network(0).double().eval()
    torch.manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 4:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
    return network, network.state_dict(), torch.rand(2, model.channels, *size, dtype=torch.float64)


def check(network, images, expected):
    with torch.no_grad():
        answer = network(images)
    assert answer.shape == (len(images), 1, *images.shape[2:])
    assert expected.std() > 1e-3 * expected.abs().max()
    torch.testing.assert_close(answer, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def conv(x, p, name, stride=1):
    weight = p[f"{name}.weight"]
    side = weight.shape[-1] // 2
    return functional.conv2d(functional.pad(x, [side] * 4), weight, p.get(f"{name}.bias"), stride=stride)


def normalised(x, p, name, eps):
    mean, variance, scale, shift = (
        p[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + eps).sqrt() * scale + shift


def convolved(x, p, name, count, eps=None, strides=(1, 1, 1)):
    """``count`` convolutions, each with normalisation (if eps) and ReLU."""
    for number in range(count):
        if eps is None:
            x = conv(x, p, f"{name}.{2 * number}", strides[number])
        else:
            x = normalised(conv(x, p, f"{name}.{3 * number}", strides[number]), p, f"{name}.{3 * number + 1}", eps)
        x = x.clamp(min=0)
    return x


def pooled(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))


def halved(x):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def nearest(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def corner_to_corner(side):
    """(2 side, side): each new pixel's shares of the old ones; the first and the last stay where they are."""
    shares = torch.zeros(2 * side, side, dtype=torch.float64)
    for new in range(2 * side):
        at = new * (side - 1) / (2 * side - 1)
        low = min(int(at), side - 2) if side > 1 else 0
        shares[new, low] += 1 - (at - low)
        if side > 1:
            shares[new, low + 1] += at - low
    return shares


def bilinear(x):
    return corner_to_corner(x.shape[2]) @ x @ corner_to_corner(x.shape[3]).T


def transposed(x, p, name):
    """TensorFlow's "same" transposed convolution of stride 2: each pixel stamps the kernel, rims are cut off."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    n, _, h, w = x.shape
    side = weight.shape[-1]
    canvas = torch.zeros(n, weight.shape[1], 2 * h + side, 2 * w + side, dtype=x.dtype)
    for row in range(h):
        for column in range(w):
            stamp = torch.einsum("ni,ioyx->noyx", x[:, :, row, column], weight)
            canvas[:, :, 2 * row : 2 * row + side, 2 * column : 2 * column + side] += stamp
    before = (side - 2) // 2  # of the side - 2 pixels of padding, the smaller half lies in front
    return canvas[:, :, before : before + 2 * h, before : before + 2 * w] + bias[:, None, None]


def climbed(images, p, prefix, stage, rise, double):
    """Down the ladder with ``stage(x, name)``, up again with ``rise(skip, x, step)`` after ``double(x, step)``."""
    levels = len({name.split(".")[prefix.count(".") + 1] for name in p if name.startswith(f"{prefix}descent.")})
    x, skips = images, []
    for level in range(levels):
        skips.append(stage(x, f"{prefix}descent.{level}"))
        x = pooled(skips[-1])
    x = stage(x, f"{prefix}bottom")
    for step in range(levels):
        x = rise(skips.pop(), double(x, step), f"{prefix}ascent.{step}")
    return x


def even(images, p, prefix, eps, double):
    """Two convolutions down, three up, [skip, doubled]."""
    return climbed(
        images,
        p,
        prefix,
        lambda x, name: convolved(x, p, name, 2, eps),
        lambda skip, x, name: convolved(torch.cat([skip, x], 1), p, name, 3, eps),
        lambda x, _: double(x),
    )


@pytest.mark.parametrize(
    ("model_class", "eps", "double"),
    [
        (petrosgk.Unet256, 1e-3, nearest),
        (junhongxu.MyunetEven256, 1e-5, bilinear),
        (asanakoy.UnetScratch5, 1e-5, bilinear),
    ],
)
def test_even_ladders(model_class, eps, double):
    network, p, images = published(model_class, (64, 96))
    assert ("descent.0.0.bias" in p) == (model_class is not junhongxu.MyunetEven256)
    check(network, images, conv(even(images, p, "", eps, double), p, "head"))


@pytest.mark.parametrize("colour", ["bgr", "gray"])
def test_photo_at_the_end(colour):
    network, p, images = published(junhongxu.MyunetPhoto, (64, 128), colour=colour)
    joined = torch.cat([images, even(images, p, "features.", 1e-5, bilinear)], 1)
    check(network, images, conv(convolved(joined, p, "head.0", 3, 1e-5), p, "head.1"))


def test_photo_at_the_end_of_half_a_photo():
    network, p, images = published(junhongxu.MyunetPhotoDouble, (128, 256))
    small = halved(images)
    joined = torch.cat([bilinear(small), bilinear(even(small, p, "features.", 1e-5, bilinear))], 1)
    check(network, images, conv(convolved(joined, p, "head.0", 3, 1e-5), p, "head.1"))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_uneven_ladders(wide, half):
    names = {
        (False, False): junhongxu.Myunet128,
        (True, False): junhongxu.Myunet128Wide,
        (False, True): junhongxu.Myunet256,
        (True, True): junhongxu.Myunet256Wide,
    }
    network, p, images = published(names[wide, half], (64, 96))
    sides = [p[f"{name}.{at}.weight"].shape[-1] for name in ("descent.2", "ascent.2") for at in (0, 3)]
    assert sides == ([3, 3, 3, 3] if wide else [3, 1, 1, 3])
    assert p["bottom.0.weight"].shape[-1] == (1 if wide else 3)

    def stage(x, name):
        strides = (1, 2) if half and name == "descent.0" else (1, 1)
        return convolved(x, p, name, 1 if name == "bottom" else 2, 1e-5, strides)

    def rise(skip, x, name):
        return convolved(torch.cat([skip, x], 1), p, name, 2, 1e-5)

    x = climbed(images, p, "", stage, rise, lambda x, _: bilinear(x))
    end = convolved(bilinear(x), p, "head.1", 1, 1e-5) if half else x
    check(network, images, conv(end, p, "head.2" if half else "head"))


def early(images, p, prefix, bottom, eps):
    def stage(x, name):
        return convolved(x, p, name, bottom if name.endswith("bottom") else 2, eps)

    def rise(skip, x, name):
        return convolved(torch.cat([x, skip], 1), p, name, 2, eps)

    return climbed(images, p, prefix, stage, rise, lambda x, _: nearest(x))


def test_early_512():
    network, p, images = published(junhongxu.MyunetEarly512, (64, 128), shrink=4)
    x = nearest(early(halved(images), p, "1.", 2, 1e-5))
    check(network, images, conv(convolved(x, p, "1.head.1", 1, 1e-5), p, "1.head.2"))


def test_early_v3_gives_the_logit_of_its_two_classes():
    network, p, images = published(junhongxu.MyunetEarly3, (32, 48), shrink=4)
    x = early(images, p, "", 3, None)
    scores = conv(convolved(x, p, "head.0", 1), p, "head.1")
    log_p = functional.log_softmax(scores, 1)
    check(network, images, (log_p[:, 1:] - log_p[:, :1]))
    with torch.no_grad():
        torch.testing.assert_close(network(images).sigmoid(), log_p[:, 1:].exp())


@pytest.mark.parametrize("kernel", [2, 3])
def test_unet_gray(kernel):
    network, p, images = published(eugenbobrov.UnetGray, (32, 48), kernel=kernel, shrink=4)
    assert p["doublings.0.weight"].shape[-1] == kernel
    x = climbed(
        images,
        p,
        "",
        lambda x, name: convolved(x, p, name, 2),
        lambda skip, x, name: convolved(torch.cat([x, skip], 1), p, name, 2),
        lambda x, step: transposed(x, p, f"doublings.{step}"),
    )
    check(network, images, conv(x, p, "head"))


def test_segnet_gray():
    network, p, images = published(eugenbobrov.SegnetGray, (32, 48), shrink=4)
    names = iter(sorted({int(name.split(".")[0]) for name in p}))
    x = images
    for _ in range(4):
        x = pooled(convolved(x, p, next(names), 2))
    x = convolved(convolved(x, p, next(names), 2), p, next(names), 2)
    for _ in range(4):
        x = convolved(nearest(x), p, next(names), 2)
    check(network, images, conv(x, p, next(names)))
    assert next(names, None) is None


def test_unet_roi():
    network, p, images = published(eugenbobrov.UnetRoi, (32, 48), shrink=4)
    assert p["1.descent.0.0.0.weight"].shape[-1] == 5
    assert p["1.doublings.0.weight"].shape[-1] == 4

    def stage(x, name):
        return normalised(convolved(x, p, f"{name}.0", 2), p, f"{name}.1", 1e-3)

    x = climbed(
        normalised(images, p, "0", 1e-3),
        p,
        "1.",
        stage,
        lambda skip, x, name: stage(torch.cat([x, skip], 1), name),
        lambda x, step: transposed(x, p, f"1.doublings.{step}"),
    )
    check(network, images, conv(x, p, "1.head"))


def test_keras_start_is_glorots():
    network = eugenbobrov.UnetGray(MemberConfig(name="m", model="m")).fresh_network(0)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            assert not tensor.any()
        elif tensor.numel() > 10_000:
            fan = (tensor.shape[0] + tensor.shape[1]) * tensor[0, 0].numel()
            assert tensor.abs().max() <= (6 / fan) ** 0.5
            assert float(tensor.std()) == pytest.approx((2 / fan) ** 0.5, rel=0.05), name


def test_widths_of_the_ladders():
    """The channels that the authors' code has, level by level."""
    with torch.device("meta"):
        network = asanakoy.UnetScratchNarrow(MemberConfig(name="m", model="m")).build()
    down = [stage[0].out_channels for stage in [*network.descent, network.bottom]]
    up = [stage[0].in_channels for stage in network.ascent]
    assert down == [32, 32, 64, 128, 256, 512, 768]
    assert up == [below + skip for below, skip in pairwise(reversed(down))]
