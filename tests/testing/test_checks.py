from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from carvana_ens.errors import PluginError
from carvana_ens.model import FitResult, Model, option
from carvana_ens.testing.checks import CHECKS, check_answers, check_fit, check_import, fit_drawn
from carvana_ens.testing.trial import difference
from carvana_ens.types import Size

FAST = [check for check in CHECKS if check is not check_import]


def first_fault(model_class, options=None):
    """The first check that fails, and its line."""
    for check in FAST:
        try:
            check(model_class, options or {})
        except PluginError as error:
            return check.__name__, str(error)
    return None, ""


def assert_fault(model_class, check, words, options=None):
    found, line = first_fault(model_class, options)
    assert found == check, line
    assert re.search(words, line), line
    assert line.startswith(f"model {model_class.__name__}: ")
    assert "\n" not in line


@pytest.mark.parametrize("name", ["Bright", "Logits", "Group", "Trained"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_good_models_pass(tiny, name, check):
    check(getattr(tiny, name), {})


def test_options_reach_the_model(tiny):
    assert first_fault(tiny.Bright, {"slope": 3.0, "invert": True}) == (None, "")
    assert_fault(tiny.Bright, "check_options", "did you mean 'slope'", {"sloppe": 3.0})


# ---- answers


def planted(tiny, change):
    """Bright, its maps changed after the fact."""

    class Planted(tiny.Bright):
        def predict(self, batch):
            return change(super().predict(batch), batch)

    return Planted


def with_nan(maps, batch):
    maps[-1, 3, 4] = np.nan
    return maps


def stretched(maps, batch):
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):
        return (maps - low) / (high - low)


def blacken(maps, batch):
    batch.images[...] = 0
    return maps


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda maps, batch: maps[:, None], r"shape \(1, 1, 64, 96\) .*give \(1, 64, 96\)"),
        (lambda maps, batch: maps.transpose(0, 2, 1), r"shape \(1, 96, 64\)"),
        (lambda maps, batch: maps[0], r"shape \(64, 96\)"),
        (lambda maps, batch: maps[:1], r"shape \(1, 64, 96\) for 3 photos"),
        (lambda maps, batch: maps[:, : maps.shape[1] // 4 * 4], r"shape \(1, 36, 53\) for 1 photo of 37x53"),
        (lambda maps, batch: maps.astype(np.float64), "float64 .*give float32"),
        (lambda maps, batch: (maps * 255).astype(np.uint8), "uint8 .*give float32"),
        (lambda maps, batch: maps.tolist(), "list .*give a numpy array"),
        (with_nan, "NaN or infinity .*in the map of c00_00"),
        (stretched, "NaN or infinity .*in the map of blank_01"),
        (lambda maps, batch: 3 * maps - 1, r"in \[0, 1\]; logits need output"),
        (lambda maps, batch: maps + np.float32(1e-3), r"to 1\.001"),
        (blacken, "changes the photos"),
        (lambda maps, batch: 1 // 0, "predict for 1 photo of 64x96 raised ZeroDivisionError"),
    ],
)
def test_answers_of_a_wrong_form(tiny, change, words):
    assert_fault(planted(tiny, change), "check_answers", words)


def test_logits_may_lie_anywhere(tiny):
    class Probabilities(tiny.Logits):
        output = "probabilities"

    assert_fault(Probabilities, "check_answers", "logits need output")


def test_an_error_of_the_plugin_stays_visible(tiny):
    with pytest.raises(PluginError) as caught:
        check_answers(planted(tiny, lambda maps, batch: 1 // 0), {})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_sides_of_a_member_are_those_of_the_photos(tiny):
    class Strict(tiny.Logits):
        def predict(self, batch):
            assert batch.images.shape[1:3] == self.config.size
            return super().predict(batch)

    assert first_fault(Strict) == (None, "")


# ---- repeats


def test_a_model_that_draws_is_not_repeatable(tiny):
    rng = np.random.default_rng(0)
    assert_fault(
        planted(tiny, lambda maps, batch: rng.random(maps.shape, dtype=np.float32)),
        "check_repeats",
        "called again, after other photos, differs by up to 0",
    )


def test_a_model_that_remembers_is_not_repeatable(tiny):
    class Running(tiny.Bright):
        def load(self, checkpoint, device):
            self.mean = 0.5

        def predict(self, batch):
            self.mean = np.float32(0.9 * self.mean + 0.1 * batch.images.mean() / 255)
            return np.clip(super().predict(batch) - self.mean, 0, 1)

    assert_fault(Running, "check_repeats", "called again")


def test_instances_loaded_alike_must_agree(tiny):
    class Unseeded(tiny.Bright):
        count = 0

        def load(self, checkpoint, device):
            type(self).count += 1
            self.factor = np.float32(1 / type(self).count)

        def predict(self, batch):
            return super().predict(batch) * self.factor

    assert_fault(Unseeded, "check_repeats", "of another instance, loaded alike, .*config.seed")


def test_one_float_rounding_is_no_difference():
    maps = np.linspace(-8, 5, 1000, dtype=np.float32).reshape(1, 20, 50)
    assert difference(np.nextafter(maps, np.float32(np.inf)), maps) is None
    flat = np.full((1, 4, 4), 3, np.float32)
    assert difference(flat * np.float32(1 + 3e-6), flat) is None
    assert difference(flat * np.float32(1.001), flat) == pytest.approx(0.003, rel=1e-3)
    near = maps.copy()
    near[0, 3, 3] += 0.05  # one pixel in a thousand, by a code
    assert difference(near, maps) == pytest.approx(0.05, rel=1e-3)


# ---- independence


@pytest.mark.parametrize(
    "change",
    [
        lambda maps, batch: np.clip(maps - maps.mean() + np.float32(0.5), 0, 1),
        lambda maps, batch: maps / max(maps.max(), np.float32(1e-3)),
    ],
)
def test_maps_that_depend_on_neighbours(tiny, change):
    assert_fault(planted(tiny, change), "check_independence", "when it is alone in its batch")


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ("Bright", lambda maps: np.roll(maps, 1, 0) if len(maps) == 3 else maps),
        ("Bright", lambda maps: np.sort(maps, axis=0)),
        ("Group", lambda maps: np.roll(maps, 1, 0)),
        ("Group", lambda maps: maps[::-1]),
        ("Group", lambda maps: maps[np.argsort(maps.mean((1, 2)))]),
        ("Group", lambda maps: np.minimum(maps, np.linspace(1, 0.5, len(maps), dtype=np.float32)[:, None, None])),
    ],
)
def test_maps_that_depend_on_places(tiny, base, change):
    class Mixed(getattr(tiny, base)):
        def predict(self, batch):
            return change(super().predict(batch))

    assert_fault(Mixed, "check_independence", "change places")


def test_a_group_model_may_look_at_all_views(tiny):
    class AsImages(tiny.Group):
        context = "image"

    assert_fault(AsImages, "check_independence", "or set context = 'group'")


# ---- predict_all


def writing(tiny, write):
    class Writing(tiny.Bright):
        def predict_all(self, batches, writer):
            write(self, batches, writer)

    return Writing


def drop_the_last(model, batches, writer):
    pairs = [(i, m) for batch in batches for i, m in zip(batch.ids, model.predict(batch), strict=True)]
    for image_id, values in pairs[:-1]:
        writer.write(image_id, values)


def write_twice(model, batches, writer):
    for batch in batches:
        for image_id, values in zip(batch.ids * 2, [*model.predict(batch)] * 2, strict=True):
            writer.write(image_id, values)


def write_names(model, batches, writer):
    for batch in batches:
        for image_id, values in zip(batch.ids, model.predict(batch), strict=True):
            writer.write(f"{image_id}.jpg", values)


def write_shifted(model, batches, writer):
    for batch in batches:
        for image_id, values in zip(batch.ids, model.predict(batch)[::-1], strict=True):
            writer.write(image_id, values)


def write_cropped(model, batches, writer):
    for batch in batches:
        for image_id, values in zip(batch.ids, model.predict(batch), strict=True):
            writer.write(image_id, values[:32])


def write_once(model, batches, writer):
    if not hasattr(model, "done"):
        model.done = True
        Model.predict_all(model, batches, writer)


def count_batches(model, batches, writer):
    assert len(batches) > 0


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (drop_the_last, "2 of 3 maps, none for c02_02"),
        (write_twice, "c00_00 twice"),
        (write_names, r"for 'c00_00\.jpg'"),
        (write_shifted, "c00_00 that differs by up to"),
        (write_cropped, r"shape \(32, 96\) for c00_00: its grid is \(64, 96\)"),
        (write_once, "0 of 2 maps"),
        (count_batches, "raised TypeError"),
    ],
)
def test_maps_that_are_not_written_as_they_should(tiny, write, words):
    assert_fault(writing(tiny, write), "check_predict_all", words)


