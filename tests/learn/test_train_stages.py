"""Stages, what is best, when training stops, and exact resume with every option that has a memory."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from carvana_ens.learn.epochs import StageRun
from carvana_ens.learn.history import COLUMNS, WatchedTask, waited
from carvana_ens.learn.inference import predict_maps
from carvana_ens.learn.photos import Photos
from carvana_ens.learn.steps import Stepper
from carvana_ens.model import Batch
from carvana_ens.types import Size

ROOT = Path(__file__).parents[2]
CURRICULUM = "16x16 epochs=2 batch=4 rate=0.02; 24x32 epochs=1 schedule=constant; epochs=2 hflip=0"


class StoppedError(Exception):
    pass


def fit(tiny, folder, report=lambda numbers: None, model=None, **options):
    values = {"epochs": 4, "batch_size": 2, **options}
    return (model or tiny.TinyModel)(tiny.config(**values)).fit(tiny.task(folder, report))


def rows(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def measured(folder):
    """The history without what the clock says."""
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows(folder)]


def assert_same_end(a, b):
    one, two = load_file(a / "best.safetensors"), load_file(b / "best.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert measured(a) == measured(b)


@pytest.fixture
def seeing(tiny):
    """TinyModel that notes the grid of every batch it is trained on."""

    class Seeing(tiny.TinyModel):
        def build(self):
            network = super().build()
            note = lambda module, inputs: grids.append(tuple(inputs[0].shape)) if module.training else None  # noqa: E731
            network.body[0].register_forward_pre_hook(note)
            return network

    grids = []
    Seeing.grids = grids
    return Seeing


def test_each_stage_has_its_size_epochs_batch_and_rate(tiny, seeing, tmp_path):
    seen = []
    result = fit(tiny, tmp_path, seen.append, model=seeing, stages=CURRICULUM)
    assert [n["epoch"] for n in seen] == [1, 2, 3, 4, 5]
    assert {n["epochs"] for n in seen} == {5}
    assert result.epochs == 5
    first = [(4, 3, 16, 16), (3, 3, 16, 16)] * 2
    rest = [(2, 3, 24, 32)] * 3 + [(1, 3, 24, 32)]
    assert seeing.grids == first + rest * 3
    history = rows(tmp_path)
    assert [row["stage"] for row in history] == ["1", "1", "2", "3", "3"]
    assert [row["size"] for row in history] == ["16x16"] * 2 + ["24x32"] * 3
    assert float(history[1]["rate"]) == pytest.approx(0.02 / 250_000)  # the end of a cycle of its own
    assert float(history[2]["rate"]) == 0.03
    assert result.dice == max(float(row["dice"]) for row in history if row["stage"] == "3")


def test_a_stage_starts_from_the_best_parameters_of_the_one_before(tiny, tmp_path, monkeypatch):
    networks, started = [], []
    init = Stepper.__init__

    def spied(self, model, network, *rest):
        networks.append(network)
        started.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        init(self, model, network, *rest)

    dices = iter([0.4, 0.5, 0.3, 0.2, 0.1])

    def validated(self):
        best.append({name: tensor.clone() for name, tensor in networks[-1].state_dict().items()})
        return next(dices), 1.0

    best = []
    monkeypatch.setattr(Stepper, "__init__", spied)
    monkeypatch.setattr(StageRun, "validate", validated)
    result = fit(tiny, tmp_path, stages="epochs=3; 16x16 epochs=2")
    assert len(networks) == 2
    assert all(torch.equal(started[1][name], best[1][name]) for name in best[1])
    assert not torch.equal(started[1]["head.2.weight"], best[2]["head.2.weight"])
    assert result.dice == 0.2  # of the last stage, however good another was
    kept = load_file(result.checkpoint)
    assert all(torch.equal(kept[name], best[3][name]) for name in kept)


def test_a_member_predicts_at_the_size_of_its_last_stage(tiny, tmp_path):
    model = tiny.TinyModel(tiny.config(stages="16x16 epochs=1; 20x28 epochs=1"))
    assert model.size == Size(20, 28)
    assert tiny.TinyModel.size == Size(24, 32)
    result = model.fit(tiny.task(tmp_path))
    grids = []

    class Noting(tiny.TinyModel):
        def predict(self, batch):
            grids.append(batch.images.shape[1:3])
            return super().predict(batch)

    noting = Noting(model.config)
    noting.load(result.checkpoint, "cpu")
    memory = tiny.Memory(20, 1)
    photos = SimpleNamespace(read=memory.image, size=lambda image_id: Size(40, 50))
    ((_, probabilities),) = predict_maps([noting], photos, memory.ids, {memory.ids[0]: "g"}, ())
    assert probabilities.shape == (40, 50)
    assert grids == [(20, 28)]


def test_padded_members_are_trained_on_padded_photos(tiny, seeing, tmp_path):
    fit(tiny, tmp_path, model=seeing, epochs=1, pad="edge")
    assert {grid[2:] for grid in seeing.grids} == {(40, 52)}  # 40x50 to multiples of 4, nothing resized
    assert {row["size"] for row in rows(tmp_path)} == {"40x52"}


def test_the_best_by_loss_is_the_epoch_of_the_least_loss(tiny, tmp_path):
    result = fit(tiny, tmp_path, epochs=8, best_by="loss", rate=0.1)
    history = rows(tmp_path)
    losses = [float(row["valid_loss"]) for row in history]
    with safe_open(result.checkpoint, framework="pt") as file:
        epoch = int(file.metadata()["epoch"])
    assert losses[epoch - 1] == min(losses)
    assert result.dice == float(history[epoch - 1]["dice"])


def test_loss_and_dice_of_validation_are_those_of_the_checkpoint(tiny, tmp_path):
    options = {"epochs": 2, "best_by": "loss", "dice_rim": 3}
    result = fit(tiny, tmp_path, **options)
    model = tiny.TinyModel(tiny.config(**options))
    model.load(result.checkpoint, "cpu")
    dices, losses = [], []
    for images, covers in Photos(tiny.Memory(20, 4), Size(24, 32)).batches([[0], [1], [2], [3]]):
        logits = model.predict(Batch(images.permute(0, 2, 3, 1).numpy(), ("a",), ("a",)))[0].astype(np.float64)
        t = covers[0, 0].numpy() / 255.0
        p = 1 / (1 + np.exp(-logits))
        bce = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
        losses.append(bce + 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
        inner = (slice(3, -3), slice(3, -3))
        cut, truth = logits[inner] >= 0, t[inner] >= 0.5
        dices.append(2 * (cut & truth).sum() / (cut.sum() + truth.sum()))
    best = min(rows(tmp_path), key=lambda row: float(row["valid_loss"]))
    assert float(best["valid_loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(best["dice"]) == pytest.approx(np.mean(dices), abs=1e-6)


def test_patience_ends_a_stage_and_the_next_one_begins(tiny, tmp_path):
    seen = []
    still = "schedule=constant rate=1e-12 epochs=9; epochs=2"
    fit(tiny, tmp_path, seen.append, stages=still, patience=2, min_delta=0.5, best_by="loss")
    stages = [row["stage"] for row in rows(tmp_path)]
    assert stages == ["1"] * 3 + ["2"] * 2
    assert [n["epochs"] for n in seen] == [11] * 3 + [5] * 2


@pytest.mark.parametrize(
    ("values", "delta", "since"),
    [
        ([], 0.0, 0),
        ([0.5], 0.0, 0),
        ([0.5, 0.4, 0.3], 0.0, 2),
        ([0.5, 0.5], 0.0, 1),
        ([0.5, 0.6, 0.7], 0.0, 0),
        ([0.5, 0.55, 0.58, 0.61], 0.1, 0),  # each a little, together more than delta
        ([0.5, 0.55, 0.58, 0.59], 0.1, 3),
        ([-0.5, -0.2, -0.3], 0.1, 1),
    ],
)
def test_validations_waited_for(values, delta, since):
    assert waited(values, delta) == since


def test_the_history_has_a_row_an_epoch(tiny, tmp_path):
    seen = []
    fit(tiny, tmp_path, seen.append, epochs=3, valid_every=2)
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header.startswith("epoch,loss,dice,rate,seconds,images_per_second")
    assert header == ",".join(COLUMNS)
    history = rows(tmp_path)
    assert (
        [row["dice"] == "" for row in history] == [row["valid_loss"] == "" for row in history] == [True, False, False]
    )
    for row, numbers in zip(history, seen, strict=True):
        assert float(row["loss"]) == numbers["loss"]
        assert float(row["images_per_second"]) == pytest.approx(numbers["images_per_second"], abs=1e-3)
        assert 7 / float(row["images_per_second"]) <= float(row["seconds"]) + 2e-3  # training is a part of the epoch


def test_a_watched_training_tells_of_every_step(tiny, tmp_path):
    steps, epochs = [], []
    task = tiny.task(tmp_path, epochs.append)
    watched = WatchedTask(**vars(task), watch=steps.append)
    tiny.TinyModel(tiny.config(epochs=2, batch_size=2)).fit(watched)
    assert [(s["epoch"], s["epochs"], s["step"], s["steps"]) for s in steps] == [
        (epoch, 2, step, 4) for epoch in (1, 2) for step in (1, 2, 3, 4)
    ]
    assert all(s["images_per_second"] > 0 and s["seconds_left"] >= 0 for s in steps)
    assert steps[-1]["seconds_left"] == 0
    assert ["dice" in s for s in steps] == [False] * 4 + [True] * 4
    assert steps[4]["dice"] == epochs[0]["dice"]


MEMORIES = {
    "adam reset": {"optimiser": "rmsprop", "reset": "1,3", "reset_to": "adam"},
    "sgd, average, collected": {"optimiser": "sgd", "ema": 0.8, "accumulate": 3, "accumulate_as": "sum"},
    "plateau": {"schedule": "plateau", "plateau_patience": 0, "plateau_delta": 0.5, "rate_decay": 0.1},
    "restarts, replay": {"schedule": "restarts", "cycle": 1, "cycle_growth": 2, "replay": 2, "clip_norm": 0.1},
    "stages": {"stages": "16x16 epochs=2 optimiser=sgd; 24x32 epochs=2 batch=3", "ema": 0.5},
    "bfloat16": {"precision": "bfloat16", "schedule": "cyclic", "cycle": 2},
}


@pytest.mark.parametrize("options", MEMORIES.values(), ids=MEMORIES)
def test_stopped_after_every_epoch_it_ends_as_the_uninterrupted_one(tiny, tmp_path, options):
    whole = fit(tiny, tmp_path / "whole", **options)

    def stop(numbers):
        if numbers["epoch"] < 4:
            raise StoppedError

    for _ in range(3):
        with pytest.raises(StoppedError):
            fit(tiny, tmp_path / "cut", stop, **options)
    result = fit(tiny, tmp_path / "cut", stop, **options)
    assert (result.dice, result.epochs) == (whole.dice, whole.epochs) == (whole.dice, 4)
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
import tiny
from carvana_ens.learn.steps import Stepper

torch.set_num_threads(1)
folder, options = Path(sys.argv[2]), eval(sys.argv[3])
for moment in ("step", "before", "between", None):
    child = os.fork()  # torch is imported once for all of them, and no thread runs yet
    if child == 0:
        break
    _, status = os.waitpid(child, 0)
    print(moment, os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
    if moment is None:
        os._exit(0)
calls = []

def dying(function, name, when):
    def run(self, *rest):
        calls.append(name)
        if calls.count(name) == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(self, *rest)
    return run

if moment is None:
    os._exit(7)
elif moment == "step":  # in the middle of the second epoch
    Stepper.step = dying(Stepper.step, "step", 6)
else:
    replace = Path.replace
    def dying_replace(self, target):
        last = Path(target).name == "last.safetensors"
        calls.append(last)
        if moment == "before" and last and sum(calls) == 2:  # the new state is written, not yet in place
            os.kill(os.getpid(), signal.SIGKILL)
        done = replace(self, target)
        if moment == "between" and not last and folder.joinpath("best.safetensors") == Path(target):
            os.kill(os.getpid(), signal.SIGKILL)  # the best parameters are in place, the state that counts them not
        return done
    Path.replace = dying_replace
model = tiny.TinyModel(tiny.config(**options))
model.fit(tiny.task(folder))
os._exit(8)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_at_three_moments_it_ends_as_the_uninterrupted_one(tiny, tmp_path):
    options = {"epochs": 3, "batch_size": 2, "ema": 0.7, "stages": "16x16 epochs=2; epochs=3 optimiser=sgd"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "cut"), repr(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["step", "9", "before", "9", "between", "9", "None", "7"], done.stderr
    seen = []
    fit(tiny, tmp_path / "cut", seen.append, **options)
    assert 1 < seen[0]["epoch"] <= 5
    fit(tiny, tmp_path / "whole", **options)
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    assert not list((tmp_path / "cut").glob(".*.partial"))
