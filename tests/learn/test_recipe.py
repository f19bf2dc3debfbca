from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from carvana_ens.errors import UsageError
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.stages import Stage, stages_of
from carvana_ens.model import option, options_json, parse_options
from carvana_ens.types import Size


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
        {"optimiser": "lion"},
        {"momentum": 1.0},
        {"momentum": 0.0, "nesterov": True},
        {"beta2": 1.0},
        {"rms_decay": -0.1},
        {"epsilon": 0.0},
        {"clip_norm": -1.0},
        {"clip_value": -1.0},
        {"reset": "0"},
        {"reset": "3;4"},
        {"reset_to": "sgd"},
        {"schedule": "cosine"},
        {"schedule": "steps"},
        {"schedule": "cyclic"},
        {"schedule": "restarts"},
        {"rate_steps": "3:0.1"},
        {"rate_steps": "3:0", "schedule": "steps"},
        {"rate_steps": "3:.1,3:.2", "schedule": "steps"},
        {"rate_steps": "3:1e", "schedule": "steps"},
        {"rate_steps": "0.1", "schedule": "steps"},
        {"cycle": -1},
        {"cycle_growth": 0},
        {"cycle_least": 1.0},
        {"cycle_decay": 0.0},
        {"plateau_factor": 1.0},
        {"plateau_patience": -1},
        {"plateau_delta": -1.0},
        {"plateau_least": -1.0},
        {"rate_decay": -1.0},
        {"accumulate": 0},
        {"accumulate_as": "median"},
        {"replay": -1},
        {"ema": 1.0},
        {"best_by": "luck"},
        {"min_delta": -0.1},
        {"precision": "float64"},
        {"compile": "gcc"},
        {"ahead": 0},
        {"loss": "hope"},
        {"rotation": 181.0},
        {"normalise": "set"},
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


def test_every_default_is_what_it_was():
    was = {
        "epochs": 40,
        "batch_size": 2,
        "rate": 3e-3,
        "weight_decay": 1e-2,
        "patience": 0,
        "valid_every": 1,
        "hflip": 0.5,
        "shift": 0.1,
        "scale": 0.2,
        "brightness": 0.2,
        "contrast": 0.2,
        "repaint": 0.5,
        "colour": "rgb",
        "normalise": "imagenet",
        "pad": "none",
        "pad_sides": "after",
    }
    options = options_json(TorchOptions())
    assert {name: options[name] for name in was} == was


def test_every_option_says_what_it_is():
    assert [f.name for f in dataclasses.fields(TorchOptions) if not f.metadata["help"]] == []


def test_a_recipe_is_a_derived_class_with_other_defaults():
    @dataclasses.dataclass(frozen=True)
    class Albu(TorchOptions):
        optimiser: str = option("adam", "adam")
        rate: float = option(1e-4, "rate")
        stages: str = option("64x96 epochs=2; 128x192 rate=1e-5", "stages")

    recipe = Albu()
    assert (recipe.optimiser, recipe.rate, recipe.batch_size) == ("adam", 1e-4, 2)
    assert [(type(s.options), s.options.rate) for s in stages_of(recipe)] == [(Albu, 1e-4), (Albu, 1e-5)]
    with pytest.raises(UsageError, match="stages"):
        parse_options(Albu, {"stages": "64x96 epoch=2"})


def test_stages_change_what_they_name_and_keep_the_members_rest():
    text = "512x768 epochs=10 batch=4 rate=1e-3; schedule=constant; 1024x1536 epochs=5 rotation=5 soft_masks=false"
    one, two, three = stages_of(TorchOptions(stages=text, ema=0.5, repaint=0.1))
    assert [stage.size for stage in (one, two, three)] == [Size(512, 768), Size(512, 768), Size(1024, 1536)]
    plain = TorchOptions(ema=0.5, repaint=0.1)
    assert one.options == dataclasses.replace(plain, epochs=10, batch_size=4, rate=1e-3)
    assert two.options == dataclasses.replace(plain, schedule="constant")
    assert three.options == dataclasses.replace(plain, epochs=5, rotation=5.0, soft_masks=False)
    assert stages_of(plain) == (Stage(None, plain),)
    assert stages_of(TorchOptions(stages="epochs=3"))[0].size is None


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        (" ", "stage 1 .*empty"),
        ("64x64;", "stage 2 .*empty"),
        ("64", "'64' is no option=value"),
        ("epochs=3 64x64", "'64x64' is no option=value"),
        ("0x64", "'0x64' is not HxW"),
        ("64x64; epohcs=3", "stage 2 .*did you mean 'epochs'"),
        ("colour=bgr", "cannot have option 'colour'"),
        ("stages=64x64", "cannot have option 'stages'"),
        ("epochs=x", "epochs takes a whole number"),
        ("epochs=0", "epochs is 0"),
        ("epochs=1 epochs=2", "epochs stands there twice"),
    ],
)
def test_stages_of_another_form_are_refused_with_their_number(stages, told):
    with pytest.raises(UsageError, match=f"option stages, {told}|option stages, stage 1 .*{told}"):
        parse_options(TorchOptions, {"stages": stages})


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