def test_maps_may_be_written_in_any_order(tiny):
    def backwards(model, batches, writer):
        for batch in reversed([*batches]):
            for image_id, values in reversed([*zip(batch.ids, model.predict(batch), strict=True)]):
                writer.write(image_id, values)

    assert first_fault(writing(tiny, backwards)) == (None, "")


# ---- class attributes, options, configuration, parameters


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"output": "sigmoid"}, "output is 'sigmoid': set it to 'probabilities' or 'logits'"),
        ({"context": "car"}, "context is 'car'"),
        ({"trainable": 1}, "trainable is 1"),
        ({"size": (64, 96)}, r"size is \(64, 96\): set it to None or a carvana_ens\.Size"),
        ({"size": Size(64, 0)}, "size is "),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"predict": Model.predict}, "predict is missing"),
        ({"trainable": True}, "fit is missing"),
    ],
)
def test_class_attributes_that_the_host_does_not_know(tiny, attributes, words):
    assert_fault(type("Planted", (tiny.Bright,), attributes), "check_class", words)


def test_what_is_no_model(tiny):
    assert_fault(type("Other", (), {}), "check_class", "not derived from carvana_ens.Model")


@dataclass
class Mutable:
    slope: float = option(1.0, "steepness")


@dataclass(frozen=True)
class WithoutDefault:
    slope: float = field(metadata={"help": "steepness"})


