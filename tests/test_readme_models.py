"""README's table of the four solutions' networks is what the code says; run as a script, this prints the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from carvana_ens.learn.stages import stages_of
from carvana_ens.model import MemberConfig, recipes_of
from carvana_ens.registry import KNOWN_PACKAGES, load_model

README = Path(__file__).parents[1] / "README.md"
NETWORKS = {
    "s0-unet-128": ("Unet128", "34.53 M"),
    "s0-unet-256": ("Unet256", "34.60 M"),
    "s0-unet-512": ("Unet512", "34.62 M"),
    "s0-unet-1024": ("Unet1024", "34,623,081"),
    "s0-enet": ("Enet512", "363 k"),
    "s0-linknet34": ("LinkNet_Res34", ""),
    "s0-linknet50": ("LinkNet_Res50", ""),
    "s1-refinenet-v1": ("RefineNetV1", "58.28 M"),
    "s1-refinenet-v2": ("RefineNetV2", "43.52 M"),
    "s1-refinenet-v3": ("RefineNetV3", "49.81 M"),
    "s1-refinenet-v4": ("RefineNetV4", "65.91 M"),
    "s1-refinenet-v5": ("RefineNetV5", "31.76 M"),
    "s1-refinenet-v6": ("RefineNetV6", "31.23 M"),
    "s1-myunet-128": ("UNet128", "9.53 M"),
    "s1-myunet-128-1": ("UNet128_1", "19.33 M"),
    "s1-myunet-128-2": ("UNet128_2", ""),
    "s1-myunet-256": ("UNet256", ""),
    "s1-myunet-256-1": ("UNet256_1", ""),
    "s1-myunet-256-2": ("UNet256_2", ""),
    "s1-myunet-512": ("UNet512", ""),
    "s1-myunet-512-2": ("UNet512_2", ""),
    "s1-myunet-1024-5": ("UNet_1024_5", "34.61 M"),
    "s1-myunet-double-1024-5": ("UNet_double_1024_5", "34.61 M"),
    "s1-myunet-v3": ("UNetV3", ""),
    "s2-unet-scratch": ("Unet", "91.24 M"),
    "s2-unet-scratch-4": ("Unet4", "8.61 M"),
    "s2-unet-scratch-5": ("Unet5", "34.60 M"),
    "s2-unet-scratch-7": ("Unet7", "240.25 M"),
    "s2-unet-scratch-narrow": ("UNarrow", "28.17 M"),
    "s2-unet-vgg11-v1": ("UnetVgg11 v1", "33.55 M"),
    "s2-unet-vgg11-v2": ("UnetVgg11 v2", ""),
    "s2-unet-vgg11-a": ("UnetVgg11 a", "22.93 M"),
    "s2-linknet34-fma": ("LinkNet34", "21.64 M"),
    "s2-unet11": ("UNet11", "22.93 M"),
    "s3-unet-gray": ("U-Net, gray", "7,759,521"),
    "s3-segnet-gray": ("SegNet, gray", "11.78 M"),
    "s3-unet-roi": ("U-Net on crops", "5.60 M"),
}
"""Of the first recipe of each network: its author's name for it, and the parameters that he or his code gives."""
COLOURS = {"mean": "gray"}
WAYS = {"zero": "black beside it", "edge": "its border beside it", "reflect": "mirrored beside it"}
NORMS = {"unit": "0..1", "imagenet": "ImageNet's mean", "batch": "mean of the batch", "fold": "mean of the fold"}
HEADER = """| network | model | package | parameters | its author's | input | recipes |
|---|---|---|--:|--:|---|---|"""


def solutions():
    """(model, its recipes of one solution) as the plugins declare them."""
    for model in sorted(KNOWN_PACKAGES):
        kind, _ = load_model(model)
        by_solution = {}
        for recipe in kind.recipes:
            if recipe != "modern":
                by_solution.setdefault(recipe[:2], []).append(recipe)
        for recipes in by_solution.values():
            yield model, recipes


DECLARED = {recipes[0]: (model, recipes) for model, recipes in solutions()}


def made(first):
    model, _ = DECLARED[first]
    kind, _ = load_model(model)
    recipe = recipes_of(kind)[first]
    return kind(MemberConfig("m", model, size=recipe.size, options=recipe.options))


def row(first):
    model, recipes = DECLARED[first]
    network, theirs = NETWORKS[first]
    instance = made(first)
    options = instance.options
    size = stages_of(options)[-1].size or instance.config.size or instance.size
    way = f"whole photo, {WAYS[options.pad]}" if options.pad != "none" else f"squashed to {size}"
    cells = [
        network,
        f"`{model}`",
        KNOWN_PACKAGES[model].removeprefix("carvana-ens-"),
        f"{instance.count_parameters():,}",
        theirs or "not told",
        f"{way}; {COLOURS.get(options.colour, options.colour)}, {NORMS[options.normalise]}",
        ", ".join(f"`{recipe}`" for recipe in recipes),
    ]
    return f"| {' | '.join(cells)} |"


def table():
    return "\n".join([HEADER, *map(row, NETWORKS)])


def test_every_network_and_every_recipe_has_its_line():
    assert DECLARED.keys() == NETWORKS.keys()


def test_the_table_of_the_readme_is_what_the_code_says():
    """``python tests/test_readme_models.py`` prints it anew."""
    text = README.read_text(encoding="utf-8")
    start = text.index(HEADER)
    assert text[start:].split("\n\n", 1)[0] == table()


def test_the_readme_names_every_model_and_counts_those_that_are_no_authors():
    text = " ".join(README.read_text(encoding="utf-8").split())
    assert [name for name in KNOWN_PACKAGES if f"`{name}`" not in text] == []
    names = ("timm-unet", "timm-linknet", "timm-fpn")
    counts = [load_model(name)[0](MemberConfig("m", name)).count_parameters() for name in names]
    told = ", ".join(f"{count / 1e6:.2f} M" for count in counts)
    assert f"{', '.join(f'`{name}`' for name in names)}, decoders on any timm backbone ({told}" in text


@pytest.mark.parametrize("first", [first for first, (_, theirs) in NETWORKS.items() if theirs])
def test_parameters_are_as_many_as_the_authors(first):
    theirs = NETWORKS[first][1]
    count = made(first).count_parameters()
    number, _, unit = theirs.partition(" ")
    digits = len(number.partition(".")[2])
    scale = {"": 1, "k": 1e3, "M": 1e6}[unit]
    assert round(count / scale, digits) == float(number.replace(",", ""))


if __name__ == "__main__":
    print(table())
