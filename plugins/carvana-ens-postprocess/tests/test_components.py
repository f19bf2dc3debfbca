"""Components, holes, islands and closing, against scipy.ndimage and drawings."""

from __future__ import annotations

import dataclasses
import importlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
from carvana_ens_postprocess import Closing, FillHoles, Largest, RemoveIslands, RoofRepair
from scipy import ndimage

SIDES, CORNERS = ndimage.generate_binary_structure(2, 1), np.ones((3, 3), bool)
SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (5, 9), (33, 47), (64, 130)]
STEPS = [Largest(), Largest(4), FillHoles(), FillHoles(3), RemoveIslands(4), Closing(1), Closing(3)]


def drawn(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def noise(size, share, seed):
    """Blobs of all kinds, many at the border."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).random(size), 0.7) < share


def masks():
    cases = [noise(size, share, seed) for size in SIZES for share in (0.4, 0.5, 0.6) for seed in range(3)]
    return cases + [np.full(size, level) for size in SIZES for level in (False, True)]


def twin_largest(mask, structure):
    labels, count = ndimage.label(mask, structure)  # numbered by their first pixels, row by row
    areas = [(labels == number).sum() for number in range(1, count + 1)]
    return labels == 1 + int(np.argmax(areas)) if count else mask


def twin_fill(mask, area):
    filled = ndimage.binary_fill_holes(mask)
    labels, count = ndimage.label(filled & ~mask, SIDES)
    for number in range(1, count + 1):
        if area and (labels == number).sum() > area:
            filled[labels == number] = False
    return filled


def twin_islands(mask, area):
    labels, count = ndimage.label(mask, CORNERS)
    return np.isin(labels, [number for number in range(1, count + 1) if (labels == number).sum() >= area])


def twin_closing(mask, radius):
    reach = np.arange(-radius, radius + 1)
    disc = np.hypot(*np.meshgrid(reach, reach)) <= radius
    grown = ndimage.binary_dilation(np.pad(mask, 2 * radius), disc)
    return ndimage.binary_erosion(grown, disc)[2 * radius : -2 * radius, 2 * radius : -2 * radius]


TWINS = [
    (Largest(4), twin_largest, SIDES),
    (Largest(8), twin_largest, CORNERS),
    (Largest(), twin_largest, CORNERS),
    (FillHoles(), twin_fill, 0),
    (FillHoles(1), twin_fill, 1),
    (FillHoles(area=6), twin_fill, 6),
    (RemoveIslands(1), twin_islands, 1),
    (RemoveIslands(2), twin_islands, 2),
    (RemoveIslands(area=7), twin_islands, 7),
    (Closing(1), twin_closing, 1),
    (Closing(2), twin_closing, 2),
    (Closing(radius=5), twin_closing, 5),
]


@pytest.mark.parametrize(("step", "twin", "argument"), TWINS, ids=lambda value: repr(value)[:40])
def test_equal_to_scipy(step, twin, argument):
    changed = 0
    for mask in masks():
        mask.flags.writeable = False
        found = step.apply(mask, None)
        assert (found.dtype, found.shape) == (np.bool_, mask.shape)
        np.testing.assert_array_equal(found, twin(mask, argument))
        changed += not np.array_equal(found, mask)
    assert changed or argument == 1  # areas and radii of 1 may find nothing to do


def test_the_closing_by_radius_1_is_the_cross():
    mask = np.pad(noise((40, 60), 0.5, 1), 2)
    np.testing.assert_array_equal(Closing(1).apply(mask, None), ndimage.binary_closing(mask))


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_a_second_time_changes_nothing(step):
    for mask in masks():
        once = step.apply(mask, None)
        np.testing.assert_array_equal(step.apply(once, None), once)


def test_largest_as_drawn():
    mask = drawn("##..#", "#..#.", "..#..", "##...")
    assert (Largest(4).apply(mask, None) == drawn("##...", "#....", ".....", ".....")).all()
    assert (Largest(8).apply(mask, None) == drawn("....#", "...#.", "..#..", "##...")).all()
    tie = drawn("...#", "##..", "...#", "##.#", "...#")
    assert (Largest().apply(tie, None) == drawn("....", "....", "...#", "...#", "...#")).all()


@pytest.mark.parametrize("place", range(6))
def test_of_equal_components_the_first_is_kept(place):
    """A component that starts lower may still be labelled first: OpenCV scans two rows at a time."""
    mask = np.zeros((8, 12), bool)
    mask[1, 0:3] = mask[5, 0:3] = True
    mask[0, 2 * place % 8 + 4 : 2 * place % 8 + 7] = True
    for connectivity in (4, 8):
        found = Largest(connectivity).apply(mask, None)
        np.testing.assert_array_equal(found, twin_largest(mask, SIDES if connectivity == 4 else CORNERS))


def test_holes_as_drawn():
    mask = drawn("######", "#.##.#", "##..##", "######", "###.##")
    assert (FillHoles().apply(mask, None) == drawn("######", "######", "######", "######", "###.##")).all()
    assert (FillHoles(1).apply(mask, None) == drawn("######", "######", "##..##", "######", "###.##")).all()
    diagonal = drawn(".#.", "#.#", ".#.")
    assert (FillHoles().apply(diagonal, None) == drawn(".#.", "###", ".#.")).all()


def test_islands_as_drawn():
    mask = drawn("#....", ".#..#", "....#", "#...#")
    assert (RemoveIslands(3).apply(mask, None) == drawn(".....", "....#", "....#", "....#")).all()
    assert (RemoveIslands(2).apply(mask, None) == drawn("#....", ".#..#", "....#", "....#")).all()


def test_closing_at_the_border():
    mask = np.zeros((9, 9), bool)
    mask[0, 0] = mask[8, 4] = mask[4, 7] = True
    np.testing.assert_array_equal(Closing(3).apply(mask, None), mask)  # neither lost nor drawn to the border
    slit = np.ones((9, 9), bool)
    slit[:, 4] = False
    expected = np.ones((9, 9), bool)
    expected[[0, 8], 4] = False  # the cross fits in from outside
    np.testing.assert_array_equal(Closing(1).apply(slit, None), expected)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: FillHoles(-1), "option area is -1: it must be at least 0"),
        (lambda: RemoveIslands(0), "option area is 0: it must be at least 1"),
        (lambda: Closing(0), "option radius is 0: it must be at least 1"),
        (lambda: RoofRepair(grow=-5), "option grow is -5: it must be at least 0"),
    ],
)
def test_options_that_cannot_be_meant(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_what_tuning_tries():
    assert FillHoles().candidates() == (FillHoles(0), FillHoles(100), FillHoles(1000), FillHoles(10000))
    assert FillHoles(400).candidates() == (FillHoles(400),)
    assert [step.radius for step in Closing().candidates()] == [1, 2, 4, 8]
    assert Largest().candidates() == (Largest(),)
    assert RoofRepair(member="albu").candidates() == (RoofRepair(member="albu"),)


def test_the_entry_points_are_the_steps():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    steps = {}
    for name, target in project["entry-points"]["carvana_ens.postprocess"].items():
        module, _, attribute = target.partition(":")
        steps[name] = getattr(importlib.import_module(module), attribute)
    assert set(steps.values()) == {Closing, FillHoles, Largest, RemoveIslands, RoofRepair}
    for name, step in steps.items():
        assert step.name == name
        assert all(field.metadata["help"] for field in dataclasses.fields(step))
    assert not any("torch" in dependency for dependency in project["dependencies"])
