from __future__ import annotations

import json
import os

import numpy as np
import pytest

from carvana_ens.errors import PluginError
from carvana_ens.model import FitResult
from carvana_ens.testing.checks import check_answers, check_fit, fit_drawn


def fitting(tiny, fit):
    return type("Planted", (tiny.Trained,), {"fit": fit})


def outside(self, task):
    path = task.directory.parent / f"{os.getpid()}-planted.json"
    path.write_text(json.dumps({"middle": 0.5}))
    self.__class__.left.append(path)
    return FitResult(path, 0.5, 1)


def without_file(self, task):
    return FitResult(task.directory / "nothing.json", 0.5, 1)


def written(dice=0.5, epochs=1, text=None, look=True):
    def fit(self, task):
        if look:
            task.train.image(task.train.ids[0])
        path = task.directory / "fit.json"
        path.write_text(json.dumps({"middle": 0.5}) if text is None else text())
        return FitResult(path, dice, epochs)

    return fit


def reporting(numbers):
    def fit(self, task):
        task.report(numbers)
        return written()(self, task)

    return fit


def half(self, task):
    """Cannot go on from what a stopped run left."""
    begun = task.directory / "begun"
    begun.touch(exist_ok=False)
    task.report({"epoch": 1})
    begun.unlink()
    return written()(self, task)


def from_the_start(self, task):
    """Keeps what it has finished, but not how far it is."""
    path = task.directory / "fit.json"
    if not path.exists():
        for epoch in (1, 2, 3):
            task.report({"epoch": epoch})
    return written()(self, task)


def late(self, task):
    """Keeps its state after the report, not before."""
    path = task.directory / "at.json"
    for epoch in range(json.loads(path.read_text()) + 1 if path.exists() else 1, 4):
        task.report({"epoch": epoch})
        path.write_text(json.dumps(epoch))
    return written()(self, task)


def forgetful(self, task):
    path = task.directory / "fit.json"
    return FitResult(path, 0.5, 1) if path.exists() else written()(self, task)


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (without_file, r"checkpoint .*nothing\.json.*: write a file right in task\.directory"),
        (lambda self, task: None, "gives NoneType: give a carvana_ens.FitResult"),
        (written(dice=1.5), r"Dice 1\.5"),
        (written(dice=float("nan")), "Dice nan"),
        (written(dice=np.float32(0.5)), "Dice np.float32"),
        (written(epochs=1.0), r"gives 1\.0 epochs"),
        (written(text=lambda: json.dumps({"middle": 0.5, "salt": os.urandom(4).hex()})), "another checkpoint file"),
        (reporting([1, 2]), "reports .*'epoch'"),
        (reporting({"loss": 0.5}), "reports .*'epoch'"),
        (reporting({"epoch": 1, "loss": np.float32(1)}), "reports loss = "),
        (half, "fit, called again after a stop, raised FileExistsError"),
        (from_the_start, "fit, stopped in epoch 2, begins at epoch 1 when it is called again: keep its state"),
        (forgetful, "another digest"),
        (lambda self, task: 1 // 0, "fit, stopped at its first report, raised ZeroDivisionError"),
    ],
)
def test_training_that_the_host_cannot_use(tiny, fit, words):
    tiny.assert_fault(fitting(tiny, fit), "check_fit", words)


def test_a_checkpoint_outside_the_directory_is_refused(tiny, tmp_path):
    model = fitting(tiny, outside)
    model.left = []
    (tmp_path / "in").mkdir()
    with pytest.raises(PluginError, match=r"right in task\.directory"):
        fit_drawn(model, {}, tmp_path / "in")
    assert model.left[0].parent == tmp_path


def test_results_that_differ_each_time(tiny):
    dices = iter([0.1, 0.2, 0.3, 0.4])

    def fit(self, task):
        return written(dice=next(dices))(self, task)

    model = fitting(tiny, fit)
    tiny.assert_fault(model, "check_fit", r"dice=0\.3.* after .*dice=0\.2")


def test_the_directory_holds_the_finished_result_afterwards(tiny, tmp_path):
    folder = tmp_path / "fit"
    folder.mkdir()
    check_fit(tiny.Trained, {"steps": 3}, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]
    state = json.loads((folder / "fit.json").read_text())
    assert (state["digest"], len(state["middles"])) == ("drawn", 3)
    assert fit_drawn(tiny.Trained, {"steps": 3}, folder) == FitResult(folder / "fit.json", 0.5, 3)


def test_training_is_stopped_and_goes_on(tiny, tmp_path):
    starts = []

    class Watched(tiny.Trained):
        def fit(self, task):
            path = task.directory / "fit.json"
            starts.append(len(json.loads(path.read_text())["middles"]) if path.exists() else 0)
            return super().fit(task)

    check_fit(Watched, {"steps": 3})
    # stopped after an epoch, gone on for two, asked again, and again, asked for another task
    assert starts == [0, 1, 3, 3, 3]
    starts.clear()
    check_fit(Watched, {"steps": 4})
    assert starts == [0, 1, 3, 4, 4]


def test_state_may_be_kept_after_the_report(tiny, tmp_path):
    check_fit(fitting(tiny, late), {}, tmp_path)


def test_loading_that_fails_names_the_checkpoint(tiny):
    class Unloadable(tiny.Trained):
        def load(self, checkpoint, device):
            raise OSError("no such format")

    tiny.assert_fault(Unloadable, "check_answers", r"load\(fit\.json, 'cpu'\) raised OSError: no such format")


def test_a_given_checkpoint_is_used_instead_of_training(tiny, tmp_path):
    class Untrainable(tiny.Trained):
        def fit(self, task):
            raise RuntimeError("no training here")

    (tmp_path / "mine.json").write_text('{"middle": 0.4}')
    check_answers(Untrainable, {}, tmp_path / "mine.json")
    with pytest.raises(PluginError, match="no training here"):
        check_answers(Untrainable, {})
