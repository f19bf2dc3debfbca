"""What the recipes of the first-party models come to, beside what their authors published."""

from __future__ import annotations

import pytest

from carvana_ens.learn.optimisers import kind_after, resets
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.schedules import Point, rate_at
from carvana_ens.learn.stages import stages_of
from carvana_ens.model import MemberConfig, parse_options, recipes_of
from carvana_ens.registry import KNOWN_PACKAGES, load_model

MODELS = sorted(KNOWN_PACKAGES)
SOLUTIONS = ("s0", "s1", "s2", "s3")
TRAINING = {
    *("colour", "normalise", "pad", "loss", "border", "optimiser", "rate", "weight_decay", "schedule", "epochs"),
    *("batch_size", "best_by", "hflip", "warp", "shift", "light", "brightness", "contrast", "repaint"),
}
"""What a recipe of an author must say, so that no later default can change it."""


def author_recipes():
    for name in MODELS:
        model, _ = load_model(name)
        for recipe in model.recipes:
            if recipe != "modern":
                yield name, recipe


RECIPES = list(author_recipes())


def options_of(model, recipe):
    kind, _ = load_model(model)
    return parse_options(kind.Options, recipes_of(kind)[recipe].options)


def epochs_of(model, recipe):
    """(rate, options of the stage) of each epoch."""
    for stage in stages_of(options_of(model, recipe)):
        options = stage.options
        for done in range(options.epochs):
            yield rate_at(options, options.rate, Point(done * 10, 10, options.epochs)), options


def rates_of(model, recipe):
    return [rate for rate, _ in epochs_of(model, recipe)]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_recipe_and_takes_each(name):
    kind, _ = load_model(name)
    recipes = recipes_of(kind)
    assert next(iter(recipes)) == "modern"
    for recipe in recipes.values():
        config = MemberConfig("m", name, size=recipe.size, tta=recipe.tta, options=recipe.options)
        model = kind(config)
        assert all(getattr(model.options, key) == value for key, value in recipe.options.items())
    assert set(recipes["modern"].options) == set(kind.Options.__dataclass_fields__)


def test_every_network_of_the_four_solutions_has_its_authors_recipe():
    without = {model for model in MODELS if model not in {name for name, _ in RECIPES}}
    own = {"command", "difference", "linknet18", "onnx", "timm-fpn", "timm-linknet", "timm-unet"}
    assert {model for model in without if not model.startswith("smp-")} == own
    assert [recipe for _, recipe in RECIPES if recipe.partition("-")[0] not in SOLUTIONS] == []
    assert len({recipe for _, recipe in RECIPES}) == len(RECIPES)
    for model, recipe in RECIPES:
        assert recipe.partition("-")[2].startswith(model), recipe


@pytest.mark.parametrize(("model", "recipe"), RECIPES)
def test_an_authors_recipe_leaves_nothing_to_defaults(model, recipe):
    kind, _ = load_model(model)
    given = kind.recipes[recipe]
    assert TRAINING - set(given.options) == set()
    assert {"scale"} & set(given.options) or {"scale_least", "scale_most"} <= set(given.options)
    assert given.help.count("Not here: ") == 1
    assert (kind.size or given.size) is None or options_of(model, recipe).pad == "none"


