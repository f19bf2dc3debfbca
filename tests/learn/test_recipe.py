from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from carvana_ens.errors import UsageError
from carvana_ens.learn.recipe import TorchOptions, one_cycle
from carvana_ens.model import options_json, parse_options


@pytest.mark.parametrize(("steps", "peak"), [(10, 1e-3), (37, 0.02), (400, 1.0)])
def test_rate_is_the_one_cycle_schedule_of_torch(steps, peak):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, cycle_momentum=False)
    expected = []
    for _ in range(steps):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if len(expected) < steps:
            schedule.step()
    assert [one_cycle(step, steps, peak) for step in range(steps)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_rate_of_the_shortest_runs_stays_between_zero_and_the_peak(steps):
    assert all(0 < one_cycle(step, steps, 0.1) <= 0.1 for step in range(steps))


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"valid_every": 0},
        {"patience": -1},
        {"rate": 0.0},
        {"weight_decay": -1.0},
        {"hflip": 1.5},
        {"repaint": -0.1},
        {"shift": -0.1},
        {"scale": 1.0},
        {"brightness": 1.0},
        {"contrast": -0.5},
        {"colour": "cmyk"},
        {"normalise": "batch"},
        {"pad": "wrap"},
        {"pad_sides": "before"},
    ],
)
def test_options_out_of_range_are_refused_by_name(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        parse_options(TorchOptions, values)


def test_options_survive_json():
    options = TorchOptions(epochs=3, colour="gray", repaint=0.0)
    assert parse_options(TorchOptions, options_json(options)) == options


def test_importing_the_room_the_recipe_and_the_host_does_not_import_torch():
    code = (
        "import sys, carvana_ens.learn, carvana_ens.learn.recipe, carvana_ens.learn.inference\n"
        "heavy = sorted({'torch', 'zarr', 'numba', 'torchvision'} & set(sys.modules))\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_room_offers_its_public_names():
    import carvana_ens.learn as room

    assert room.TorchOptions is TorchOptions
    assert room.TorchModel.trainable
    with pytest.raises(AttributeError, match="NoSuchName"):
        room.NoSuchName  # noqa: B018
