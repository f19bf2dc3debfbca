"""carvana-ens predict, with models that need no torch."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from carvana_ens import open_store


def bright(path):
    """(H, W) float32 brightness of a photo file."""
    return np.asarray(PIL.Image.open(path)).astype(np.float32).mean(axis=-1)


def codes(probabilities, scale=255):
    return np.rint(probabilities.astype(np.float32) * np.float32(scale))


def cut_codes(path, cut=120.0, soft=12.0, scale=255):
    return codes(1 / (1 + np.exp((cut - bright(path)) / soft)), scale)


def near(got, expected):
    """Codes within one step: logits go through another formula of the sigmoid."""
    return got.shape == expected.shape and np.abs(got.astype(np.int64) - expected).max() <= 1


@pytest.fixture
def cut(project):
    """A project with the untrained member bright-cut."""
    project.did("add-model", "bright-cut")
    return project


@pytest.fixture
def learned(project):
    """A project with a trained member of two folds."""

    def make():
        project.did("add-model", "learned-cut")
        project.did("train")

    project.kept("trained", make)
    project.calls()
    return project


def asked(world):
    """Ids that models were asked to predict since the last look, with repetitions."""
    return sorted(image_id for call in world.calls("predict") for image_id in call[2:])


def test_maps_of_an_untrained_model(cut, oracle):
    done = cut.did("predict")
    assert "oof.zarr: 8 maps predicted, 8 in all" in done.out
    assert "test.zarr: 6 maps predicted, 6 in all" in done.out
    for folder, split, ids in ((cut.images, "oof", oracle.TRAIN), (cut.test, "test", oracle.TEST)):
        store = open_store(cut.store("bright-cut", split))
        assert (store.ids, store.provenance.seen) == (tuple(ids), "none")
        for image_id in ids:
            assert near(store.read(image_id), cut_codes(folder / f"{image_id}.jpg"))


def test_uint16(cut, oracle):
    cut.did("predict", "--split", "test", "--dtype", "uint16")
    store = open_store(cut.store("bright-cut", "test"))
    assert store.full_scale == 65535
    for image_id in oracle.TEST:
        expected = cut_codes(cut.test / f"{image_id}.jpg", scale=65535)
        assert np.abs(store.read(image_id).astype(np.int64) - expected).max() <= 1
    assert "dtype" in cut.do("predict", "--split", "test").error


def test_flips_are_undone(project, oracle):
    project.did("add-model", "bright-cut", "--tta", "hflip", "--tta", "vflip")
    project.did("predict", "--split", "test")
    assert asked(project) == sorted(oracle.TEST * 4)
    for image_id in oracle.TEST:
        got = open_store(project.store("bright-cut", "test")).read(image_id)
        assert near(got, cut_codes(project.test / f"{image_id}.jpg"))


def test_out_of_fold_maps_are_by_the_model_that_did_not_see_the_group(learned, oracle):
    learned.did("predict", "--split", "oof")
    table = json.loads((learned.cars / "folds" / "default.json").read_text())["assignment"]
    store = open_store(learned.store("learned-cut", "oof"))
    assert store.provenance.seen == "fold table"
    folder = learned.cars / "checkpoints" / "learned-cut"
    cuts = [json.loads((folder / f"fold{fold}" / "cut.json").read_text())["cut"] for fold in (0, 1)]
    assert cuts[0] != cuts[1]
    for image_id in oracle.TRAIN:
        expected = cut_codes(learned.images / f"{image_id}.jpg", cuts[table[image_id[:3]]])
        assert near(store.read(image_id), expected)


def test_test_maps_are_the_mean_probability_of_the_fold_models(learned, oracle):
    learned.did("predict", "--split", "test")
    folder = learned.cars / "checkpoints" / "learned-cut"
    cuts = [json.loads((folder / f"fold{fold}" / "cut.json").read_text())["cut"] for fold in (0, 1)]
    store = open_store(learned.store("learned-cut", "test"))
    for image_id in oracle.TEST:
        level = bright(learned.test / f"{image_id}.jpg")
        mean = np.mean([1 / (1 + np.exp((cut - level) / 12)) for cut in cuts], axis=0)
        assert near(store.read(image_id), codes(mean))


def test_only_missing_maps_are_predicted(cut, monkeypatch):
    from carvana_ens.store.writer import StoreWriter

    cut.did("add-model", "bright-cut", "--name", "whole")
    cut.did("predict", "whole", "--split", "test")
    cut.calls()
    plain, written = StoreWriter.write_codes, []

    def stopping(self, image_id, values):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(image_id)
        plain(self, image_id, values)

    monkeypatch.setattr(StoreWriter, "write_codes", stopping)
    assert cut.do("predict", "bright-cut", "--split", "test").code == 130
    monkeypatch.setattr(StoreWriter, "write_codes", plain)
    cut.calls()
    store = open_store(cut.store("bright-cut", "test"))
    assert store.missing() == [i for i in store.ids if i not in written]
    assert "4 maps predicted, 6 in all" in cut.did("predict", "bright-cut", "--split", "test").out
    assert asked(cut) == store.missing()
    assert "0 maps predicted, 6 in all" in cut.did("predict", "bright-cut", "--split", "test").out
    assert asked(cut) == []
    assert np.array_equal(
        open_store(cut.store("bright-cut", "test")).records, open_store(cut.store("whole", "test")).records
    )


def test_the_run_says_how_fast_it_was_and_what_networks_took_of_it(cut):
    cut.did("predict", "bright-cut", "--split", "test", "--batch", "4")
    assert [len(words) - 2 for words in cut.calls() if words[0] == "predict"] == [4, 2]
    (path,) = (cut.cars / "runs").glob("*-predict.json")
    record = json.loads(path.read_text())
    assert record["images"] == 6
    assert record["images_per_second"] >= 6 / record["seconds"]
    assert 0 < record["network_share"] < 1
    cut.did("predict", "bright-cut", "--split", "test")
    last = json.loads(max((cut.cars / "runs").glob("*-predict.json")).read_text())
    assert last["images"] == 0
    assert "network_share" not in last


def test_one_fold_then_the_rest(learned, oracle):
    done = learned.did("predict", "--fold", "1")
    assert "4 maps predicted, 8 in all, 4 missing" in done.out
    table = json.loads((learned.cars / "folds" / "default.json").read_text())["assignment"]
    assert asked(learned) == [i for i in oracle.TRAIN if table[i[:3]] == 1]
    for words in (["tune"], ["blend", "--split", "oof", "-o", learned.root / "x.csv"]):
        told = learned.do(*words).error
        assert f"{learned.store('learned-cut', 'oof')} lacks 4 of 8 maps" in told
    done = learned.did("predict", "--split", "oof")
    assert "4 maps predicted, 8 in all\n" in done.out
    assert asked(learned) == [i for i in oracle.TRAIN if table[i[:3]] == 0]


def test_folds_may_be_trained_and_predicted_in_turn(project, oracle):
    project.did("add-model", "learned-cut")
    for fold in ("0", "1"):
        project.did("train", "--fold", fold)
        project.did("predict", "--fold", fold)
    assert open_store(project.store("learned-cut", "oof")).missing() == []
    project.did("predict")
    project.did("tune")
    project.did("blend", "--weights", "tuned", "-o", project.root / "out.csv")


def test_a_member_that_is_not_trained_says_how(project):
    project.did("add-model", "learned-cut")
    told = project.do("predict").error
    assert "fold 0" in told
    assert "carvana-ens train learned-cut" in told
    assert not project.store("learned-cut", "oof").exists()


def test_maps_of_an_older_checkpoint_are_refused(learned):
    learned.did("predict")
    file = learned.cars / "ensemble.toml"
    file.write_text(file.read_text().replace('model = "learned-cut"', 'model = "learned-cut"\nseed = 9'))
    learned.did("train", "--fresh")
    done = learned.do("predict")
    assert "checkpoints" in done.error
    assert "--fresh" in done.error
    assert str(learned.store("learned-cut", "oof")) in done.error
    learned.did("predict", "--fresh")


def test_a_checkpoint_file_that_was_exchanged_is_refused(learned):
    path = learned.cars / "checkpoints" / "learned-cut" / "fold1" / "cut.json"
    path.write_text('{"cut": 1.0}')
    told = learned.do("predict").error
    assert str(path) in told
    assert "sha256" in told
    path.unlink()
    assert str(path) in learned.do("predict").error


def test_other_photos_become_a_split_of_their_name(learned, oracle):
    oracle.save_photo(learned.root / "more", "zz_01", (30, 44))
    oracle.save_photo(learned.root / "more", "zz_02", (51, 33))
    done = learned.did("predict", "learned-cut", "--images", learned.root / "more", "--split", "more")
    assert "more.zarr: 2 maps predicted, 2 in all" in done.out
    store = open_store(learned.store("learned-cut", "more"))
    assert store.sizes == ((30, 44), (51, 33))
    learned.did("blend", "--split", "more", "-o", learned.root / "more.csv")
    rows = oracle.read_rows(learned.root / "more.csv")
    for image_id, size in zip(store.ids, store.sizes, strict=True):
        mask = oracle.naive_decode(rows[f"{image_id}.jpg"], size)
        assert np.array_equal(
            mask, oracle.naive_blend([store.read(image_id)], [oracle.Fraction(1)], oracle.Fraction(1, 2))
        )


def test_photos_of_several_sizes_in_one_split(cut, oracle):
    oracle.save_photo(cut.test, "b22_04", (40, 90))
    oracle.save_photo(cut.test, "b22_05", (71, 48))
    cut.did("predict", "--split", "test")
    store = open_store(cut.store("bright-cut", "test"))
    assert store.shape == (8, 71, 90)
    for image_id in store.ids:
        assert near(store.read(image_id), cut_codes(cut.test / f"{image_id}.jpg"))
    cut.did("blend", "-o", cut.root / "out.csv")
    rows = oracle.read_rows(cut.root / "out.csv")
    for image_id, size in zip(store.ids, store.sizes, strict=True):
        expected = oracle.naive_blend([store.read(image_id)], [oracle.Fraction(1)], oracle.Fraction(1, 2))
        assert rows[f"{image_id}.jpg"] == oracle.naive_rle(expected)
        assert expected.shape == size


def test_a_group_model_sees_all_views_even_if_one_map_is_missing(project, oracle, monkeypatch):
    from carvana_ens.store.writer import StoreWriter

    project.did("add-model", "group-cut")
    project.did("predict", "--split", "test")
    groups = {call[2]: call[3:] for call in project.calls("predict")}
    assert groups == {car: [i for i in oracle.TEST if i.startswith(car)] for car in ("b22", "c9d")}
    whole = open_store(project.store("group-cut", "test"))
    for car, views in groups.items():
        levels = np.stack([bright(project.test / f"{i}.jpg") for i in views])
        expected = codes(np.clip((levels - levels.mean()) / 120 + 0.5, 0, 1))
        for image_id, view in zip(views, expected, strict=True):
            assert near(whole.read(image_id), view), car
    records = whole.records

    plain = StoreWriter.write_codes

    def stopping(self, image_id, values):
        if image_id == "c9d_03":
            raise KeyboardInterrupt
        plain(self, image_id, values)

    monkeypatch.setattr(StoreWriter, "write_codes", stopping)
    assert project.do("predict", "--split", "test", "--fresh").code == 130
    monkeypatch.setattr(StoreWriter, "write_codes", plain)
    project.calls()
    assert "1 maps predicted" in project.did("predict", "--split", "test").out
    assert [call[2:] for call in project.calls("predict")] == [["c9d", *groups["c9d"]]]
    assert np.array_equal(open_store(project.store("group-cut", "test")).records, records)


def test_a_group_of_photos_of_several_sizes_needs_an_input_size(project, oracle):
    oracle.save_photo(project.test, "b22_04", (40, 90))
    project.did("add-model", "group-cut")
    done = project.do("predict", "--split", "test")
    assert done.code == 3
    told = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    assert [line.split()[1] for line in told] == [i for i in oracle.TEST if i.startswith("b22")] + ["b22_04"]
    assert all("group b22: " in line and "give the member an input size" in line for line in told)
    assert "3 maps predicted" in done.out
    project.did("add-model", "group-cut", "--name", "sized", "--size", "24x36")
    project.did("predict", "sized", "--split", "test")


@pytest.mark.parametrize("photos", [6, 12])
def test_a_member_that_predicts_no_photo_is_at_fault(project, oracle, photos):
    for number in range(photos - 6):
        oracle.save_photo(project.test, f"d11_{number:02d}", (48, 71))
    project.did("add-model", "faulty", "--set", "how=shape", "--set", "at=all", "--size", "24x36")
    done = project.do("predict", "--split", "test")
    assert done.code == 1
    assert "faulty: the model wrote a map of shape (23, 36)" in done.error
    assert open_store(project.store("faulty", "test")).missing() == sorted(path.stem for path in project.test.iterdir())


def test_imported_members_are_passed_over(cut):
    cut.imported(("maps", 1, 0, 0))
    assert "stores/maps" not in cut.did("predict").out
    assert "its maps were imported" in cut.did("predict", "maps").err


def test_fresh_makes_the_maps_anew(cut):
    cut.did("predict", "--split", "test")
    file = cut.cars / "ensemble.toml"
    file.write_text(file.read_text() + "\n[members.bright-cut.options]\ncut = 60.0\n")
    told = cut.do("predict", "--split", "test").error
    assert "options" in told
    assert "--fresh" in told
    cut.did("predict", "--split", "test", "--fresh")
    assert near(open_store(cut.store("bright-cut", "test")).read("b22_01"), cut_codes(cut.test / "b22_01.jpg", 60))


def test_fresh_removes_nothing_when_the_work_cannot_begin(cut):
    cut.did("predict", "--split", "test")
    before = open_store(cut.store("bright-cut", "test")).fingerprint()
    (cut.test / "c9d_03.jpg").write_bytes(b"")
    assert "c9d_03" in cut.do("predict", "--split", "test", "--fresh").error
    assert open_store(cut.store("bright-cut", "test")).fingerprint() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--split", "new"], "--images"),
        (["--images", "test_hq"], "--split"),
        (["--images", "test_hq", "--split", "oof"], "--split"),
        (["--images", "test_hq", "--split", "../up"], "'../up'"),
        (["--images", "test_hq", "--split", ""], "''"),
        (["--images", "test_hq", "--split", "a b"], "'a b'"),
        (["--images", "test_hq", "--split", "a\nb"], "cannot name a store"),
        (["--images", "nowhere", "--split", "new"], "nowhere"),
        (["--fold", "0", "--split", "test"], "--fold"),
        (["--fold", "0"], "--fold means nothing to bright-cut"),
        (["--fold", "-1"], "--fold"),
        (["--dtype", "float32"], "--dtype"),
        (["bright-cat"], "did you mean 'bright-cut'?"),
        (["--devise", "cpu"], "--devise"),
        (["--device", "gpu"], "'gpu'"),
        (["--device", "cuda:"], "'cuda:'"),
    ],
)
def test_what_cannot_be_meant(cut, monkeypatch, words, told):
    monkeypatch.chdir(cut.root)
    done = cut.do("predict", *words)
    assert told in done.error
    assert not (cut.cars / "stores").exists()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("nan", "NaN"),
        ("infinity", "infinity"),
        ("range", "1.5"),
        ("shape", "(47, 71)"),
        ("few", "0 maps"),
        ("integers", "uint8"),
        ("raise", "RuntimeError: kernel size mismatch"),
        ("load", "ValueError: no such layer"),
    ],
)
def test_what_a_model_answers_is_checked(project, how, told):
    project.did("add-model", "faulty", "--set", f"how={how}", "--set", "at=b22_02")
    done = project.do("predict", "--split", "test")
    assert told in done.err
    assert "faulty" in done.err
    if how == "load":
        assert done.code == 1
    else:
        assert done.code == 3
        assert done.err.startswith("failed: b22_02 (faulty, test): ")
        assert open_store(project.store("faulty", "test")).missing() == ["b22_02"]
    assert project.do("blend", "-o", project.root / "out.csv").code == 1
    assert not (project.root / "out.csv").exists()
