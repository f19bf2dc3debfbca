from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from carvana_ens.errors import CarvanaEnsError, DataError, TrainingError, UsageError
from carvana_ens.learn import photos as photos_module
from carvana_ens.learn.photos import Photos
from carvana_ens.model import Batch
from carvana_ens.types import Size

ROOT = Path(__file__).parents[2]


class StoppedError(Exception):
    pass


def fit(tiny, folder, epochs=4, report=lambda numbers: None, options=None, **changes):
    model = tiny.TinyModel(tiny.config(epochs=epochs, batch_size=2, **(options or {})))
    return model.fit(tiny.task(folder, report, **changes))


def stop_after(epoch):
    def report(numbers):
        if numbers["epoch"] == epoch:
            raise StoppedError

    return report


def assert_same_state(a, b):
    for name in ("best.safetensors", "last.safetensors"):
        one, two = load_file(a / name), load_file(b / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    assert measured(a) == measured(b)


def measured(folder):
    """The history without what the clock says."""
    rows = csv.DictReader((folder / "history.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]


def test_training_learns_and_the_result_is_the_best_epoch(tiny, tmp_path):
    seen = []
    result = fit(tiny, tmp_path, epochs=12, report=seen.append)
    assert result.dice > 0.9
    assert result.epochs == 12
    assert [n["epoch"] for n in seen] == list(range(1, 13))
    assert {n["epochs"] for n in seen} == {12}
    assert result.dice == max(n["dice"] for n in seen)
    assert seen[-1]["loss"] < seen[0]["loss"] / 2
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [float(row["dice"]) for row in rows] == [n["dice"] for n in seen]
    with safe_open(result.checkpoint, framework="pt") as file:
        metadata = file.metadata()
    assert float(metadata["dice"]) == result.dice
    assert seen[int(metadata["epoch"]) - 1]["dice"] == result.dice


def test_the_reported_dice_is_that_of_the_checkpoint_on_the_networks_grid(tiny, tmp_path):
    result = fit(tiny, tmp_path, epochs=5)
    model = tiny.TinyModel(tiny.config(epochs=5, batch_size=2))
    model.load(result.checkpoint, "cpu")
    valid = tiny.Memory(20, 4)
    dices = []
    for images, covers in Photos(valid, Size(24, 32)).batches([[0], [1], [2], [3]]):
        p = model.predict(Batch(images.permute(0, 2, 3, 1).numpy(), ("a",), ("a",)))[0] >= 0
        t = covers[0, 0].numpy() >= 128
        dices.append(2 * (p & t).sum() / (p.sum() + t.sum()))
    assert result.dice == pytest.approx(np.mean(dices), abs=1e-6)


PLAIN = {"hflip": 0.0, "shift": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0, "repaint": 0.0}


def test_every_map_of_a_deeply_supervised_network_is_trained(tiny, tmp_path):
    class Net(tiny.Net):
        def __init__(self, channels):
            super().__init__(channels)
            self.body[3].p = 0.0  # no dropout, so that the step can be repeated by hand
            self.coarse = torch.nn.Conv2d(8, 1, 1)

        def forward(self, x):
            features = self.body(x)
            finest = self.head(features)
            return (finest, self.coarse(features)) if self.training else finest

    class Deep(tiny.TinyModel):
        def build(self):
            return Net(self.channels)

    model = Deep(tiny.config(epochs=1, batch_size=7, normalise="unit", **PLAIN))
    seen = []
    trained = load_file(model.fit(tiny.task(tmp_path, seen.append)).checkpoint)

    network = model.fresh_network(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images, covers = next(Photos(tiny.Memory(0, 7), Size(24, 32)).batches([range(7)]))
    maps = network.train()(images.float() / 255)
    target = covers.double() / 255
    half = torch.from_numpy(tiny.resized(target.numpy(), 12, 16))
    expected = 0.0
    for logits, truth in zip(maps, (target, half), strict=True):
        p = torch.sigmoid(logits.double())
        expected -= (truth * p.log() + (1 - truth) * (1 - p).log()).mean()
        both, areas = (p * truth).sum((1, 2, 3)), p.sum((1, 2, 3)) + truth.sum((1, 2, 3))
        expected += (1 - (2 * both + 1) / (areas + 1)).mean()
    assert seen[0]["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert not torch.equal(trained["coarse.weight"], before["coarse.weight"])


def test_the_same_seed_trains_the_same_network_and_another_does_not(tiny, tmp_path):
    torch.manual_seed(1)
    fit(tiny, tmp_path / "a", epochs=2)
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 - the global states must not matter
    before = torch.get_rng_state()
    fit(tiny, tmp_path / "b", epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    fit(tiny, tmp_path / "c", epochs=2, seed=4)
    assert_same_state(tmp_path / "a", tmp_path / "b")
    a, c = load_file(tmp_path / "a/best.safetensors"), load_file(tmp_path / "c/best.safetensors")
    assert not torch.equal(a["head.2.weight"], c["head.2.weight"])


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_stopped_after_an_epoch_ends_as_the_uninterrupted_one(tiny, tmp_path, epoch):
    whole = fit(tiny, tmp_path / "whole")
    with pytest.raises(StoppedError):
        fit(tiny, tmp_path / "cut", report=stop_after(epoch))
    seen = []
    result = fit(tiny, tmp_path / "cut", report=seen.append)
    assert [n["epoch"] for n in seen] == list(range(epoch + 1, 5))
    assert (result.dice, result.epochs) == (whole.dice, whole.epochs)
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


def test_a_run_interrupted_in_the_middle_of_an_epoch_ends_as_the_uninterrupted_one(tiny, tmp_path, monkeypatch):
    fit(tiny, tmp_path / "whole")
    monkeypatch.setattr(photos_module, "CACHE_BYTES", 0)

    class Interrupted(tiny.Memory):
        def image(self, image_id):
            if len(self.read) == 12:  # the second epoch's fifth photo
                raise KeyboardInterrupt
            return super().image(image_id)

    with pytest.raises(KeyboardInterrupt):
        fit(tiny, tmp_path / "cut", train=Interrupted(0, 7))
    seen = []
    fit(tiny, tmp_path / "cut", report=seen.append)
    assert [n["epoch"] for n in seen] == [2, 3, 4]
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("written", ["best.safetensors", "last.safetensors", "history.csv"])
def test_a_stop_before_any_file_takes_its_place_ends_as_the_uninterrupted_run(tiny, tmp_path, monkeypatch, written):
    fit(tiny, tmp_path / "whole")
    replace, calls = Path.replace, []

    def failing(self, target):
        if Path(target).name == written:
            calls.append(target)
            if len(calls) == 2:
                raise StoppedError
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(StoppedError):
            fit(tiny, tmp_path / "cut")
    fit(tiny, tmp_path / "cut")
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_run_ends_as_the_uninterrupted_one(tiny, tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("tiny.py")), str(tmp_path / "cut"), "12"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 3:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    torn = tmp_path / "cut/.last.safetensors.0123.partial"  # as a kill while it was being written leaves it
    torn.write_bytes(b"torn")
    seen = []
    fit(tiny, tmp_path / "cut", epochs=12, report=seen.append)
    assert 3 <= seen[0]["epoch"] <= 12
    assert not torn.exists()
    fit(tiny, tmp_path / "whole", epochs=12)
    assert_same_state(tmp_path / "whole", tmp_path / "cut")


def test_a_finished_run_is_answered_at_once_without_reading_a_photo(tiny, tmp_path):
    first = fit(tiny, tmp_path, epochs=2)
    train, valid = tiny.Memory(0, 7), tiny.Memory(20, 4)
    seen = []
    again = fit(tiny, tmp_path, epochs=2, train=train, valid=valid, report=seen.append)
    assert again == first
    assert train.read == valid.read == seen == []


def test_a_state_of_another_task_is_not_resumed(tiny, tmp_path):
    fit(tiny, tmp_path / "a", epochs=2, digest="old", seed=9)
    seen = []
    fit(tiny, tmp_path / "a", epochs=2, digest="new", report=seen.append)
    fit(tiny, tmp_path / "b", epochs=2, digest="new")
    assert [n["epoch"] for n in seen] == [1, 2]
    assert_same_state(tmp_path / "a", tmp_path / "b")


def test_a_state_whose_best_parameters_are_gone_is_not_resumed(tiny, tmp_path):
    result = fit(tiny, tmp_path, epochs=2)
    result.checkpoint.unlink()
    assert fit(tiny, tmp_path, epochs=2) == result
    assert result.checkpoint.exists()


def test_a_damaged_state_is_refused_by_name(tiny, tmp_path):
    fit(tiny, tmp_path, epochs=1)
    path = tmp_path / "last.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"last\.safetensors"):
        fit(tiny, tmp_path, epochs=1)


def test_patience_stops_early_and_stays_stopped(tiny, tmp_path):
    options = {"patience": 2, "rate": 1e-12}  # nothing is learnt, so nothing gets better
    seen = []
    result = fit(tiny, tmp_path, epochs=30, options=options, report=seen.append)
    best = [n["dice"] for n in seen].index(result.dice) + 1
    assert result.epochs == len(seen) == best + 2 < 30
    again = fit(tiny, tmp_path, epochs=30, options=options, report=seen.append)
    assert again == result
    assert len(seen) == result.epochs


def test_validation_runs_every_so_often_and_at_the_end(tiny, tmp_path):
    seen = []
    fit(tiny, tmp_path, epochs=5, options={"valid_every": 2}, report=seen.append)
    assert [n["epoch"] for n in seen if "dice" in n] == [2, 4, 5]
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [row["dice"] != "" for row in rows] == [False, True, False, True, True]


def test_photos_that_do_not_fit_in_memory_are_read_each_epoch_with_the_same_outcome(tiny, tmp_path, monkeypatch):
    train = tiny.Memory(0, 7)
    fit(tiny, tmp_path / "kept", epochs=2, train=train)
    assert sorted(train.read) == train.ids
    monkeypatch.setattr(photos_module, "CACHE_BYTES", 7 * 24 * 32 * 4 - 1)
    train = tiny.Memory(0, 7)
    fit(tiny, tmp_path / "read", epochs=2, train=train)
    assert sorted(train.read) == sorted(train.ids * 2)
    assert_same_state(tmp_path / "kept", tmp_path / "read")


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path):
    class Broken(tiny.TinyModel):
        def initialise(self, network):
            network.head[2].bias.data.fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1 .*rate"):
        Broken(tiny.config()).fit(tiny.task(tmp_path))


@pytest.mark.parametrize("part", ["train", "valid"])
def test_no_photos_are_an_error(tiny, tmp_path, part):
    with pytest.raises(TrainingError, match=f"no photos to {part}"):
        fit(tiny, tmp_path, **{part: tiny.Memory(0, 0)})


def test_a_mask_on_another_grid_than_its_photo_is_refused(tiny, tmp_path):
    class Odd(tiny.Memory):
        def mask(self, image_id):
            return super().mask(image_id)[:-1]

        def image(self, image_id):
            return np.zeros((*self.shape, 3), np.uint8)

    with pytest.raises(DataError, match=r"mask of disc0\d is 39x50, its photo 40x50"):
        fit(tiny, tmp_path, train=Odd(0, 3))


def test_a_model_without_input_size_trains_on_the_photos_grid_and_refuses_two_grids(tiny, tmp_path):
    class Own(tiny.TinyModel):
        size = None

    result = Own(tiny.config(epochs=1)).fit(tiny.task(tmp_path / "a"))
    assert result.epochs == 1

    class Mixed(tiny.Memory):
        def image(self, image_id):
            return np.zeros((30 if image_id == "disc22" else 40, 50, 3), np.uint8)

        def mask(self, image_id):
            return super().mask(image_id)[: 30 if image_id == "disc22" else 40]

    with pytest.raises(DataError, match="disc22 is 30x50, disc20 is 40x50"):
        Own(tiny.config(epochs=1)).fit(tiny.task(tmp_path / "b", valid=Mixed(20, 4)))


def test_parameters_that_are_frozen_stay_as_they_are(tiny, tmp_path):
    class Frozen(tiny.TinyModel):
        def build(self):
            network = super().build()
            network.body[0].requires_grad_(False)
            return network

    model = Frozen(tiny.config(epochs=2))
    before = model.fresh_network(3).state_dict()
    after = load_file(model.fit(tiny.task(tmp_path)).checkpoint)
    assert torch.equal(before["body.0.weight"], after["body.0.weight"])
    assert not torch.equal(before["head.2.weight"], after["head.2.weight"])


def test_an_unknown_device_is_refused_before_a_photo_is_read(tiny, tmp_path):
    train = tiny.Memory(0, 7)
    with pytest.raises(UsageError, match="device"):
        fit(tiny, tmp_path, train=train, device="abacus")
    assert train.read == []


def test_a_state_that_cannot_be_written_is_an_error_in_one_line(tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CarvanaEnsError, match="file cannot be written"):
        fit(tiny, tmp_path / "file")


def test_a_finished_run_keeps_no_moments_on_disk(tiny, tmp_path):
    with pytest.raises(StoppedError):
        fit(tiny, tmp_path, epochs=2, report=stop_after(1))
    assert any(name.startswith("optimiser.") for name in load_file(tmp_path / "last.safetensors"))
    fit(tiny, tmp_path, epochs=2)
    assert load_file(tmp_path / "last.safetensors") == {}
