"""Single steps of training: collected gradients, clipping, replay, averages, precision, layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from carvana_ens.errors import TrainingError, UsageError
from carvana_ens.learn.losses import summed_loss
from carvana_ens.learn.parallel import Team
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.steps import MiniBatch, Stepper
from carvana_ens.model import MemberConfig

STILL = {"hflip": 0.0, "shift": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0, "repaint": 0.0}
SGD = {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
CPU = torch.device("cpu")


@pytest.fixture
def plain(tiny):
    """TinyModel without batch norm and dropout, so that photos do not touch one another."""

    class Plain(tiny.TinyModel):
        def build(self):
            return nn.Sequential(nn.Conv2d(self.channels, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 1, 3, 1, 1))

    return Plain


def fit(tiny, model, folder, photos, **options):
    config = tiny.config(**{"epochs": 1, "rate": 0.05, **STILL, **SGD, **options})
    seen = []
    result = model(config).fit(tiny.task(folder, seen.append, train=tiny.Memory(0, photos)))
    return load_file(result.checkpoint), seen


def assert_close(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance)


@pytest.mark.parametrize(("photos", "batch", "count"), [(6, 2, 3), (7, 2, 4), (7, 3, 3), (5, 1, 5)])
def test_collected_gradients_make_the_step_of_the_whole_batch(tiny, plain, tmp_path, photos, batch, count):
    start = plain(tiny.config()).fresh_network(3).state_dict()
    whole, one = fit(tiny, plain, tmp_path / "a", photos, batch_size=photos)
    parts, two = fit(tiny, plain, tmp_path / "b", photos, batch_size=batch, accumulate=count)
    assert_close(parts, whole, rtol=1e-5, atol=1e-7)
    assert max((whole[name] - start[name]).abs().max() for name in start) > 1e-4  # far above that tolerance
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)


def test_summed_gradients_make_a_step_as_long_as_their_number(tiny, plain, tmp_path):
    mean, _ = fit(tiny, plain, tmp_path / "a", 6, batch_size=2, accumulate=3, rate=0.15)
    added, _ = fit(tiny, plain, tmp_path / "b", 6, batch_size=2, accumulate=3, accumulate_as="sum")
    assert_close(added, mean, rtol=1e-5, atol=1e-7)


def test_a_rest_of_mini_batches_makes_a_step_too_or_is_left_out(tiny, plain, tmp_path, monkeypatch):
    counts = []
    step = Stepper.step
    monkeypatch.setattr(
        Stepper, "step", lambda self, b, count, rate: (counts.append(count), step(self, b, count, rate))[1]
    )
    fit(tiny, plain, tmp_path / "a", 7, batch_size=2, accumulate=3)
    assert counts == [3, 1]
    counts.clear()
    fit(tiny, plain, tmp_path / "b", 7, batch_size=2, accumulate=3, drop_last=True)
    assert counts == [3]
    with pytest.raises(TrainingError, match="no full mini-batch of 8"):
        fit(tiny, plain, tmp_path / "c", 7, batch_size=8, drop_last=True)


def stepper(plain, **options):
    """A Stepper on a network of seed 5, and the options' own model."""
    model = plain(MemberConfig(name="m", model="m", options={**SGD, "rate": 1.0, "normalise": "unit", **options}))
    return Stepper(model, model.fresh_network(5), model.options, CPU, Team())


def batch(seed, count=2):
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 3, 8, 8, generator=rng)
    return MiniBatch(inputs, (torch.rand(count, 1, 8, 8, generator=rng) > 0.5).float(), 1.0, count)


def flat(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def gradient(plain, seed):
    """The gradient of a fresh network at a batch, by autograd alone."""
    one = stepper(plain)
    data = batch(seed)
    summed_loss((one.network(data.inputs),), data.targets).backward()
    return torch.cat([p.grad.flatten() for p in one.network.parameters()])


@pytest.mark.parametrize("longest", [0.01, 1000.0])
def test_a_gradient_is_cut_to_its_longest(plain, longest):
    one, expected = stepper(plain, clip_norm=longest), gradient(plain, 1)
    assert 0.02 < expected.norm() < 100
    before = flat(one.network)
    one.step([batch(1)], 1, 1.0)
    moved = before - flat(one.network)
    torch.testing.assert_close(moved, expected * min(1.0, longest / expected.norm().item()), rtol=1e-3, atol=1e-6)


def test_each_gradient_is_cut_to_the_largest(plain):
    one, expected = stepper(plain, clip_value=0.01), gradient(plain, 1)
    before = flat(one.network)
    one.step([batch(1)], 1, 1.0)
    assert expected.abs().max() > 0.02
    torch.testing.assert_close(before - flat(one.network), expected.clamp(-0.01, 0.01), rtol=1e-3, atol=1e-6)


def test_the_average_follows_its_formula(plain):
    one = stepper(plain, ema=0.75)
    average = None
    for number in range(5):
        one.step([batch(number)], 1, 0.5)
        now = flat(one.network).double()
        average = now if average is None else 0.75 * average + 0.25 * now
    torch.testing.assert_close(flat(one.kept).double(), average, rtol=1e-5, atol=1e-7)
    assert (average - now).abs().max() > 1e-3
    plainly = stepper(plain)
    assert plainly.kept is plainly.network


def test_averages_are_validated_and_kept(tiny, tmp_path):
    options = {"epochs": 3, "ema": 0.9, "batch_size": 2, "valid_every": 3, "rate": 0.05}
    states = []
    model = tiny.TinyModel(tiny.config(**options))
    original = Stepper.tensors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "tensors", lambda self: states.append(self) or original(self))
        result = model.fit(tiny.task(tmp_path))
    kept, one = load_file(result.checkpoint), states[0]
    assert_close(kept, dict(one.kept.state_dict()), rtol=0, atol=0)
    assert not torch.equal(kept["head.2.weight"], one.network.state_dict()["head.2.weight"])