@dataclass(frozen=True)
class WithoutHelp:
    slope: float = 1.0


@dataclass(frozen=True)
class TwoLines:
    slope: float = option(1.0, "steepness\nof the map")


@dataclass(frozen=True)
class WithPath:
    file: Path = option(Path("a"), "file")  # noqa: RUF009


@dataclass(frozen=True)
class WithList:
    widths: list = field(default_factory=lambda: [1, 2], metadata={"help": "widths"})


@dataclass(frozen=True)
class WholeForFloat:
    slope: float = option(1, "steepness")


@dataclass(frozen=True)
class Infinite:
    slope: float = option(float("inf"), "steepness")


@dataclass(frozen=True)
class OutsideItsChoices:
    channel: Literal["red", "green"] = option("blue", "channel")


@dataclass(frozen=True)
class Refusing:
    slope: float = option(0.0, "steepness")

    def __post_init__(self):
        if self.slope <= 0:
            raise ValueError("option slope must be above 0")


@dataclass(frozen=True)
class Rounding:
    slope: float = option(0.25, "steepness")

    def __post_init__(self):
        object.__setattr__(self, "slope", self.slope / 2)


@dataclass(frozen=True, eq=False)
class Unequal:
    slope: float = option(1.0, "steepness")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict, "no dataclass"),
        (Mutable, r"Mutable can be changed once made: .*frozen=True"),
        (WithoutDefault, "slope has no default"),
        (WithoutHelp, "slope has the help None"),
        (TwoLines, "one line"),
        (WithPath, "file is a Path"),
        (WithList, "widths is a list"),
        (WholeForFloat, "default 1, which is no float"),
        (Infinite, "finite"),
        (OutsideItsChoices, "default 'blue'"),
        (Refusing, "slope must be above 0"),
        (Rounding, r"becomes 0\.0625 when it is set to 0\.125"),
    ],
)
def test_options_that_cannot_be_shown_or_stored(tiny, options, words):
    assert_fault(type("Planted", (tiny.Logits,), {"Options": options}), "check_options", words)


def test_options_added_without_the_decorator(tiny):
    class More(tiny.Options):
        sharpness: float = option(1.0, "forgotten")

    assert_fault(type("Planted", (tiny.Bright,), {"Options": More}), "check_options", "More adds options undecorated")


