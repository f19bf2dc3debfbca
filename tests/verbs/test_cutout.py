"""carvana-ens cutout, with models that need no torch, on drawn photos whose true opacity is known."""

from __future__ import annotations

import json
import shutil
import signal
import time

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

pytest.importorskip("pymatting")

from carvana_ens import Project, open_store
from carvana_ens.core.rle import bits_mask
from carvana_ens.engine import ordered_map
from carvana_ens.ensemble.blending import Blend
from carvana_ens.verbs import cutout_batch as batch
from carvana_ens.verbs.blend import open_blend

SIZE = (60, 90)
THING, GROUND = np.array([205, 190, 180]), np.array([40, 60, 35])
NEW = [f"new_{number:02d}" for number in range(1, 6)]


def opacity(number, fine=6):
    """(H, W) the part of each pixel that an ellipse of its own covers."""
    height, width = SIZE
    y, x = (np.indices((height * fine, width * fine)) + 0.5) / fine
    inside = ((y - 28 - number) / 17) ** 2 + ((x - 45) / (24 + number)) ** 2 <= 1
    return inside.reshape(height, fine, width, fine).mean(axis=(1, 3))


def drawn(number):
    part = opacity(number)[..., None]
    return np.rint(part * THING + (1 - part) * GROUND).astype(np.uint8)


def save(path, number, **more):
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(drawn(number)).save(path, **more)
    return path


@pytest.fixture
def ready(project):
    """A project with two members of other cuts, and a folder of new photos."""

    def make():
        project.did("add-model", "bright-cut", "--name", "low", "--set", "cut=110", "--set", "soft=22")
        project.did("add-model", "bright-cut", "--name", "high", "--set", "cut=128", "--set", "soft=22")

    project.kept("ready", make)
    for number, image_id in enumerate(NEW):
        save(project.root / "new" / f"{image_id}.png", number)
    project.calls()
    return project


def pixels(path):
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def asked(world):
    return sorted(image_id for call in world.calls("predict") for image_id in call[2:])


def files(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and "runs" not in path.parts}


def test_the_mask_is_that_of_blend(ready):
    before = files(ready.cars)
    new, out = ready.root / "new", ready.root / "out"
    words = ("--weights", "low=2,high=1", "--threshold", "0.4")
    done = ready.did("cutout", new, "-o", out, *words)
    assert done.out == f"{out}: 5 cutouts written, weights low 2, high 1\n"
    assert names(out) == [f"{image_id}.png" for image_id in NEW]
    assert files(ready.cars) == before  # the maps lay elsewhere
    ready.did("predict", "--split", "new", "--images", new)
    ready.did("blend", "--split", "new", *words, "--masks", ready.root / "masks")
    for image_id in NEW:
        alpha = pixels(out / f"{image_id}.png")[..., 3]
        assert np.array_equal(alpha >= 128, pixels(ready.root / "masks" / f"{image_id}.png") > 0)


def test_there_is_no_halo(ready):
    out = ready.root / "out"
    ready.did("cutout", ready.root / "new", "-o", out)
    for number, image_id in enumerate(NEW):
        cut, photo = pixels(out / f"{image_id}.png"), drawn(number)
        share = cut[..., 3:] / 255
        rim = (share[..., 0] > 0) & (share[..., 0] < 1)
        assert rim.sum() > 50
        again = np.abs(cut[..., :3] * share + GROUND * (1 - share) - photo)
        naive = np.abs(photo * share + GROUND * (1 - share) - photo)
        assert again.max() < 25
        assert again[rim].mean() < min(10, naive[rim].mean() / 2)
        kept = np.abs(photo[rim].astype(int) - THING).mean()
        assert np.abs(cut[rim][:, :3].astype(int) - THING).mean() < kept / 4
        assert np.array_equal(cut[share[..., 0] == 1][:, :3], photo[share[..., 0] == 1])


def test_all_fold_models_predict(project, oracle):
    project.did("add-model", "learned-cut")
    project.did("train")
    project.did("predict", "--split", "test")
    project.did("blend", "--masks", project.root / "masks", "--postprocess", "")
    project.calls()
    project.did("cutout", project.test, "-o", project.root / "out", "--mask-only")
    loaded = {call[2] for call in project.calls("load")}
    assert loaded == {"fold0", "fold1"}
    for image_id in oracle.TEST:
        alpha = pixels(project.root / "out" / f"{image_id}.png")
        assert alpha.ndim == 2
        assert np.array_equal(alpha >= 128, pixels(project.root / "masks" / f"{image_id}.png") > 0)


