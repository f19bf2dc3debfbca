"""carvana-ens pseudo-label: which images are kept, what is written, and what mixes it in."""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from carvana_ens import Project, open_store
from carvana_ens.data.pseudo import PseudoLabels
from carvana_ens.errors import DataError, ProjectError
from carvana_ens.verbs.pseudo_label import doubt_of
from carvana_ens.verbs.training_data import training_samples
from carvana_ens.verbs.workspace import Workspace

MEMBERS = (("sharp", 1.0, 0, 0), ("soft", 2.0, 1, 30))


@pytest.fixture
def blended(project: Any) -> Any:
    """A project with two imported members; ``maps`` has their codes."""
    project.maps_of = project.kept("pseudo", lambda: project.imported(*MEMBERS))
    return project


def naive_mean(world: Any, image_id: str, weights: dict[str, int]) -> list[list[Fraction]]:
    """The weighted mean probability of every pixel, exactly."""
    total = sum(weights.values())
    rows = [world.maps_of[name][image_id].astype(int) * weight for name, weight in weights.items()]
    return [[Fraction(int(value), 255 * total) for value in row] for row in sum(rows)]


def naive_doubt(mean: list[list[Fraction]], threshold: Fraction) -> float:
    """Pixels in doubt by pixels of the border, looked at one by one."""
    doubtful = sum(Fraction(1, 10) < p < Fraction(9, 10) for row in mean for p in row)
    height, width = len(mean), len(mean[0])
    border = 0
    for y in range(height):
        for x in range(width):
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            outside = any(0 <= v < height and 0 <= u < width and mean[v][u] < threshold for v, u in near)
            border += mean[y][x] >= threshold and outside
    return doubtful / border


def listing(world: Any, name: str = "pseudo") -> dict[str, Any]:
    return json.loads((world.cars / "pseudo" / name / "listing.json").read_text())


@pytest.mark.parametrize(
    ("weights", "threshold", "words"),
    [
        ({"sharp": 1, "soft": 1}, Fraction(1, 2), ()),
        ({"sharp": 3, "soft": 1}, Fraction(2, 5), ("--weights", "sharp=3,soft=1", "--threshold", "0.4")),
    ],
)
def test_the_surest_images_are_kept_with_their_blend(
    blended: Any, oracle: ModuleType, weights: dict[str, int], threshold: Fraction, words: tuple[str, ...]
) -> None:
    means = {i: naive_mean(blended, i, weights) for i in oracle.TEST}
    doubts = {i: naive_doubt(means[i], threshold) for i in oracle.TEST}
    chosen = sorted(sorted(oracle.TEST, key=doubts.__getitem__)[:3])
    done = blended.did("pseudo-label", *words, "--json")
    folder = blended.cars / "pseudo" / "pseudo"
    told = json.loads(done.out)
    assert told["doubt"] == pytest.approx(max(doubts[i] for i in chosen), abs=1e-12)
    del told["doubt"]
    assert told == {"folder": str(folder), "images": 6, "kept": 3, "borderless": 0, "written": True}
    assert sorted(path.name for path in folder.iterdir()) == ["listing.json", "maps"]
    assert sorted(path.stem for path in (folder / "maps").iterdir()) == chosen
    written = listing(blended)
    assert [image["id"] for image in written["images"]] == chosen
    for image in written["images"]:
        codes = np.asarray(PIL.Image.open(folder / "maps" / f"{image['id']}.png"))
        assert codes.dtype == np.uint8
        assert codes.tolist() == [[round(255 * p) for p in row] for row in means[image["id"]]]  # half to even
        assert image["photo"] == f"../test_hq/{image['id']}.jpg"
        assert image["doubt"] == round(doubts[image["id"]], 4)
        assert image["crc32"] == zlib.crc32(codes.tobytes())
    source = written["source"]
    assert (source["weights"], source["split"], source["images"]) == (weights, "test", 6)
    assert (source["threshold"], source["keep"], source["doubtful"]) == (str(float(threshold)), 0.5, [0.1, 0.9])
    for name, *_ in MEMBERS:
        assert source["stores"][name] == open_store(blended.store(name, "test")).fingerprint()
    run = json.loads(next((blended.cars / "runs").glob("*-pseudo-label.json")).read_text())
    assert (run["name"], run["kept"], run["weights"]) == ("pseudo", 3, weights)


