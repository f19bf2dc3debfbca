from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from PIL import Image as Pillow

from carvana_ens.data.images import ImageFolder
from carvana_ens.errors import DataError, PluginError, TrainingError, UsageError
from carvana_ens.learn.array_maps import sigmoid
from carvana_ens.learn.inference import predict_codes, predict_maps
from carvana_ens.learn.recipe import TorchOptions
from carvana_ens.learn.units import UNIT
from carvana_ens.learn.views import views_of
from carvana_ens.model import Batch, MemberConfig, Model
from carvana_ens.types import Size


class Folder:
    def __init__(self, shapes):
        rng = np.random.default_rng(3)
        self.images = {name: rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for name, shape in shapes.items()}
        self.reads = []

    def read(self, image_id):
        self.reads.append(image_id)
        return self.images[image_id]

    def size(self, image_id):
        return Size(*self.images[image_id].shape[:2])


class Spy(Model):
    """Not flip-symmetric: each pixel's answer depends on where it lies. Keeps the batches it was given."""

    output = "logits"
    batch_size = 3
    factor = 1.0

    def __init__(self, size=None, **changes):
        super().__init__(MemberConfig(name="spy", model="spy-model", size=size))
        for name, value in changes.items():
            setattr(self, name, value)
        self.batches = []

    def predict(self, batch):
        self.batches.append(batch)
        assert batch.images.flags.c_contiguous
        return np.stack([self.answer(image) for image in batch.images])

    def answer(self, image):
        y, x = np.indices(image.shape[:2])
        z = (image[..., 0] / 40.0 - 3 + y / 7 - x / 5) * self.factor
        return (z if self.output == "logits" else 1 / (1 + np.exp(-z))).astype(np.float32)


def run(models, folder, tta=(), groups=None, ids=None, all_ids=None):
    models = models if isinstance(models, list) else [models]
    ids = list(folder.images) if ids is None else ids
    groups = groups or {name: name.partition("_")[0] for name in folder.images}
    return list(predict_maps(models, folder, ids, groups, tta, all_ids))


def slow(models, image, tta, size):
    """The whole recipe for one photo in float64, flips written out."""
    total = 0.0
    height, width = image.shape[:2]
    for model in models:
        inputs = np.asarray(Pillow.fromarray(image).resize((size.width, size.height), Pillow.Resampling.BILINEAR))
        views = []
        for chosen in itertools.product((0, 1), repeat=len(tta)):
            v = "vflip" in tta and chosen[list(tta).index("vflip")]
            h = "hflip" in tta and chosen[list(tta).index("hflip")]
            view = inputs[::-1] if v else inputs
            view = view[:, ::-1] if h else view
            answer = model.answer(view).astype(np.float64)
            answer = answer[:, ::-1] if h else answer
            views.append(answer[::-1] if v else answer)
        mean = np.mean(views, axis=0).astype(np.float32)
        back = np.asarray(Pillow.fromarray(mean).resize((width, height), Pillow.Resampling.BILINEAR), np.float64)
        total = total + (1 / (1 + np.exp(-back)) if model.output == "logits" else back)
    return total / len(models)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("tta", [(), ("hflip",), ("vflip",), ("hflip", "vflip"), ("vflip", "hflip")])
@pytest.mark.parametrize("size", [Size(16, 24), Size(11, 7), Size(50, 70)])
def test_maps_equal_the_recipe_written_out(output, tta, size):
    folder = Folder({"a_1": (31, 45), "a_2": (31, 45), "b_1": (31, 45), "b_2": (9, 1)})
    models = [Spy(size, output=output), Spy(size, output=output, factor=-0.4), Spy(size, output=output, factor=2.0)]
    got = run(models, folder, tta)
    assert [name for name, _ in got] == list(folder.images)
    for name, values in got:
        assert values.shape == folder.images[name].shape[:2]
        assert values.dtype == np.float32
        assert values == pytest.approx(slow(models, folder.images[name], tta, size), abs=2e-6)