def test_rates_of_the_first_place():
    scratch = rates_of("unet-scratch", "s2-unet-scratch")
    assert scratch == pytest.approx([5e-3 * 0.5 ** (epoch // 100) for epoch in range(250)])

    cycle = [1e-4] * 10 + [1e-5] * 5 + [1e-6] * 5
    for name in ("v1", "v2", "a"):
        found = rates_of(f"unet-vgg11-{name}", f"s2-unet-vgg11-{name}")
        assert found == pytest.approx(cycle * 3)

    fresh = [1e-4, 1e-4, 1e-5, 1e-5, 1e-6]
    albu = [1e-4] * 12 + [1e-5] * 11 + (fresh * 4)[:17]
    assert rates_of("linknet34", "s2-linknet34-fma") == pytest.approx(albu)

    ternaus = [1e-4 * 0.5 ** ((epoch % 5) // 2) for epoch in range(1, 53)]
    assert rates_of("unet11", "s2-unet11") == pytest.approx(ternaus)


def test_rates_of_the_team():
    steps = [1e-2] * 11 + [5e-3] * 15 + [1e-3] * 14
    assert rates_of("refinenet-v1", "s1-refinenet-v1") == pytest.approx(steps)
    assert rates_of("refinenet-v4", "s1-refinenet-v4-curriculum") == pytest.approx(steps * 3)
    gated = [5e-3] * 11 + [1e-3] * 20 + [5e-4] * 9
    assert rates_of("refinenet-v6", "s1-refinenet-v6") == pytest.approx(gated * 2)


def test_augmentation_of_the_vgg_networks_changes_after_15_epochs():
    found = [(o.rotation, o.warp, o.light, o.gray) for _, o in epochs_of("unet-vgg11-v1", "s2-unet-vgg11-v1")]
    assert found == [(10.0, 0.5, 0.5, 0.25)] * 15 + [(5.0, 0.75, 0.0, 0.0)] * 45


def test_the_optimisers_start_anew_where_the_authors_did():
    albu = options_of("linknet34", "s2-linknet34-f04a-clahe-rmsprop")
    assert [kind_after(albu, done) for done in (0, 22, 23, 39)] == ["rmsprop", "rmsprop", "adam", "adam"]
    assert [done for done in range(40) if resets(albu, done)] == [23]
    assert albu.equalise
    assert not options_of("linknet34", "s2-linknet34-f04a").equalise
    ternaus = options_of("unet11", "s2-unet11")
    assert [done for done in range(52) if resets(ternaus, done)] == list(range(1, 52))


@pytest.mark.parametrize(
    ("model", "recipe", "photos"),
    [
        ("unet-1024", "s0-unet-1024", 64),
        ("linknet34", "s0-linknet34", 84),
        ("linknet50", "s0-linknet50", 20),
        ("unet-scratch", "s2-unet-scratch", 4),
        ("unet-gray", "s3-unet-gray", 16),
        ("refinenet-v6", "s1-refinenet-v6", 8),
    ],
)
def test_photos_of_a_step(model, recipe, photos):
    options = options_of(model, recipe)
    assert options.batch_size * options.accumulate == photos


def test_the_keras_rate_falls_by_the_mini_batch():
    for model in ("unet-1024", "linknet34"):
        options = options_of(model, f"s0-{model}")
        after = rate_at(options, options.rate, Point(1000, 100, 50))
        assert after == pytest.approx(1e-2 / (1 + 1e-6 * 1000 * options.accumulate))


def test_inputs_are_those_of_the_authors():
    seen = {recipe: options_of(model, recipe) for model, recipe in RECIPES}
    colours = {"s0": "rgb", "s1": "bgr", "s2-unet": "rgb", "s2-linknet": "bgr", "s3-unet-gray": "mean"}
    for start, colour in colours.items():
        assert {o.colour for name, o in seen.items() if name.startswith(start)} == {colour}
    assert {name: o.normalise for name, o in seen.items() if o.normalise != "unit"} == {
        "s1-myunet-double-1024-5": "fold",
        "s2-unet11": "imagenet",
        "s2-unet-vgg11-v1": "imagenet",
        "s2-unet-vgg11-v2": "imagenet",
        "s2-unet-vgg11-a": "imagenet",
        "s3-unet-gray": "batch",
        "s3-segnet-gray": "batch",
    }
    assert (seen["s3-unet-roi"].colour, seen["s3-unet-roi"].pad) == ("hsv", "reflect")
    assert {name for name, o in seen.items() if o.pad == "zero"} == {n for n in seen if n.startswith("s2-linknet")}
    assert isinstance(seen["s2-unet11"], TorchOptions)