def test_keep_and_max_doubt(blended: Any, oracle: ModuleType) -> None:
    doubts = sorted(naive_doubt(naive_mean(blended, i, {"sharp": 1, "soft": 1}), Fraction(1, 2)) for i in oracle.TEST)
    for words, kept in (
        (("--keep", "1"), 6),
        (("--keep", "0.34"), 2),
        (("--keep", "1", "--max-doubt", str(doubts[3] + 1e-9)), 4),
        (("--keep", "0.5", "--max-doubt", str(doubts[4] + 1e-9)), 3),
    ):
        done = blended.did("pseudo-label", *words, "--dry-run")
        assert f"would keep {kept} of 6 images, doubt up to {doubts[kept - 1]:.3g} pixels" in done.out
    assert not (blended.cars / "pseudo").exists()
    assert list((blended.cars / "runs").glob("*-pseudo-label.json")) == []
    for words in (("--keep", "0.1"), ("--max-doubt", str(doubts[0] / 2))):
        assert f"the least doubt is {doubts[0]:.3g} pixels" in blended.do("pseudo-label", *words).error


@pytest.mark.parametrize("words", [("--keep", "0"), ("--keep", "1.1"), ("--keep", "nan"), ("--max-doubt", "nan")])
def test_shares_that_are_none(blended: Any, words: tuple[str, str]) -> None:
    assert blended.do("pseudo-label", *words).code == 2


def test_images_without_a_border_are_not_kept(project: Any, oracle: ModuleType) -> None:
    for number, image_id in enumerate(oracle.TEST):
        codes = oracle.blurred(oracle.ellipse(image_id), 1.0, 0)
        oracle.save_grey(project.root / "maps" / f"{image_id}.png", codes * np.uint8(number not in (1, 4)))
    project.did("import", "a", "--from", project.root / "maps", "--split", "test")
    done = project.did("pseudo-label", "--keep", "1")
    assert done.out.endswith(" pixels, 2 without a border\n")
    assert "4 of 6 images" in done.out
    assert [image["id"] for image in listing(project)["images"]] == [oracle.TEST[n] for n in (0, 2, 3, 5)]


def test_the_border_is_where_background_touches() -> None:
    mask = np.zeros((6, 8), bool)
    doubtful = np.zeros((6, 8), bool)
    doubtful[0] = True
    assert doubt_of(doubtful, mask) is None
    assert doubt_of(doubtful, ~mask) is None
    mask[1:5, 1:7] = True  # 16 of its 24 pixels touch background
    assert doubt_of(doubtful, mask) == 8 / 16
    mask[:, :4] = True
    mask[:, 4:] = False  # the picture's own rim is no border: one column
    assert doubt_of(doubtful, mask) == 8 / 6
    assert doubt_of(~doubtful, np.ones((1, 1), bool)) is None


def test_what_is_there_is_made_anew_only_when_asked(blended: Any) -> None:
    blended.did("pseudo-label", "--keep", "1")
    told = blended.do("pseudo-label").error
    assert "--fresh" in told
    assert len(listing(blended)["images"]) == 6
    blended.did("pseudo-label", "--fresh")
    assert len(listing(blended)["images"]) == len(list((blended.cars / "pseudo" / "pseudo" / "maps").iterdir())) == 3
    for name in ("../x", "a/b", ""):
        assert "cannot name pseudo-labels" in blended.do("pseudo-label", name).error


