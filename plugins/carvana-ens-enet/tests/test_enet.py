from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from carvana_ens_enet import ENet, Enet
from torch import nn
from torch.nn import functional

from carvana_ens import Batch, MemberConfig, Size, UsageError
from carvana_ens.testing import declared_models, draw_photos

WAYS = ["nearest", "unpooling"]


def make(**options):
    return Enet(MemberConfig(name="e", model="enet", options=options))


def test_the_entry_point_is_the_model():
    assert declared_models(Path(__file__).parents[1] / "pyproject.toml") == {"enet": Enet}


def counted():
    """Parameters by hand: norms have two a channel, PReLUs one, middle convolutions a bias."""

    def encoding(inputs, outputs, kernel, first):
        c = outputs // 4
        return first * inputs * c + 3 * c + kernel * c * c + c + 3 * c + c * outputs + 2 * outputs + outputs

    def decoding(inputs, outputs):
        c = outputs // 4
        return inputs * c + 2 * c + 9 * c * c + c + 2 * c + c * outputs + 2 * outputs

    first = 27 * 13 + 13 + 3 * 16
    one = encoding(16, 64, 9, 4) + 4 * encoding(64, 64, 9, 1)
    two = encoding(64, 128, 9, 4) + 12 * encoding(128, 128, 9, 1) + 4 * encoding(128, 128, 10, 1)
    skips = 128 * 64 + 2 * 64 + 64 * 16 + 2 * 16
    up = decoding(128, 64) + 2 * decoding(64, 64) + decoding(64, 16) + decoding(16, 16) + skips
    return first + one + two + up + 4 * 16 + 1


@pytest.mark.parametrize("way", WAYS)
def test_trainable_parameters_are_those_of_the_source(way):
    count = make(upsampling=way).count_parameters()
    assert count == counted() == 363_141
    assert round(count / 1e3) == 363


