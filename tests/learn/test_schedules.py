from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as theirs

from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.schedules import Point, cycle_part, one_cycle, rate_at

STEPS = 7


def ours(epochs, scores=(), **options):
    recipe = TorchOptions(epochs=epochs, **options)
    points = [Point(step, STEPS, epochs) for step in range(epochs * STEPS)]
    return [rate_at(recipe, recipe.rate, point, scores) for point in points]


def of_torch(count, make, rate, per=1):
    """The rates of a scheduler of torch that is moved after every ``per`` steps."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    schedule = make(optimiser)
    rates = []
    for step in range(1, count + 1):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if step % per == 0 and step < count:
            schedule.step()
    return rates


@pytest.mark.parametrize(("steps", "peak"), [(10, 1e-3), (37, 0.02), (400, 1.0)])
def test_one_cycle_is_torchs(steps, peak):
    expected = of_torch(steps, lambda o: theirs.OneCycleLR(o, peak, total_steps=steps, cycle_momentum=False), 1)
    assert [one_cycle(step, steps, peak) for step in range(steps)] == pytest.approx(expected, rel=1e-9)


def test_one_cycle_is_the_default():
    assert ours(3, rate=0.02) == [one_cycle(step, 3 * STEPS, 0.02) for step in range(3 * STEPS)]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_rate_of_the_shortest_runs_stays_between_zero_and_the_peak(steps):
    assert all(0 < one_cycle(step, steps, 0.1) <= 0.1 for step in range(steps))


def test_constant():
    assert set(ours(4, schedule="constant", rate=0.02)) == {0.02}


def test_steps_are_torchs_multistep():
    expected = of_torch(6 * STEPS, lambda o: theirs.MultiStepLR(o, [2, 5], gamma=0.5), 0.1, per=STEPS)
    assert ours(6, schedule="steps", rate_steps="2:0.5, 5:0.25", rate=0.1) == pytest.approx(expected, rel=1e-12)


def test_steps_begin_again_with_each_cycle():
    """ternaus: rate x 0.5^((epoch % 5) // 2) with epochs from 1; albu: from epoch 23, epochs from 0, 5 at a time."""
    rates = ours(11, schedule="steps", rate_steps="1:0.5,3:0.25,4:1", cycle=5, rate=1e-4)[::STEPS]
    assert rates == pytest.approx([1e-4 * 0.5 ** ((epoch % 5) // 2) for epoch in range(1, 12)], rel=1e-12)
    text = "12:0.1,23:1,25:0.1,27:0.01,28:1,30:0.1,32:0.01,33:1,35:0.1,37:0.01,38:1"
    rates = ours(40, schedule="steps", rate_steps=text, rate=1e-4)[::STEPS]
    albu = [0.1 ** (epoch // 12) if epoch < 23 else 0.1 ** ((epoch - 23) % 5 // 2) for epoch in range(40)]
    assert rates == pytest.approx([1e-4 * factor for factor in albu], rel=1e-12)


def test_the_plateau_is_torchs_at_every_validation():
    scores = [0.1, 0.5, 0.5, 0.50001, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    options = {"plateau_factor": 0.3, "plateau_patience": 2, "plateau_delta": 1e-3, "plateau_least": 0.02}
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = theirs.ReduceLROnPlateau(optimiser, "max", 0.3, 2, threshold=1e-3, threshold_mode="abs", min_lr=0.02)
    seen = []
    for count in range(len(scores)):
        (rate,) = set(ours(1, scores[:count], schedule="plateau", rate=1.0, **options))
        assert rate == optimiser.param_groups[0]["lr"]
        seen.append(rate)
        schedule.step(scores[count])
    assert seen == pytest.approx([1.0] * 5 + [0.3] * 4 + [0.09] * 3 + [0.027])


def test_the_plateau_ends_at_its_least_rate():
    assert set(ours(1, [0.5] * 50, schedule="plateau", rate=0.1, plateau_least=0.004)) == {0.004}
    assert set(ours(1, [0.5] * 50, schedule="plateau", rate=0.1, plateau_least=0.2)) == {0.1}


@pytest.mark.parametrize(("decay", "mode"), [(1.0, "triangular"), (0.5, "triangular2")])
def test_cyclic_is_torchs(decay, mode):
    half = 2 * STEPS // 2
    expected = of_torch(6 * STEPS, lambda o: theirs.CyclicLR(o, 0.02, 0.1, half, mode=mode, cycle_momentum=False), 0.02)
    got = ours(6, schedule="cyclic", cycle=2, cycle_least=0.2, cycle_decay=decay, rate=0.1)
    assert got == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_restarts_are_torchs(growth):
    expected = of_torch(
        9 * STEPS, lambda o: theirs.CosineAnnealingWarmRestarts(o, 2 * STEPS, growth, eta_min=0.01), 0.1
    )
    got = ours(9, schedule="restarts", cycle=2, cycle_least=0.1, cycle_growth=growth, rate=0.1)
    assert got == pytest.approx(expected, rel=1e-9)


def test_cycles_grow():
    assert [cycle_part(done, 2, 3) for done in (0, 1, 2, 5, 7.999, 8)] == pytest.approx(
        [0, 0.5, 0, 0.5, 0.99983, 0], abs=1e-4
    )


def test_the_rate_decays_by_step_as_keras_had_it():
    got = ours(2, schedule="constant", rate=0.1, rate_decay=1e-2)
    assert got == pytest.approx([0.1 / (1 + 1e-2 * step) for step in range(2 * STEPS)], rel=1e-12)