def test_the_same_on_any_number_of_threads(blended: Any) -> None:
    for number in (1, 3):
        blended.did("pseudo-label", f"t{number}", "--threads", number)
    assert listing(blended, "t1") == listing(blended, "t3")
    one, three = (sorted((blended.cars / "pseudo" / name / "maps").iterdir()) for name in ("t1", "t3"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in three]


def test_a_stopped_run_leaves_no_listing(blended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blended.did("pseudo-label")
    module = sys.modules["carvana_ens.verbs.pseudo_label"]
    write = module.write_map

    def stop(folder: Path, image_id: str, codes: np.ndarray) -> int:
        if len(list((folder / "maps").glob("*"))) == 2:
            raise KeyboardInterrupt
        return write(folder, image_id, codes)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_map", stop)
        assert blended.do("pseudo-label", "--fresh", "--threads", "1").code == 130
    assert not (blended.cars / "pseudo" / "pseudo" / "listing.json").exists()
    told = blended.do("add-model", "learned-cut", "--pseudo", "pseudo").error
    assert "listing.json is not there" in told
    blended.did("pseudo-label")  # no --fresh: nothing whole is there
    assert len(listing(blended)["images"]) == 3


def test_photos_of_groups_with_training_photos_are_refused(blended: Any, oracle: ModuleType) -> None:
    for image_id in ("7f3_01", "7f3_09"):
        oracle.save_photo(blended.test, image_id)
        codes = {name: oracle.blurred(oracle.ellipse(image_id), blur, 0) for name, blur, _, _ in MEMBERS}
        for name, values in codes.items():
            oracle.save_grey(blended.root / f"{name}_test" / f"{image_id}.png", values)
    for name, *_ in MEMBERS:
        blended.did("import", name, "--from", blended.root / f"{name}_test", "--split", "test", "--fresh")
    told = blended.do("pseudo-label").error
    assert "2 of 8 images" in told
    assert "'7f3_01', '7f3_09'" in told


def test_maps_need_the_test_photos(blended: Any, oracle: ModuleType) -> None:
    (blended.test / f"{oracle.TEST[1]}.jpg").unlink()
    assert f"1 of 6 test maps have no photo in {blended.test}: '{oracle.TEST[1]}'" in blended.do("pseudo-label").error
    oracle.save_photo(blended.test, oracle.TEST[1], (50, 60))
    told = blended.do("pseudo-label", "--keep", "1").error
    assert "50x60" in told
    assert "48x71" in told
    file = blended.cars / "ensemble.toml"
    file.write_text(file.read_text().replace('test = "../test_hq"\n', ""))
    assert "data.test" in blended.do("pseudo-label").error


def test_members_mix_them_in(blended: Any, oracle: ModuleType) -> None:
    blended.did("pseudo-label", "sure", "--keep", "1")
    blended.did("add-model", "learned-cut", "--pseudo", "sure", "--pseudo-share", "0.5")
    blended.did("add-model", "learned-cut", "--name", "rear", "--pseudo", "sure", "--view", "03")
    text = (blended.cars / "ensemble.toml").read_text()
    assert 'pseudo = "sure"\npseudo_share = 0.5\n' in text
    assert 'pseudo = "sure"\npseudo_share = 0.3\n' in text  # JunhongXu's share, written out
    project = Project(blended.cars)
    workspace = Workspace(project)
    table = workspace.fold_table("default")
    for fold in (0, 1):
        held = set(table.held_out(fold, workspace.groups))
        samples = training_samples(workspace, project.member("learned-cut"), table, fold)
        assert set(samples.ids) == (set(oracle.TRAIN) - held) | {f"pseudo sure:{i}" for i in oracle.TEST}
        rear = training_samples(workspace, project.member("rear"), table, fold)
        assert {i for i in rear.ids if i.startswith("pseudo")} == {
            f"pseudo sure:{i}" for i in oracle.TEST if "_03" in i
        }
    image_id = oracle.TEST[2]
    mean = naive_mean(blended, image_id, {"sharp": 1, "soft": 1})
    codes = np.array([[round(255 * p) for p in row] for row in mean])
    target = samples.target(f"pseudo sure:{image_id}")  # type: ignore[attr-defined]
    assert (target.dtype, target.tolist()) == (np.float32, (codes / 255).astype(np.float32).tolist())
    assert np.array_equal(samples.mask(f"pseudo sure:{image_id}"), codes >= 128)
    photo = np.asarray(PIL.Image.open(blended.test / f"{image_id}.jpg"))
    assert np.array_equal(samples.image(f"pseudo sure:{image_id}"), photo)

    blended.did("train")
    blended.did("predict", "learned-cut", "--split", "oof")
    file = blended.cars / "ensemble.toml"
    file.write_text(file.read_text().replace("pseudo_share = 0.5", "pseudo_share = 0.25"))
    assert "train learned-cut --fresh" in blended.do("train", "learned-cut").error
    assert "was trained before" in blended.did("train", "rear").out
    again = ("pseudo-label", "sure", "--keep", "1", "--fresh", "--weights")
    blended.did(*again, "sharp=1,soft=1")  # the very same labels
    assert "was trained before" in blended.did("train", "rear").out
    blended.did(*again, "sharp=2,soft=1")
    assert "train rear --fresh" in blended.do("train", "rear").error


def test_views_that_no_pseudo_label_has(blended: Any) -> None:
    blended.did("pseudo-label", "--keep", "0.17")  # one image, of one view
    (image,) = listing(blended)["images"]
    view = image["id"][-2:]
    other = "02" if view != "02" else "03"
    blended.did("add-model", "learned-cut", "--pseudo", "pseudo", "--view", view, "--view", other)
    told = blended.do("add-model", "learned-cut", "--name", "x", "--pseudo", "pseudo", "--view", other).error
    assert f"none of the 1 pseudo-labels pseudo is of its views ({other})" in told


def test_pseudo_labels_that_are_not_there(blended: Any) -> None:
    told = blended.do("add-model", "learned-cut", "--pseudo", "sure").error
    assert "sure/listing.json is not there" in told
    assert "--pseudo" in blended.do("add-model", "learned-cut", "--pseudo-share", "0.5").error
    blended.did("pseudo-label")
    assert "pseudo_share takes a number between 0 and 1" in (
        blended.do("add-model", "learned-cut", "--pseudo", "pseudo", "--pseudo-share", "1").error
    )
    assert "learned-cut" not in (blended.cars / "ensemble.toml").read_text()


@pytest.fixture
def labels(blended: Any) -> Path:
    blended.did("pseudo-label", "--keep", "1")
    return blended.cars / "pseudo" / "pseudo"


def test_damage_is_named(labels: Path, blended: Any, oracle: ModuleType) -> None:
    image_id = oracle.TEST[0]
    path = labels / "maps" / f"{image_id}.png"
    codes = np.array(PIL.Image.open(path))
    codes[3, 4] ^= 1
    oracle.save_grey(path, codes)
    with pytest.raises(DataError, match=rf"{image_id}\.png is not the map that listing\.json knows"):
        PseudoLabels(labels, blended.cars).target(image_id)
    path.unlink()
    with pytest.raises(DataError, match=image_id):
        PseudoLabels(labels, blended.cars)
    shutil.copy(labels / "maps" / f"{oracle.TEST[1]}.png", path)
    oracle.save_photo(blended.test, oracle.TEST[1], (50, 60))
    with pytest.raises(DataError, match="is 50x60, its pseudo-label 48x71"):
        PseudoLabels(labels, blended.cars).target(oracle.TEST[1])
    (blended.test / f"{image_id}.jpg").unlink()
    with pytest.raises(DataError, match=rf"photo .*{image_id}\.jpg of the pseudo-labels .* is gone"):
        PseudoLabels(labels, blended.cars)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"images": []},
        {"images": [{"id": "a"}]},
        {"images": 5},
        {"source": None},
        {"images": "twice"},
        None,
    ],
)
def test_a_listing_that_is_none(labels: Path, blended: Any, change: dict[str, Any] | None) -> None:
    document = json.loads((labels / "listing.json").read_text())
    if change == {"images": "twice"}:
        change = {"images": document["images"][:1] * 2}
    (labels / "listing.json").write_text("{" if change is None else json.dumps({**document, **change}))
    with pytest.raises(ProjectError, match=r"listing\.json"):
        PseudoLabels(labels, blended.cars)


def test_a_project_can_be_moved(labels: Path, blended: Any, oracle: ModuleType, tmp_path: Path) -> None:
    before = PseudoLabels(labels, blended.cars)
    for name in ("cars", "test_hq"):
        shutil.copytree(blended.root / name, tmp_path / "else" / name)
    shutil.rmtree(blended.test)
    after = PseudoLabels(tmp_path / "else" / "cars" / "pseudo" / "pseudo", tmp_path / "else" / "cars")
    assert after.digest == before.digest
    assert after.image(oracle.TEST[0]).shape == (*oracle.SIZE, 3)
