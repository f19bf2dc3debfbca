"""What predict sends to workers, run in this process: which photos go together, and what comes back."""

from __future__ import annotations

import dataclasses
import shutil
import zlib

import numpy as np
import pytest

from carvana_ens import open_store
from carvana_ens.data.images import ImageFolder
from carvana_ens.engine.tasks import DIED
from carvana_ens.errors import CarvanaEnsError, StoreError, TrainingError
from carvana_ens.learn.units import Meter
from carvana_ens.project import Project
from carvana_ens.store.schema import Provenance
from carvana_ens.store.writer import StoreWriter
from carvana_ens.verbs import predict_tasks
from carvana_ens.verbs.member_maps import How
from carvana_ens.verbs.predict_tasks import HOPELESS, TASK, job_of, orders_of, predict_on, predict_order, task_size


@pytest.fixture
def sent(project):
    """(member) -> job, ids and writer, which is at work until the test ends."""
    writers = []

    def send(member, model, *options):
        project.did("add-model", model, "--name", member, *options)
        opened = Project(project.cars)
        photos = ImageFolder(project.test)
        config = opened.member(member)
        here = Provenance(member=config.to_json(), split="test", seen="none")
        sizes = [photos.size(image_id) for image_id in photos.ids]
        path = opened.store_path(member, "test")
        writers.append(StoreWriter(path, photos.ids, sizes, here).__enter__())
        return job_of(opened, config, "test", photos, [None], How("cpu", "uint8"), writers[-1]), photos.ids, writers[-1]

    yield send
    for writer in writers:
        writer.__exit__(None, None, None)


def cars(ids):
    return {image_id: image_id.partition("_")[0] for image_id in ids}


def test_units_are_those_of_all_photos_whatever_is_missing(sent):
    job, _, _ = sent("cut", "bright-cut")
    ids = [f"c{number // 16}_{number % 16:02d}" for number in range(100)]
    every = list(orders_of(job, ids, cars(ids), frozenset(ids)))
    assert [image_id for order in every for unit in order.units for image_id in unit] == ids
    assert [sum(map(len, order.units)) for order in every] == [TASK, TASK, TASK, 4]
    assert all(len(unit) == 8 for order in every[:3] for unit in order.units)
    few = list(orders_of(job, ids, cars(ids), frozenset(ids[17:19] + ids[90:91])))
    assert [[*order.units[0], *order.units[-1]] for order in few] == [ids[:8] + ids[24:32], ids[64:72] + ids[88:96]]
    assert {image_id for order in few for image_id in order.wanted} == {ids[17], ids[18], ids[90]}
    assert list(orders_of(job, ids, cars(ids), frozenset())) == []
    group, _, _ = sent("views", "group-cut")
    views = [unit for order in orders_of(group, ids, cars(ids), frozenset(ids[40:41])) for unit in order.units]
    assert views == [tuple(ids[32:48])]


@pytest.mark.parametrize(
    ("photos", "workers", "task"), [(10, 3, 32), (1000, 3, 41), (1000, 0, 125), (100_064, 16, 128)]
)
def test_tasks_are_larger_where_there_is_much_to_do_and_units_stay_the_same(sent, photos, workers, task):
    assert task_size(photos, workers) == task
    job, _, _ = sent("cut", "bright-cut")
    ids = [f"c_{number:03d}" for number in range(300)]
    orders = list(orders_of(job, ids, cars(ids), frozenset(ids), task))
    assert task - TASK < max(sum(map(len, order.units)) for order in orders) <= task
    assert [unit for order in orders for unit in order.units] == [
        tuple(ids[start : start + 8]) for block in range(0, 300, 32) for start in range(block, min(block + 32, 300), 8)
    ]


def test_a_token_has_the_checksums_of_what_was_written(sent):
    job, ids, writer = sent("cut", "bright-cut")
    (order,) = orders_of(job, ids, cars(ids), frozenset(ids[1:4]))
    token = predict_order(order)
    assert token.failed == ()
    assert [image_id for image_id, _ in token.checksums] == list(ids[1:4])
    assert open_store(job.store).missing() == list(ids)  # the writer has not recorded them yet
    writer.record(token.checksums)
    store = open_store(job.store)
    assert store.missing() == [ids[0], *ids[4:]]
    assert [zlib.crc32(store.read(image_id).tobytes()) for image_id in ids[1:4]] == [c for _, c in token.checksums]


@pytest.mark.parametrize("model", ["faulty", "group-cut"])
def test_photos_that_fail_are_told_from_their_neighbours(sent, project, model):
    job, ids, _ = sent("m", model)
    broken = project.test / f"{ids[2]}.jpg"
    broken.write_bytes(broken.read_bytes()[:-600])
    (order,) = orders_of(job, ids, cars(ids), frozenset(ids))
    token = predict_order(order)
    bad = [ids[2]] if model == "faulty" else list(ids[:3])  # a model of groups needs all views
    assert sorted(image_id for image_id, _ in token.failed) == bad
    assert all(str(broken) in reason for _, reason in token.failed)
    assert sorted(image_id for image_id, _ in token.checksums) == [i for i in ids if i not in bad]


def test_what_no_photo_is_to_blame_for(sent, project):
    job, ids, writer = sent("cut", "bright-cut")
    (order,) = orders_of(job, ids, cars(ids), frozenset(ids))
    elsewhere = dataclasses.replace(job, key="another", photos=job.photos.with_name("gone"))
    with pytest.raises(CarvanaEnsError, match=r"a worker on \S+ does not see what this process sees: .*gone"):
        predict_order(dataclasses.replace(order, job=elsewhere))
    writer.__exit__(None, None, None)
    with pytest.raises(StoreError, match="not being written by the process that sent this work"):
        predict_order(order)
    writer.__enter__()
    shutil.rmtree(job.store)
    with pytest.raises(CarvanaEnsError, match="does not see what this process sees"):
        predict_order(dataclasses.replace(order, job=dataclasses.replace(job, key="a third")))


def test_a_member_that_never_succeeds_is_to_blame(sent, monkeypatch):
    job, ids, writer = sent("m", "bright-cut")
    asked = []

    def dying(cluster, function, orders, parts):
        """Every photo ends its workers; those of the first order as soon as it is cut into parts."""
        for order in orders:
            for part in parts(order):
                asked.append(part)
                yield part, DIED

    monkeypatch.setattr(predict_tasks, "unordered", dying)
    orders = list(orders_of(job, ids, cars(ids), frozenset(ids)))
    there = type("Cluster", (), {"limit": 5.0})()
    reason = "predicting it ends every worker: a crash, or 5 s without a map"
    assert list(predict_on(there, orders, writer, Meter(), print)) == [(image_id, reason) for image_id in ids]
    assert [part.units for part in asked] == [((image_id,),) for image_id in ids]
    with pytest.raises(TrainingError, match=f"{HOPELESS} photos were tried and none could be predicted, .*: {reason}"):
        list(predict_on(there, orders * HOPELESS, writer, Meter(), print))
    assert np.array_equal(writer.missing(), ids)
