"""carvana-ens show."""

from __future__ import annotations

import PIL.Image
import pytest


@pytest.fixture
def pair(project):
    """A project with two imported members."""
    project.kept("show", lambda: project.imported(("one", 2, 1, 0), ("two", 1, -2, 0)))
    return project


def size(path):
    with PIL.Image.open(path) as picture:
        picture.load()
        return picture.size


def test_a_line_for_each_image_with_photo_truth_members_and_blend(pair):
    done = pair.did("show", "0a1_01", "7f3_02", "-o", pair.root / "look.png")
    assert done.out == f"wrote {pair.root / 'look.png'}: 2 images\n"
    width = round(71 * 320 / 48)
    assert size(pair.root / "look.png")[0] == 5 * width + 6 * 12
    pair.did("show", "0a1_01", "-o", pair.root / "one.jpg")
    assert size(pair.root / "one.jpg")[0] == size(pair.root / "look.png")[0]
    assert size(pair.root / "look.png")[1] - size(pair.root / "one.jpg")[1] > 320


def test_test_photos_have_no_truth(pair):
    pair.did("show", "b22_01", "-o", pair.root / "look.png")
    assert size(pair.root / "look.png")[0] == 4 * round(71 * 320 / 48) + 5 * 12


def test_training_photos_without_masks(world, oracle):
    world.run("init", world.cars, "--images", world.images)
    world.maps("maps", oracle.TRAIN, 1, 0)
    world.did("import", "net", "--from", world.root / "maps", "--split", "oof")
    world.did("show", "0a1_01", "-o", world.root / "look.png")
    assert size(world.root / "look.png")[0] == 3 * round(71 * 320 / 48) + 4 * 12
    assert "8 images" in world.did("show", "--mosaic", "-o", world.root / "mosaic.png").out


def test_mosaic(pair):
    assert "6 images" in pair.did("show", "--mosaic", "-o", pair.root / "all.png").out
    assert "2 images" in pair.did("show", "--mosaic", "0a1_01", "7f3_02", "-o", pair.root / "two.png").out
    assert size(pair.root / "all.png")[1] > size(pair.root / "two.png")[1]


def test_tuned_and_named_weights(pair):
    pair.did("tune")
    pair.did("show", "0a1_01", "--weights", "tuned", "-o", pair.root / "a.png")
    pair.did("show", "0a1_01", "--weights", "two=1", "--threshold", "0.3", "-o", pair.root / "b.png")
    assert "did you mean 'two'?" in pair.do("show", "0a1_01", "--weights", "twoo=1", "-o", pair.root / "c.png").error
    assert not (pair.root / "c.png").exists()


def test_a_split_of_other_photos(project, oracle):
    oracle.save_photo(project.root / "more", "zz_01", (30, 44))
    project.did("add-model", "bright-cut")
    project.did("predict", "--images", project.root / "more", "--split", "more")
    words = ("show", "zz_01", "--split", "more", "-o", project.root / "look.png")
    assert "--images" in project.do(*words).error
    project.did(*words, "--images", project.root / "more")
    assert size(project.root / "look.png")[0] == 3 * round(44 * 320 / 30) + 4 * 12


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["0a1_99"], "0a1_99"),
        (["0a1_01", "b22_01"], "b22_01"),
        (["nothing", "--split", "oof"], "nothing"),
        ([], "--mosaic"),
        (["0a1_01", "--split", "more"], "--images"),
        (["0a1_01", "--threshold", "2"], "'2'"),
    ],
)
def test_what_cannot_be_shown(pair, words, told):
    assert told in pair.do("show", *words, "-o", pair.root / "look.png").error
    assert not (pair.root / "look.png").exists()


def test_pictures_of_another_kind_or_nowhere(pair):
    assert "look.gif" in pair.do("show", "0a1_01", "-o", pair.root / "look.gif").error
    below = pair.images / "0a1_01.jpg" / "look.png"
    assert str(below) in pair.do("show", "0a1_01", "-o", below).error
    assert "-o" in pair.do("show", "0a1_01").error


def test_no_maps_yet(project):
    project.did("add-model", "bright-cut")
    assert "run predict or import first" in project.do("show", "0a1_01", "-o", project.root / "x.png").error