class Twin:
    """ENet written out once more from its description, a layer a line, on the parameters of a network."""

    def __init__(self, network):
        self.p = network.state_dict()

    def norm(self, x, name):
        mean, var, scale, shift = (
            self.p[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    def prelu(self, x, name):
        return torch.where(x > 0, x, self.p[f"{name}.weight"][:, None, None] * x)

    def conv(self, x, name, rows=1, columns=1, dilation=1, stride=1, late=False):
        """late: of uneven padding, the larger part comes right and below, as in TensorFlow."""
        weight = self.p[f"{name}.weight"]
        assert weight.shape[2:] == (rows, columns)
        spread = weight.new_zeros(*weight.shape[:2], (rows - 1) * dilation + 1, (columns - 1) * dilation + 1)
        spread[:, :, ::dilation, ::dilation] = weight
        high, wide = (side - stride for side in spread.shape[2:])
        pads = (0, wide, 0, high) if late else (wide // 2, wide - wide // 2, high // 2, high - high // 2)
        return functional.conv2d(functional.pad(x, pads), spread, self.p.get(f"{name}.bias"), stride=stride)

    def maxima(self, x):
        """Maxima of 2x2 squares, and a map of x's shape that is 1 where the first of them stood."""
        n, c, h, w = x.shape
        squares = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
        best, where = squares.max(-1)
        ones = functional.one_hot(where, 4).reshape(n, c, h // 2, w // 2, 2, 2).permute(0, 1, 2, 4, 3, 5)
        return best, ones.reshape(n, c, h, w).to(x.dtype)

    def branch(self, x, name, middle, down, act):
        x = act(self.norm(self.conv(x, f"{name}.branch.0", down, down, stride=down), f"{name}.branch.1"), "2")
        x, after = middle(x, f"{name}.branch.3")
        x = act(self.norm(x, f"{name}.branch.{after}"), str(after + 1))
        return self.norm(self.conv(x, f"{name}.branch.{after + 2}"), f"{name}.branch.{after + 3}")

    def encode(self, x, name, middle="plain", down=1):
        def convolved(x, at):
            if middle == "asym":
                second = at.removesuffix("3") + "4"
                return self.conv(self.conv(x, at, 1, 5), second, 5, 1), 5
            return self.conv(x, at, 3, 3, dilation=1 if middle == "plain" else middle), 4

        branch = self.branch(x, name, convolved, down, lambda v, at: self.prelu(v, f"{name}.branch.{at}"))
        where = None
        if down == 2:
            x, where = self.maxima(x)
            extra = branch.shape[1] - x.shape[1]
            x = torch.cat([x, x.new_zeros(x.shape[0], extra, *x.shape[2:])], 1)
        return self.prelu(branch + x, f"{name}.last"), where

    def decode(self, x, name, where=None, double=False):
        def plain(x, at):
            return self.conv(x, at, 3, 3), 4

        def transposed(x, at):
            weight = self.p[f"{at}.weight"]
            n, _, h, w = x.shape
            big = x.new_zeros(n, weight.shape[1], 2 * h + 1, 2 * w + 1)
            for i in range(3):
                for j in range(3):
                    big[:, :, i : i + 2 * h : 2, j : j + 2 * w : 2] += torch.einsum(
                        "nchw,cd->ndhw", x, weight[:, :, i, j]
                    )
            return big[:, :, : 2 * h, : 2 * w] + self.p[f"{at}.bias"][:, None, None], 4

        branch = self.branch(x, name, transposed if double else plain, 1, lambda v, _: v.clamp(min=0))
        if double:
            x = self.norm(self.conv(x, f"{name}.skip.0"), f"{name}.skip.1")
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = x if where is None else x * where
        return (branch + x).clamp(min=0)

    def __call__(self, images, unpool):
        pooled, _ = self.maxima(images)
        x = torch.cat([self.conv(images, "first.1", 3, 3, stride=2, late=True), pooled], 1)
        x = self.prelu(self.norm(x, "first_norm.0"), "first_norm.1")
        x, one = self.encode(x, "down1", down=2)
        for number in range(4):
            x, _ = self.encode(x, f"stage1.{number}")
        x, two = self.encode(x, "down2", down=2)
        for number, middle in enumerate(["plain", 2, "asym", 4, "plain", 8, "asym", 16] * 2):
            x, _ = self.encode(x, f"stage2.{number}", middle)
        x = self.decode(x, "up2", two if unpool else None, double=True)
        x = self.decode(self.decode(x, "stage3.0"), "stage3.1")
        x = self.decode(x, "up1", one if unpool else None, double=True)
        x = self.decode(x, "stage4")
        n, _, h, w = x.shape
        doubled = torch.einsum("nchw,cdij->ndhiwj", x, self.p["head.weight"]).reshape(n, 1, 2 * h, 2 * w)
        return doubled + self.p["head.bias"]


def scatter(network):
    """Draws what a new network has as zeros and ones, so that it counts."""
    torch.manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.3, 1.3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("colours", [3, 1])
def test_it_is_the_described_network(way, colours):
    torch.manual_seed(0)
    network = ENet(colours, way == "unpooling", 0.1).double().eval()
    scatter(network)
    images = torch.rand(2, colours, 40, 24, dtype=torch.float64)
    with torch.no_grad():
        got = network(images)
        torch.testing.assert_close(got, Twin(network)(images, way == "unpooling"))
        assert got.shape == (2, 1, 40, 24)


def test_training_drops_whole_channels_at_the_published_rates():
    with torch.device("meta"):
        rates = [m.p for m in make().build().modules() if isinstance(m, nn.Dropout2d)]
    assert rates == [0.01] * 5 + [0.1] * 17


def test_running_means_follow_the_option():
    def momenta(**options):
        with torch.device("meta"):
            return {m.momentum for m in make(**options).build().modules() if isinstance(m, nn.BatchNorm2d)}

    assert momenta() == {0.1}
    assert momenta(momentum=0.9) == {0.9}
    for wrong in (0.0, 1.5):
        with pytest.raises(UsageError, match="momentum"):
            make(momentum=wrong)


@pytest.mark.parametrize("way", WAYS)
def test_odd_sizes_are_predicted_on_their_own_grid(way):
    model = make(upsampling=way)
    model.load(None, "cpu")
    images, _ = draw_photos(2, Size(37, 53))
    maps = model.predict(Batch(images, ("a_01", "a_02"), ("a", "a")))
    assert maps.shape == (2, 37, 53)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.std() > 0


def test_sides_that_cannot_be_halved_are_refused_with_those_that_can():
    network = make().build()
    with pytest.raises(UsageError, match="multiples of 8, not 41x24: use size 48x24"):
        network(torch.zeros(1, 3, 41, 24))


@pytest.mark.parametrize("way", WAYS)
def test_training_steps_lower_the_loss(way):
    model = make(upsampling=way)
    network = model.fresh_network(0).train()
    images, masks = draw_photos(1, Size(64, 64))
    photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    truth = torch.from_numpy(masks)[:, None].float()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    torch.manual_seed(0)  # dropout draws
    for _ in range(16):
        loss = functional.binary_cross_entropy_with_logits(model.forward(network, photos), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_gives_the_same_maps(way, check_round_trip):
    model = make(upsampling=way)
    network = model.fresh_network(3).eval()
    scatter(network)
    check_round_trip(model, network, draw_photos(1, Size(32, 48))[0])
