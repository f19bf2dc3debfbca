"""Stores whose models saw what they are to be scored on are refused, with the ids."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from carvana_ens.data.folds import NEVER, FoldTable, make_folds, read_folds
from carvana_ens.data.ids import groups as groups_by
from carvana_ens.ensemble.leaks import leaks, refuse_leaks
from carvana_ens.errors import StoreError
from carvana_ens.store.schema import PENDING, Provenance
from carvana_ens.store.store import open_store

IDS = [f"{car}_{view:02d}" for car in "abcdefg" for view in (1, 2, 3)]
CARS = groups_by(IDS)
PHOTOS = groups_by(IDS, "(.*)")
TABLE = make_folds("default", {car: number for number, car in enumerate("abcdefg")}, 3)
TABLES = {"default": TABLE}


def provenance(table=TABLE, **said):
    fold_table = {"name": table.name, "digest": table.digest}
    checkpoints = {str(fold): f"{fold:064x}" for fold in range(table.folds)}
    given = {"seen": "fold table", "fold_table": fold_table, "checkpoints": checkpoints, "split": "oof", **said}
    return Provenance(member={"name": "m"}, **given)


@pytest.mark.parametrize(
    "said",
    [
        provenance(),
        provenance(seen="none", fold_table=None, checkpoints={}),
        provenance(seen="declared out-of-fold", fold_table=None, checkpoints={"": "ab"}),
        provenance(seen="declared out-of-fold", fold_table=None, checkpoints={}),
    ],
)
def test_maps_of_models_that_saw_nothing_of_them_pass(said):
    assert leaks(said, IDS, CARS, TABLES) == {}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"seen": "unknown"}, "nobody says that the model behind these maps had not seen the photos"),
        ({"seen": "some later word"}, "nobody says"),
        ({"seen": "none"}, "no model was trained, yet it names checkpoints"),
        ({"fold_table": None}, "names no fold table"),
        ({"fold_table": {}}, "fold table 'None', which is gone"),
        ({"fold_table": {"name": "seven", "digest": "x"}}, "fold table 'seven', which is gone"),
        ({"fold_table": {"name": "default", "digest": "x"}}, "another fold table 'default' than there is now"),
        ({"split": "extra"}, "mean over all fold models, of which 2 were trained on their group"),
    ],
)
def test_what_makes_all_maps_doubtful(said, reason):
    found = leaks(provenance(**said), IDS, CARS, TABLES)
    assert list(found) == IDS
    assert all(reason in why for why in found.values())


def test_a_group_dealt_to_another_fold_since_is_another_table():
    moved = dataclasses.replace(TABLE, assignment={**TABLE.assignment, "a": (TABLE.assignment["a"] + 1) % 3})
    assert list(leaks(provenance(), IDS[:4], CARS, {"default": moved})) == IDS[:4]


def test_groups_that_every_model_was_trained_on():
    table = make_folds("default", {car: number for number, car in enumerate("abcdefg")}, 1, 0.3)
    never = [i for i in IDS if table.assignment[CARS[i]] == NEVER]
    assert 0 < len(never) < len(IDS)
    for split in ("oof", "extra"):  # the one model of a hold-out makes no mean
        found = leaks(provenance(table, split=split), IDS, CARS, {"default": table})
        assert list(found) == never
        assert all("never holds their group out" in why for why in found.values())


def test_a_fold_without_checkpoint():
    lost = [i for i in IDS if TABLE.assignment[CARS[i]] == 1]
    for checkpoints in ({"0": "a", "2": "c"}, {"0": "a", "1": PENDING, "2": "c"}):
        assert list(leaks(provenance(checkpoints=checkpoints), IDS, CARS, TABLES)) == lost


def test_photos_of_a_group_that_the_table_does_not_know():
    found = leaks(provenance(), [*IDS, "new_01"], {**CARS, "new_01": "new"}, TABLES)
    assert list(found) == ["new_01"]
    assert "does not know their group" in found["new_01"]


def test_a_table_made_photo_by_photo_splits_the_cars():
    folds = dict(zip(IDS, [0, 0, 0, 1, 1, 1, 0, 1, 2, 2, 2, 2, 0, 0, NEVER, 1, 2, 1, 2, 2, 2], strict=True))
    table = FoldTable("default", 3, None, 0, folds)
    split = [i for i in IDS if len({folds[j] for j in IDS if CARS[j] == CARS[i]}) > 1]
    assert [*dict.fromkeys(CARS[i] for i in split)] == ["c", "e", "f"]
    found = leaks(provenance(table), IDS, CARS, {"default": table}, PHOTOS)
    assert list(found) == split
    assert "never holds" in found["e_03"]
    assert all("another group pattern" in why for i, why in found.items() if i != "e_03")
    assert list(leaks(provenance(table), IDS, PHOTOS, {"default": table})) == ["e_03"]
    # other photos of the car count although they are not scored
    assert list(leaks(provenance(table), ["a_01", "c_01"], CARS, {"default": table}, PHOTOS)) == ["c_01"]


def test_a_planted_leak_is_refused_with_its_ids(store):
    maps = {image_id: np.zeros((2, 3), np.uint8) for image_id in IDS}
    said = {name: getattr(provenance(), name) for name in ("seen", "fold_table", "checkpoints")}
    good, bad = store("good", maps, **said), store("bad", maps, **{**said, "checkpoints": {"0": "a", "1": "b"}})
    refuse_leaks({"good": good}, IDS, CARS, TABLES)
    lost = [i for i in IDS if TABLE.assignment[CARS[i]] == 2]
    first = ", ".join(map(repr, lost[:5]))
    with pytest.raises(StoreError, match=rf"bad\.zarr: {len(lost)} of 21 maps of second .*, {first}, \.\.\.: .*fold 2"):
        refuse_leaks({"first": good, "second": bad}, IDS, CARS, TABLES)
    kept = [i for i in IDS if i not in lost]
    refuse_leaks({"first": good, "second": bad}, kept, CARS, TABLES)
    with pytest.raises(StoreError, match=r"1 of 15 maps of first .*, 'a_01': .*does not know"):
        refuse_leaks({"first": good}, kept, {**CARS, "a_01": "z"}, TABLES)


def test_stores_of_a_project(project, oracle):
    project.did("add-model", "learned-cut")
    project.did("train")
    project.did("predict", "--split", "oof")
    project.did("predict", "--split", "again", "--images", project.images)
    file = project.cars / "folds" / "default.json"
    stores = {split: {"m": open_store(project.store("learned-cut", split))} for split in ("oof", "again")}
    cars = groups_by(oracle.TRAIN)
    refuse_leaks(stores["oof"], oracle.TRAIN, cars, {"default": read_folds(file)})
    with pytest.raises(StoreError, match=r"again\.zarr: 8 of 8 maps of m .*split 'again' are the mean over all fold"):
        refuse_leaks(stores["again"], oracle.TRAIN, cars, {"default": read_folds(file)})
    file.write_text(json.dumps(make_folds("default", dict.fromkeys(set(cars.values()), 1), 2, seed=3).to_json()))
    with pytest.raises(StoreError, match=r"oof\.zarr: 8 of 8 .*another fold table 'default' than there is now"):
        refuse_leaks(stores["oof"], oracle.TRAIN, cars, {"default": read_folds(file)})