def test_a_bad_photo_is_named_and_the_others_done(ready):
    new, out = ready.root / "new", ready.root / "out"
    (new / "new_02.png").write_bytes((new / "new_02.png").read_bytes()[:200])
    (new / "text.jpg").write_text("no picture")
    (new / "a..b.png").write_bytes((new / "new_01.png").read_bytes())
    (new / "notes.txt").write_text("not meant")
    dark = new / "dark.png"
    PIL.Image.new("RGB", (40, 30)).save(dark)
    done = ready.do("cutout", new, ready.root / "gone.png", "-o", out, "--json")
    assert done.code == 3
    told = json.loads(done.out)
    bad = {
        str(path) for path in (new / "new_02.png", new / "text.jpg", new / "a..b.png", dark, ready.root / "gone.png")
    }
    assert set(told["failed"]) == bad
    assert "no object" in told["failed"][str(dark)]
    assert all(f"failed: {path}: " in done.err for path in bad)
    assert names(out) == ["new_01.png", "new_03.png", "new_04.png", "new_05.png"]
    assert told["written"] == [str(out / name) for name in names(out)]
    again = ready.do("cutout", new, "-o", out)
    assert again.code == 3
    assert ": 0 cutouts written, 4 were there, 4 failed" in again.out


@pytest.mark.parametrize("how", ["nan", "raise", "range"])
def test_a_photo_that_a_model_fails_at_is_named_and_the_others_done(ready, how):
    ready.did("add-model", "faulty", "--set", f"how={how}", "--set", "at=new_03")
    out = ready.root / "out"
    done = ready.do("cutout", ready.root / "new", "-o", out, "--weights", "low=8,faulty=1")
    assert done.code == 3
    assert done.err.startswith(f"failed: {ready.root / 'new' / 'new_03.png'}: ")
    assert len(done.err.splitlines()) == 1
    assert names(out) == [f"{image_id}.png" for image_id in NEW if image_id != "new_03"]


def test_a_model_that_always_fails_ends_the_batch(ready, monkeypatch):
    monkeypatch.setattr(batch, "HOPELESS", 3)
    ready.did("add-model", "faulty", "--set", "how=load")
    assert "cannot load its checkpoint" in ready.do("cutout", ready.root / "new", "-o", ready.root / "out").error


def test_what_is_there_is_kept_unless_it_is_to_be_overwritten(ready):
    new, out = ready.root / "new", ready.root / "out"
    ready.did("cutout", new, "-o", out)
    whole = files(out)
    (out / "new_02.png").write_bytes(b"mine")
    (out / "new_04.png").unlink()
    ready.calls()
    assert ": 1 cutouts written, 4 were there" in ready.did("cutout", new, "-o", out).out
    assert set(asked(ready)) == {"new_04"}
    assert (out / "new_02.png").read_bytes() == b"mine"
    ready.did("cutout", new, "-o", out, "--overwrite")
    assert files(out) == whole


def test_chunks_make_no_difference(ready, monkeypatch):
    new = ready.root / "new"
    ready.did("cutout", new, "-o", ready.root / "out")
    monkeypatch.setattr(batch, "CHUNK", 2)
    ready.did("cutout", new, "-o", ready.root / "small")
    assert [*files(ready.root / "small").values()] == [*files(ready.root / "out").values()]


def test_threads_make_no_difference_and_large_photos_have_fewer(ready, monkeypatch):
    new, asked_for = ready.root / "new", []

    def counted(function, items, threads):
        asked_for.append(threads)
        return ordered_map(function, items, threads)

    monkeypatch.setattr(batch, "ordered_map", counted)
    for threads, at_once in ((1, batch.AT_ONCE), (3, batch.AT_ONCE), (3, 2 * SIZE[0] * SIZE[1]), (3, 1)):
        monkeypatch.setattr(batch, "AT_ONCE", at_once)
        out = ready.root / f"out{len(asked_for)}"
        ready.did("cutout", new, "-o", out, "--threads", threads)
        assert [*files(out).values()] == [*files(ready.root / "out0").values()]
    assert asked_for == [1, 3, 2, 1]


