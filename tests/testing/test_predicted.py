from __future__ import annotations

import numpy as np
import pytest

from carvana_ens.errors import PluginError
from carvana_ens.model import Model
from carvana_ens.testing.checks import check_answers
from carvana_ens.testing.trial import difference


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
    tiny.assert_fault(planted(tiny, change), "check_answers", words)


def test_logits_may_lie_anywhere(tiny):
    class Probabilities(tiny.Logits):
        output = "probabilities"

    tiny.assert_fault(Probabilities, "check_answers", "logits need output")


def test_an_error_of_the_plugin_stays_visible(tiny):
    with pytest.raises(PluginError) as caught:
        check_answers(planted(tiny, lambda maps, batch: 1 // 0), {})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_sides_of_a_member_are_those_of_the_photos(tiny):
    class Strict(tiny.Logits):
        def predict(self, batch):
            assert batch.images.shape[1:3] == self.config.size
            return super().predict(batch)

    assert tiny.first_fault(Strict) == (None, "")


# ---- repeats


def test_a_model_that_draws_is_not_repeatable(tiny):
    rng = np.random.default_rng(0)
    tiny.assert_fault(
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

    tiny.assert_fault(Running, "check_repeats", "called again")


def test_instances_loaded_alike_must_agree(tiny):
    class Unseeded(tiny.Bright):
        count = 0

        def load(self, checkpoint, device):
            type(self).count += 1
            self.factor = np.float32(1 / type(self).count)

        def predict(self, batch):
            return super().predict(batch) * self.factor

    tiny.assert_fault(Unseeded, "check_repeats", "of another instance, loaded alike, .*config.seed")


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
    tiny.assert_fault(planted(tiny, change), "check_independence", "when it is alone in its batch")


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

    tiny.assert_fault(Mixed, "check_independence", "change places")


def test_a_group_model_may_look_at_all_views(tiny):
    class AsImages(tiny.Group):
        context = "image"

    tiny.assert_fault(AsImages, "check_independence", "or set context = 'group'")


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
    tiny.assert_fault(writing(tiny, write), "check_predict_all", words)


def test_maps_may_be_written_in_any_order(tiny):
    def backwards(model, batches, writer):
        for batch in reversed([*batches]):
            for image_id, values in reversed([*zip(batch.ids, model.predict(batch), strict=True)]):
                writer.write(image_id, values)

    assert tiny.first_fault(writing(tiny, backwards)) == (None, "")