def test_the_members_size_comes_before_the_models_and_the_photos_own_grid_last():
    folder = Folder({"a": (20, 30)})

    class Sized(Spy):
        size = Size(4, 5)

    for model, expected in [(Sized(Size(8, 9)), (8, 9)), (Sized(), (4, 5)), (Spy(), (20, 30))]:
        run(model, folder)
        assert model.batches[0].images.shape[1:3] == expected


def test_without_an_input_size_the_photos_themselves_are_predicted():
    folder = Folder({"a": (20, 30), "b": (5, 3), "c": (1, 1)})
    model = Spy()
    for name, values in run(model, folder, ("hflip", "vflip")):
        image = folder.images[name]
        assert values == pytest.approx(slow([model], image, ("hflip", "vflip"), Size(*image.shape[:2])), abs=2e-6)


class Padded(Spy):
    Options = TorchOptions
    divisor = 8

    def __init__(self, size=None, **options):
        Model.__init__(self, MemberConfig(name="spy", model="spy-model", size=size, options=options))
        self.batches = []


@pytest.mark.parametrize("tta", [(), ("hflip", "vflip")])
@pytest.mark.parametrize("size", [None, Size(40, 64)])
@pytest.mark.parametrize(
    ("options", "mode", "before"),
    [
        ({"pad": "zero"}, "constant", lambda added: 0),
        ({"pad": "edge", "pad_sides": "both"}, "edge", lambda added: added // 2),
        ({"pad": "reflect", "pad_sides": "both"}, "reflect", lambda added: added // 2),
    ],
)
def test_a_padding_member_predicts_photos_as_they_are(tta, size, options, mode, before):
    folder = Folder({"a": (31, 45), "b": (32, 43), "c": (24, 48)})
    models = [Padded(size, **options), Padded(size, **options)]
    models[1].factor = -0.4
    for name, values in run(models, folder, tta):
        image = folder.images[name]
        height, width = image.shape[:2]
        grid = size or {"a": (32, 48), "b": (32, 48), "c": (24, 48)}[name]
        above, left = before(grid[0] - height), before(grid[1] - width)
        margins = ((above, grid[0] - height - above), (left, grid[1] - width - left))
        padded = np.pad(image, (*margins, (0, 0)), mode)
        expected = 0.0
        for model in models:
            views = []
            for v, h in itertools.product((1, -1), repeat=2) if tta else [(1, 1)]:
                views.append(model.answer(padded[::v, ::h]).astype(np.float64)[::v, ::h])
            z = np.mean(views, axis=0)[above : above + height, left : left + width]
            expected = expected + 1 / (1 + np.exp(-z)) / 2
        assert values.shape == (height, width)
        assert values == pytest.approx(expected, abs=2e-6)
    assert {batch.images.shape[1:3] for batch in models[0].batches} == ({size} if size else {(32, 48), (24, 48)})


def test_padding_changes_no_pixel_of_a_model_that_looks_at_single_pixels():
    class Pixelwise(Padded):
        def answer(self, image):
            return (image[..., 0] / 40.0 - image[..., 2] / 50.0).astype(np.float32)

    folder = Folder({"a": (64, 1918), "b": (37, 53)})
    plain = dict(run(Pixelwise(), folder, ("hflip",)))
    for options in ({"pad": "zero"}, {"pad": "reflect", "pad_sides": "both"}, {"pad": "edge"}):
        for name, values in run(Pixelwise(**options), folder, ("hflip",)):
            assert np.array_equal(values, plain[name])


def test_photos_that_cannot_be_padded_are_refused_by_name():
    folder = Folder({"a": (16, 16), "b": (16, 41)})
    with pytest.raises(DataError, match="photo b is 16x41, larger than the input size 24x40"):
        run(Padded(Size(20, 40), pad="zero"), folder)
    with pytest.raises(DataError, match="photo a is 16x16, too small to be mirrored"):
        run(Padded(Size(48, 48), pad="reflect"), folder)


def test_batches_are_runs_of_one_grid_and_at_most_the_batch_size():
    shapes = [(4, 4), (4, 4), (4, 4), (4, 4), (6, 4), (4, 4), (4, 4)]
    folder = Folder({f"g{i}_x": shape for i, shape in enumerate(shapes)})
    model = Spy(batch_size=3)
    run(model, folder)
    assert all(len(b.images) == len(b.ids) == len(b.groups) <= 3 for b in model.batches)
    assert [name for b in model.batches for name in b.ids] == list(folder.images)
    assert next(b.groups for b in model.batches) == ("g0", "g1", "g2")
    model = Spy(Size(5, 5), batch_size=UNIT * 3)
    run(model, folder)
    assert [len(b.ids) for b in model.batches] == [7]


def test_a_group_model_sees_all_views_of_a_group_and_only_the_wanted_maps_come_out():
    names = ["a_1", "b_1", "a_2", "c_1", "b_2", "a_3"]
    folder = Folder(dict.fromkeys(names, (8, 10)))
    model = Spy(Size(6, 7), context="group", batch_size=1)
    got = run(model, folder, ids=["b_2", "a_3", "a_1"], all_ids=names)
    assert [b.ids for b in model.batches] == [("a_1", "a_2", "a_3"), ("b_1", "b_2")]
    assert [name for name, _ in got] == ["a_1", "a_3", "b_2"]
    whole = dict(run(Spy(Size(6, 7), context="group"), folder))
    assert all(np.array_equal(values, whole[name]) for name, values in got)


def test_a_group_of_photos_of_two_sizes_needs_an_input_size():
    folder = Folder({"car_1": (8, 10), "car_2": (8, 11)})
    with pytest.raises(DataError, match="group car: car_1 is 8x10, car_2 is 8x11"):
        run(Spy(context="group"), folder)
    assert len(run(Spy(Size(8, 8), context="group"), folder)) == 2


@pytest.mark.parametrize("tta", [("rot90",), ("hflip", "hflip")])
def test_unknown_and_repeated_augmentations_are_refused(tta):
    with pytest.raises(UsageError, match=tta[-1]):
        views_of(tta)


def test_no_models_double_ids_and_ids_of_elsewhere_are_refused():
    folder = Folder({"a": (3, 3), "b": (3, 3)})
    with pytest.raises(UsageError, match="no model"):
        run([], folder)
    with pytest.raises(UsageError, match="once"):
        run(Spy(), folder, ids=["a", "a"])
    with pytest.raises(UsageError, match="split"):
        run(Spy(), folder, ids=["a", "b"], all_ids=["a"])
    assert run(Spy(), folder, ids=[]) == []


class Writes(Spy):
    """A plugin with a predict_all of its own."""

    def __init__(self, change, **changes):
        super().__init__(**changes)
        self.change = change

    def predict_all(self, batches, writer):
        maps = {}
        for batch in batches:
            maps.update(zip(batch.ids, self.predict(batch), strict=True))
        for name, values in self.change(maps):
            writer.write(name, values)


def changed(change):
    return lambda maps: [(name, change(values) if name == "b" else values) for name, values in maps.items()]


def test_a_plugin_may_write_in_any_order():
    folder = Folder({"a": (6, 5), "b": (6, 5), "c": (4, 3)})
    own = dict(run(Writes(lambda maps: reversed(maps.items())), folder, ("hflip",)))
    plain = dict(run(Spy(), folder, ("hflip",)))
    assert all(np.array_equal(own[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps: [*maps.items(), ("x", maps["a"])], "x, which it was not given"),
        (lambda maps: [*maps.items(), ("a", maps["a"])], "map of a twice"),
        (lambda maps: [("a", maps["a"])], "no map for 2 of 3 photos, the first b"),
        (changed(lambda m: m[None]), r"shape \(1, 6, 5\) for b, not \(6, 5\)"),
        (changed(lambda m: m.T), r"shape \(5, 6\) for b"),
        (changed(lambda m: m > 0), "map of bool for b"),
        (changed(lambda m: m.astype(np.uint8)), "map of uint8 for b"),
    ],
)
def test_broken_answers_of_a_plugin_are_refused_with_its_name(change, message):
    folder = Folder({"a": (6, 5), "b": (6, 5), "c": (6, 5)})
    with pytest.raises(PluginError, match=message) as caught:
        run(Writes(change), folder)
    assert caught.value.name == "spy-model"
    assert "spy" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_one_pixel_that_is_not_finite_stops_with_member_and_photo(value, output):
    def spoil(m):
        m = m.astype(np.float64)
        m[3, 2] = value
        return m

    folder = Folder({"a": (6, 5), "b": (6, 5)})
    with pytest.raises(TrainingError, match="member spy: the map of b"):
        run(Writes(changed(spoil), output=output), folder)


@pytest.mark.parametrize("value", [-1e-5, 1 + 1e-5, 200.0])
def test_probabilities_outside_their_range_are_refused_and_logits_are_free(value):
    def spoil(m):
        m = m.copy()
        m[0, 0] = value
        return m

    folder = Folder({"a": (6, 5), "b": (6, 5)})
    with pytest.raises(PluginError, match=r"probabilities from .* for b"):
        run(Writes(changed(spoil), output="probabilities"), folder)
    assert len(run(Writes(changed(spoil)), folder)) == 2


def test_rounding_just_outside_the_range_is_cut_to_it():
    folder = Folder({"a": (6, 5), "b": (6, 5)})
    spoil = changed(lambda m: np.where(m > 0.5, np.float32(1 + 5e-7), np.float32(-5e-7)))
    for _, values in run(Writes(spoil, output="probabilities"), folder):
        assert values.min() >= 0
        assert values.max() <= 1


def test_maps_of_a_plugin_that_reuses_its_buffer_are_kept_apart():
    buffer = np.zeros((6, 5), np.float32)

    class Reuses(Spy):
        def predict_all(self, batches, writer):
            for batch in batches:
                for name, image in zip(batch.ids, batch.images, strict=True):
                    buffer[:] = self.answer(image)
                    writer.write(name, buffer)

    folder = Folder(dict.fromkeys("abcd", (6, 5)))
    plain = dict(run(Spy(), folder))
    assert all(np.array_equal(values, plain[name]) for name, values in run(Reuses(), folder))


def test_batches_are_halved_when_a_model_has_not_enough_memory():
    class Small(Spy):
        def predict(self, batch):
            if len(batch.ids) > 2:
                raise MemoryError
            return super().predict(batch)

    folder = Folder(dict.fromkeys("abcdefg", (6, 5)))
    groups, lines = dict.fromkeys(folder.images, "g"), []
    model = Small(batch_size=6)
    got = dict(predict_codes([model], folder, list(folder.images), groups, ("hflip",), say=lines.append))
    assert lines == [
        "spy: not enough memory for 6 photos at once, so 3 from now on",
        "spy: not enough memory for 3 photos at once, so 1 from now on",
    ]
    plain = dict(predict_codes([Spy()], folder, list(folder.images), groups, ("hflip",)))
    assert all(np.array_equal(got[name], plain[name]) for name in plain)
    with pytest.raises(MemoryError):  # a group is not parted
        dict(predict_codes([Small(context="group")], folder, list(folder.images), groups, ()))


@pytest.mark.parametrize("tta", [(), ("x0.5", "hflip")])
@pytest.mark.parametrize("size", [Size(16, 24), Size(31, 45), None])
def test_photos_of_a_folder_are_resized_as_arrays_are(tmp_path, size, tta):
    made = Folder({"a_1": (31, 45), "a_2": (40, 20)})
    for name, image in made.images.items():
        Pillow.fromarray(image).save(tmp_path / f"{name}.png")
    read = ImageFolder(tmp_path)
    from_files = dict(predict_maps([Spy(size)], read, list(made.images), {"a_1": "a", "a_2": "a"}, tta))
    for name, values in run(Spy(size), made, tta):
        assert np.array_equal(from_files[name], values)


def test_sigmoid_is_exact_enough_and_never_overflows():
    z = np.concatenate([np.linspace(-30, 30, 2001), [-3e38, -1000, 0, 1000, 3e38]]).astype(np.float32)
    expected = np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z, dtype=np.float64))), 0)
    expected = np.where(z < 0, 1 - 1 / (1 + np.exp(-np.abs(z, dtype=np.float64))), expected)
    got = sigmoid(z.copy())
    assert got.dtype == np.float32
    assert got == pytest.approx(expected, abs=1.5e-7)
    assert got[-3] == 0.5
    assert np.all(np.diff(got[:2001]) >= 0)