@pytest.mark.parametrize("every", [1, 3])
def test_the_worst_step_since_is_replayed(tiny, plain, tmp_path, monkeypatch, every):
    calls = []
    step = Stepper.step

    def spied(self, batches, count, rate):
        held = list(batches)
        loss, photos = step(self, held, count, rate)
        calls.append(([round(float(b.inputs.sum()), 2) for b in held], loss.item()))
        return loss, photos

    monkeypatch.setattr(Stepper, "step", spied)
    _, seen = fit(tiny, plain, tmp_path, 8, batch_size=1, replay=every, rate=0.01)
    left = list(calls)
    losses, since = [], []
    for number in range(8):
        since.append(left.pop(0))
        losses.append(since[-1][1])
        if number % every == 0:
            worst = max(since, key=lambda call: call[1])
            assert left.pop(0)[0] == worst[0]
            since = []
    assert left == []
    assert len({tuple(call[0]) for call in calls}) == 8
    assert seen[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)  # replays are not counted


def test_bfloat16_computes_in_half_and_keeps_whole_parameters(tiny, plain, tmp_path):
    dtypes = set()

    class Watched(plain):
        def build(self):
            network = super().build()
            network[0].register_forward_hook(lambda module, i, output: dtypes.add((module.training, output.dtype)))
            return network

    half, seen = fit(tiny, Watched, tmp_path / "a", 6, precision="bfloat16")
    assert dtypes == {(True, torch.bfloat16), (False, torch.float32)}  # validation is what prediction will be
    assert {tensor.dtype for tensor in half.values()} == {torch.float32}
    whole, expected = fit(tiny, plain, tmp_path / "b", 6)
    assert seen[0]["loss"] == pytest.approx(expected[0]["loss"], rel=0.02)
    assert_close(half, whole, rtol=0.05, atol=5e-3)


def test_float16_without_a_gpu_is_refused(tiny, plain, tmp_path):
    with pytest.raises(UsageError, match=r"float16.*bfloat16"):
        fit(tiny, plain, tmp_path, 6, precision="float16")


@pytest.mark.parametrize("last", [True, False])
def test_images_lie_in_memory_as_asked(tiny, plain, tmp_path, last):
    strides = set()

    class Watched(plain):
        def build(self):
            network = super().build()
            network[0].register_forward_pre_hook(lambda module, i: strides.add(i[0].stride(1) == 1))
            return network

    got, _ = fit(tiny, Watched, tmp_path / "a", 6, channels_last=last)
    assert strides == {last}
    expected, _ = fit(tiny, plain, tmp_path / "b", 6, channels_last=not last)
    assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one(tiny, plain, tmp_path, monkeypatch):
    asked = []
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, backend: asked.append(backend) or compiled(net, backend=backend))
    got, _ = fit(tiny, plain, tmp_path / "a", 4, compile="eager", ema=0.5)
    assert asked == ["eager"]
    expected, _ = fit(tiny, plain, tmp_path / "b", 4, ema=0.5)
    assert_close(got, expected, rtol=1e-5, atol=1e-7)


def test_options_reach_the_loss(tiny, plain, tmp_path):
    _, both = fit(tiny, plain, tmp_path / "a", 6, batch_size=6)
    _, bce = fit(tiny, plain, tmp_path / "b", 6, batch_size=6, loss="bce")
    _, dice = fit(tiny, plain, tmp_path / "c", 6, batch_size=6, loss="dice")
    assert both[0]["loss"] == pytest.approx(bce[0]["loss"] + dice[0]["loss"], rel=1e-6)
    assert TorchOptions().loss == "bce=1,dice=1"