@pytest.mark.slow
def test_workers_make_no_difference(ready):
    pytest.importorskip("distributed")
    new, words = ready.root / "new", ("--weights", "low=8,faulty=1")
    ready.did("add-model", "faulty", "--set", "how=raise", "--set", "at=new_03")
    alone = ready.do("cutout", new, "-o", ready.root / "out", *words)
    done = ready.do("cutout", new, "-o", ready.root / "theirs", "--workers", "2", *words)
    assert (alone.code, done.code) == (3, 3)
    assert f"failed: {new / 'new_03.png'}: " in done.err
    assert names(ready.root / "theirs") == [f"{image_id}.png" for image_id in NEW if image_id != "new_03"]
    assert [*files(ready.root / "theirs").values()] == [*files(ready.root / "out").values()]


def test_a_group_model_sees_all_views_of_a_stopped_batch(project, oracle):
    project.did("add-model", "group-cut")
    out = project.root / "out"
    project.did("cutout", project.test, "-o", out)
    whole = files(out)
    (out / f"{oracle.TEST[1]}.png").unlink()
    project.calls()
    project.did("cutout", project.test, "-o", out)
    assert set(asked(project)) == {"b22", *oracle.TEST[:3]}  # the group and its views
    assert files(out) == whole


def test_exif_and_profile(ready):
    tags = PIL.Image.Exif()
    tags[0x010F], tags[0x0112] = "Maker", 6
    srgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    path = save(ready.root / "more" / "phone.jpg", 2, quality=95, exif=tags, icc_profile=srgb)
    ready.did("cutout", path, "-o", ready.root / "out")
    with PIL.Image.open(ready.root / "out" / "phone.png") as cut:
        assert cut.size == (SIZE[0], SIZE[1])  # width and height of the turned picture
        assert cut.getexif()[0x010F] == "Maker"
        assert 0x0112 not in cut.getexif()
        assert cut.info["icc_profile"] == srgb
        turned = np.rot90(opacity(2), -1)
        assert ((np.asarray(cut)[..., 3] >= 128) != (turned >= 0.5)).mean() < 0.02


def test_backgrounds_masks_crops_and_the_sheet(ready):
    new, out = ready.root / "new", ready.root / "out"
    ready.did("cutout", new / "new_01.png", "-o", out, "--background", "#fafafa", "--format", "jpg", "--crop")
    box = np.argwhere(opacity(0) > 0.5)
    (top, left), (bottom, right) = box.min(axis=0), box.max(axis=0) + 1
    shop = pixels(out / "new_01.jpg")
    assert np.abs(np.subtract(shop.shape[:2], (bottom + 16 - max(0, top - 16), right + 16 - (left - 16)))).max() <= 4
    assert np.abs(shop[0].astype(int) - 0xFA).max() <= 3
    PIL.Image.new("RGB", (9, 4), (9, 8, 200)).save(ready.root / "wall.png")
    ready.did("cutout", new / "new_01.png", "-o", out, "--background", ready.root / "wall.png", "--crop", "--margin", 0)
    assert pixels(out / "new_01.png")[0, 0].tolist() == [9, 8, 200]
    ready.did("cutout", new, "-o", ready.root / "clear", "--sheet", ready.root / "sheet.jpg")
    assert pixels(ready.root / "sheet.jpg").shape[0] > 3 * 320
    for words, told in (
        (("--mask-only", "--background", "red"), "--mask-only"),
        (("--format", "jpg"), "--background"),
        (("--margin", "3"), "--crop"),
        (("--background", "reddish"), "no colour and no file"),
        (("--sheet", "a.gif"), "neither"),
        (("--sheet", "a.png", "--mask-only"), "--sheet"),
        (("--threshold", "2"), "threshold"),
        (("--weights", "lo=1"), "did you mean 'low'"),
        (("--postprocess", "largst"), "largest"),
    ):
        assert told in ready.do("cutout", new, "-o", ready.root / "none", *words).error
    assert not (ready.root / "none").exists()


def test_photos_that_cannot_be_told_apart(ready):
    new = ready.root / "new"
    save(ready.root / "more" / "new_01.jpg", 1)
    both = ready.do("cutout", new, ready.root / "more", "-o", ready.root / "out")
    assert "would both be cut out to new_01" in both.error
    assert "would take the place of a photo" in ready.do("cutout", new, "-o", new).error
    (ready.root / "empty").mkdir()
    assert "there are no photos" in ready.do("cutout", ready.root / "empty", "-o", ready.root / "out").error
    done = ready.did("cutout", new, new / "new_01.png", "-o", ready.root / "out")  # named twice, cut out once
    assert ": 5 cutouts written" in done.out