def test_options_that_are_never_equal(tiny):
    assert_fault(type("Planted", (tiny.Logits,), {"Options": Unequal}), "check_config", "come back from JSON as")


def no_init(self, config):
    self.config, self.options = config, self.Options()


def other_config(self, config):
    Model.__init__(self, type(config)(name="mine", model="mine"))


def only_config(self, config):
    self.config = config


@pytest.mark.parametrize(
    ("init", "words"),
    [
        (no_init, "takes the unknown option 'no_such_option'"),
        (other_config, "not the config it was given"),
        (only_config, r"no \.options"),
        (lambda self, config: 1 // 0, r"Planted\(config\) raised ZeroDivisionError"),
    ],
)
def test_models_that_lose_their_config(tiny, init, words):
    assert_fault(type("Planted", (tiny.Bright,), {"__init__": init}), "check_config", words)


@pytest.mark.parametrize(("count", "words"), [(3, "not trainable"), (0.0, "whole number"), (None, "gives None")])
def test_parameters_that_are_no_count(tiny, count, words):
    model = type("Planted", (tiny.Bright,), {"count_parameters": lambda self: count})
    assert_fault(model, "check_parameters", words)


# ---- import


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes modules that the check's own process can import; gives a class that says it comes from the last one."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        return type("Planted", (Model,), {"__module__": name})

    return write


def test_a_module_without_a_framework_passes(module):
    check_import(module(planted_light="import json\n"), {})


@pytest.mark.parametrize("framework", ["torch", "tensorflow", "jax"])
def test_a_plain_model_that_imports_its_framework_at_once(module, framework):
    model = module(**{framework: "", "planted_heavy": f"import {framework}\n"})
    with pytest.raises(PluginError, match=f"import planted_heavy imports {framework}: import it inside load"):
        check_import(model, {})


def test_a_torch_model_may_import_torch(module):
    torch_model = type("TorchModel", (Model,), {"__module__": "carvana_ens.learn.torch_model"})
    planted = module(torch="", planted_torch="import torch\n")
    check_import(type("Planted", (planted, torch_model), {"__module__": "planted_torch"}), {})


def test_a_module_that_cannot_be_imported_anew(module):
    model = module(planted_broken="import no_such_module_at_all\n")
    with pytest.raises(PluginError, match="No module named 'no_such_module_at_all'"):
        check_import(model, {})


def test_a_module_that_is_imported_by_listing(module):
    names = ("EntryPoint", "Distribution", "CaseSensitiveConfigParser", "BadEntryPoint")
    source = "import planted_early\ndef get_group_all(group, path=None): return []\n"
    source += "".join(f"class {name}(Exception): ...\n" for name in names)
    with pytest.raises(PluginError, match="listing the models imports planted_early"):
        check_import(module(entrypoints=source, planted_early=""), {})


# ---- fit


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
        (half, "fit raised FileExistsError"),
        (forgetful, "another digest"),
        (lambda self, task: 1 // 0, "fit, stopped at its first report, raised ZeroDivisionError"),
    ],
)
def test_training_that_the_host_cannot_use(tiny, fit, words):
    assert_fault(fitting(tiny, fit), "check_fit", words)


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
    assert_fault(model, "check_fit", r"dice=0\.3.* after .*dice=0\.2")


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
    assert starts == [0, 1, 3, 3]  # stopped after an epoch, gone on, asked again, asked for another task


def test_loading_that_fails_names_the_checkpoint(tiny):
    class Unloadable(tiny.Trained):
        def load(self, checkpoint, device):
            raise OSError("no such format")

    assert_fault(Unloadable, "check_answers", r"load\(fit\.json, 'cpu'\) raised OSError: no such format")


def test_a_given_checkpoint_is_used_instead_of_training(tiny, tmp_path):
    class Untrainable(tiny.Trained):
        def fit(self, task):
            raise RuntimeError("no training here")

    (tmp_path / "mine.json").write_text('{"middle": 0.4}')
    check_answers(Untrainable, {}, tmp_path / "mine.json")
    with pytest.raises(PluginError, match="no training here"):
        check_answers(Untrainable, {})