def test_photos_are_read_once_and_not_far_ahead():
    names = [f"p{i}" for i in range(UNIT * 6)]
    folder = Folder(dict.fromkeys(names, (4, 4)))
    maps = predict_maps([Spy(batch_size=1)], folder, names, dict.fromkeys(names, "g"), ())
    for number, (name, _) in enumerate(maps):
        assert name == names[number]
        assert len(folder.reads) <= number + 4 * UNIT
    assert sorted(folder.reads) == sorted(names)


def test_memory_does_not_grow_with_the_number_of_photos():
    class Endless(Folder):
        def read(self, image_id):
            return np.full((200, 300, 3), len(image_id), np.uint8)

    def peak(count):
        names = [f"p{i}" for i in range(count)]
        tracemalloc.start()
        for _ in predict_maps([Spy(Size(100, 150))], Endless({}), names, dict.fromkeys(names, "g"), ("hflip",)):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    class Spy(Model):
        def __init__(self, size):
            super().__init__(MemberConfig(name="m", model="m", size=size))

        def predict(self, batch):
            return np.zeros(batch.images.shape[:3], np.float32)

    assert peak(160) < 1.3 * peak(32)


def test_stopping_early_and_errors_of_the_reader_leave_no_thread_behind():
    import threading

    class Broken(Folder):
        def read(self, image_id):
            if image_id == "p30":
                raise DataError("p30 is broken")
            return super().read(image_id)

    names = [f"p{i}" for i in range(UNIT * 6)]
    folder = Broken(dict.fromkeys(names, (4, 4)))
    before = threading.active_count()
    maps = predict_maps([Spy()], folder, names, dict.fromkeys(names, "g"), ())
    next(maps)
    maps.close()
    assert threading.active_count() == before
    seen = []
    with pytest.raises(DataError, match="p30 is broken"):
        seen.extend(name for name, _ in predict_maps([Spy()], folder, names, dict.fromkeys(names, "g"), ()))
    assert threading.active_count() == before


def test_a_torch_member_of_two_folds_goes_through_the_same_host(tiny, tmp_path):
    models = []
    for seed in (0, 1):
        model = tiny.TinyModel(MemberConfig(name="m", model="tiny", seed=seed))
        model.load(None, "cpu")
        models.append(model)
    folder = Folder({"a_1": (45, 61), "a_2": (45, 61)})
    got = dict(run(models, folder, ("hflip",)))
    for name, image in folder.images.items():
        inputs = np.array(Pillow.fromarray(image).resize((32, 24), Pillow.Resampling.BILINEAR))
        expected = []
        for model in models:
            plain = model.predict(Batch(inputs[None], ("a",), ("a",)))[0]
            turned = model.predict(Batch(inputs[None, :, ::-1], ("a",), ("a",)))[0][:, ::-1]
            z = Pillow.fromarray((plain + turned) / 2).resize((61, 45), Pillow.Resampling.BILINEAR)
            expected.append(1 / (1 + np.exp(-np.asarray(z, np.float64))))
        assert got[name] == pytest.approx(np.mean(expected, axis=0), abs=1e-5)