def test_imported_members_cannot_predict(ready, oracle):
    ready.maps("drawn", oracle.TEST, 1.0, 0)
    ready.did("import", "drawn", "--from", ready.root / "drawn", "--split", "test")
    error = ready.do("cutout", ready.root / "new", "-o", ready.root / "out").error
    assert "drawn" in error
    assert "--weights low=1,high=1" in error
    ready.did("cutout", ready.root / "new", "-o", ready.root / "out", "--weights", "low=1,high=1")


def test_tuned_weights_where_they_are_fresh(ready):
    new = ready.root / "new"
    ready.did("predict", "--split", "oof")
    ready.did("tune", "--no-honest", "--from", "0.3", "--to", "0.4")
    tuned = json.loads((ready.cars / "tuning.json").read_text())
    done = ready.did("cutout", new, "-o", ready.root / "tuned", "--json")
    assert {name for name, weight in tuned["weights"].items() if float(weight) > 0} == set(
        json.loads(done.out)["weights"]
    )
    ready.did("predict", "--split", "new", "--images", new)
    ready.did("blend", "--weights", "tuned", "--split", "new", "--masks", ready.root / "masks")
    for image_id in NEW:
        mask = pixels(ready.root / "masks" / f"{image_id}.png") > 0
        assert np.array_equal(pixels(ready.root / "tuned" / f"{image_id}.png")[..., 3] >= 128, mask)
    shutil.rmtree(ready.cars / "stores" / "low")
    ready.did("predict", "--split", "oof", "--dtype", "uint16", "low")
    stale = ready.did("cutout", new, "-o", ready.root / "equal", "--json")
    assert stale.err.startswith("equal weights, for the tuned ones cannot be used: ")
    assert json.loads(stale.out)["weights"] == {"low": 1, "high": 1}
    assert "stale" in ready.do("cutout", new, "-o", ready.root / "no", "--weights", "tuned").error


@pytest.mark.parametrize(("space", "cut"), [("rank", "threshold"), ("temperature", "expected-dice")])
def test_levels_and_cut_are_those_of_the_blend(ready, space, cut):
    ready.did("predict", "--split", "oof")
    ready.did("tune", "--no-honest", "--spaces", space, "--cut", cut)
    project = Project(ready.cars)
    tuned = open_blend(project, "tuned", None, "oof")
    assert (tuned.space.kind, tuned.cut) == (space, cut)
    stores = {name: open_store(project.store_path(name, "oof")) for name in ("low", "high")}
    for blend in (tuned, Blend(stores, "low=2,high=1", "1/3")):
        levels = batch.Levels(blend)
        for image_id in blend.ids[:4]:
            values, at = levels.read(image_id)
            assert 0 <= values.min() <= values.max() <= 1
            mask = bits_mask(blend.bits(image_id), blend.size(image_id))
            assert 0 < mask.mean() < 1
            assert values[mask].min() >= at - 1e-6
            assert values[~mask].max() < at + 1e-6


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_leaves_whole_files_and_the_batch_goes_on(ready, signal_number, monkeypatch):
    new, out = ready.root / "new", ready.root / "out"
    (ready.root / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(ready.root / "tmp"))
    for number in range(6, 30):
        save(new / f"new_{number:02d}.png", number % 5)
    ready.did("cutout", new, "-o", ready.root / "whole")
    process = ready.process("--project", ready.cars, "cutout", new, "-o", out)
    until = time.monotonic() + 120
    while not (out.is_dir() and any(out.glob("*.png"))) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal_number)
    process.communicate(timeout=120)
    assert process.returncode == (130 if signal_number == signal.SIGINT else -signal.SIGKILL)
    left = sorted(out.glob("*.png"))
    assert 0 < len(left) < 29
    for path in left:
        assert path.read_bytes() == (ready.root / "whole" / path.name).read_bytes()
    if signal_number == signal.SIGINT:
        assert len(names(out)) == len(left)
        assert names(ready.root / "tmp") == []
    assert f"{29 - len(left)} cutouts written, {len(left)} were there" in ready.did("cutout", new, "-o", out).out
    for path in (ready.root / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
