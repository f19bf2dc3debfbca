"""Each optimiser against its formula, written out for one parameter of several axes and one of a single axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from carvana_ens.learn.optimisers import kind_after, make_optimiser, resets
from carvana_ens.learn.recipe import TorchOptions

RATE, DECAY = 0.1, 0.02


def stepped(options, kind, gradients):
    """(weight, bias) after steps along these gradients, from weight 3 and bias 2, both float64."""
    layer = nn.Linear(1, 1).double()
    layer.weight.data.fill_(3)
    layer.bias.data.fill_(2)
    optimiser = make_optimiser(layer, options, kind)
    for gradient in gradients:
        layer.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        layer.bias.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimiser.step()
    return layer.weight.item(), layer.bias.item()


def sgd(p, gradients, decay, momentum, nesterov):
    v = None
    for gradient in gradients:
        g = gradient + decay * p
        v = g if v is None else momentum * v + g
        p -= RATE * (g + momentum * v if nesterov else v)
    return p


def rmsprop(p, gradients, decay, smooth, epsilon):
    s = 0.0
    for gradient in gradients:
        g = gradient + decay * p
        s = smooth * s + (1 - smooth) * g * g
        p -= RATE * g / (np.sqrt(s) + epsilon)
    return p


def adam(p, gradients, decay, betas, epsilon, decoupled):
    m = s = 0.0
    for step, gradient in enumerate(gradients, 1):
        g = gradient if decoupled else gradient + decay * p
        p -= RATE * decay * p * decoupled
        m = betas[0] * m + (1 - betas[0]) * g
        s = betas[1] * s + (1 - betas[1]) * g * g
        p -= RATE * (m / (1 - betas[0] ** step)) / (np.sqrt(s / (1 - betas[1] ** step)) + epsilon)
    return p


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize(
    ("kind", "given", "twin"),
    [
        ("sgd", {"momentum": 0.8}, lambda p, g, d: sgd(p, g, d, 0.8, False)),
        ("sgd", {"momentum": 0.0}, lambda p, g, d: sgd(p, g, d, 0.0, False)),
        ("sgd", {"nesterov": True}, lambda p, g, d: sgd(p, g, d, 0.9, True)),
        ("rmsprop", {}, lambda p, g, d: rmsprop(p, g, d, 0.99, 1e-8)),
        ("rmsprop", {"rms_decay": 0.9, "epsilon": 0.1}, lambda p, g, d: rmsprop(p, g, d, 0.9, 0.1)),
        ("adam", {}, lambda p, g, d: adam(p, g, d, (0.9, 0.999), 1e-8, False)),
        ("adam", {"beta1": 0.5, "beta2": 0.7, "epsilon": 0.1}, lambda p, g, d: adam(p, g, d, (0.5, 0.7), 0.1, False)),
        ("adamw", {}, lambda p, g, d: adam(p, g, d, (0.9, 0.999), 1e-8, True)),
        ("adamw", {"beta1": 0.5, "beta2": 0.7, "epsilon": 0.1}, lambda p, g, d: adam(p, g, d, (0.5, 0.7), 0.1, True)),
    ],
)
def test_three_steps_are_those_of_the_formula(kind, given, twin, decay_all):
    options = TorchOptions(rate=RATE, weight_decay=DECAY, decay_all=decay_all, **given)
    gradients = [0.3, -2.0, 0.7]
    weight, bias = stepped(options, kind, gradients)
    assert weight == pytest.approx(twin(3.0, gradients, DECAY), rel=1e-12)
    assert bias == pytest.approx(twin(2.0, gradients, DECAY * decay_all), rel=1e-12)


def test_frozen_parameters_are_left_out_and_a_missing_group_does_not_matter():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    (group,) = make_optimiser(layer, TorchOptions(), "adamw").param_groups
    assert [p is layer.weight for p in group["params"]] == [True]


@pytest.mark.parametrize(
    ("reset", "epochs"), [("", []), ("3", [3]), ("2, 5", [2, 5]), ("every", [1, 2, 3, 4, 5, 6, 7])]
)
def test_when_the_optimiser_starts_anew(reset, epochs):
    options = TorchOptions(reset=reset)
    assert [done for done in range(8) if resets(options, done)] == epochs
    assert {kind_after(options, done) for done in range(8)} == {"adamw"}


def test_from_the_first_reset_on_it_may_be_another():
    options = TorchOptions(optimiser="rmsprop", reset="2,5", reset_to="adam")
    assert [kind_after(options, done) for done in range(7)] == ["rmsprop"] * 2 + ["adam"] * 5
