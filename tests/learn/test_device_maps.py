"""Torch networks predict on their device: what comes from there beside the numpy way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from carvana_ens.errors import TrainingError
from carvana_ens.learn import inference
from carvana_ens.learn.array_maps import ArrayMaps
from carvana_ens.learn.batches import CPU_PIXELS, BatchSizes
from carvana_ens.learn.device_maps import predicts_on_device
from carvana_ens.learn.inference import predict_codes, predict_maps
from carvana_ens.learn.units import Batches, Meter
from carvana_ens.model import MemberConfig
from carvana_ens.store.hand import quantise
from carvana_ens.types import Size


class Folder:
    def __init__(self, shapes):
        rng = np.random.default_rng(2)
        self.images = {name: rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for name, shape in shapes.items()}

    def read(self, image_id):
        return self.images[image_id]


FOLDER = Folder({f"a_{k}": (45 + k % 3 // 2, 61) for k in range(11)})
IDS = list(FOLDER.images)
GROUPS = dict.fromkeys(IDS, "a")


@pytest.fixture
def loaded(tiny):
    def load(kind=None, seeds=(0, 1), **changes):
        models = []
        for seed in seeds:
            model = (kind or tiny.TinyModel)(MemberConfig(name="m", model="tiny", seed=seed, **changes))
            model.load(None, "cpu")
            models.append(model)
        return models

    return load


@pytest.fixture
def in_numpy(monkeypatch):
    """Runs a function with torch networks predicting the numpy way."""

    def call(function, *arguments, **named):
        with monkeypatch.context() as patch:
            patch.setattr(inference, "_predictor", ArrayMaps)
            return dict(function(*arguments, **named))

    return call


@pytest.mark.parametrize("tile", [None, Size(20, 30)])
@pytest.mark.parametrize("tta", [(), ("hflip", "vflip"), ("transpose", "hflip"), ("x0.75", "x1.5", "hflip")])
@pytest.mark.parametrize("size", [None, Size(24, 32), Size(90, 100)])
def test_maps_are_those_of_the_numpy_way(loaded, in_numpy, size, tta, tile):
    models = loaded(size=size, tile=tile)
    got = dict(predict_maps(models, FOLDER, IDS, GROUPS, tta))
    expected = in_numpy(predict_maps, models, FOLDER, IDS, GROUPS, tta)
    assert set(got) == set(IDS)
    for name, values in got.items():
        assert values.dtype == np.float32
        assert values.shape == FOLDER.images[name].shape[:2]
        assert values == pytest.approx(expected[name], abs=3e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"pad": "reflect", "pad_sides": "both"},
        {"colour": "gray"},
        {"colour": "hsv", "normalise": "unit"},
        {"colour": "bgr"},
        {"normalise": "photo"},
        {"normalise": "batch"},
        {"channels_last": False},
        {"equalise": True},
    ],
)
def test_so_do_the_options_of_what_the_network_sees(loaded, in_numpy, options):
    folder = Folder(dict.fromkeys(IDS, (45, 61)))
    models = loaded(options=options)
    got = dict(predict_maps(models, folder, IDS, GROUPS, ("hflip",)))
    expected = in_numpy(predict_maps, models, folder, IDS, GROUPS, ("hflip",))
    assert all(got[name] == pytest.approx(expected[name], abs=3e-7) for name in IDS)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("numpy_way", [False, True])
def test_codes_are_what_a_store_makes_of_the_maps(loaded, in_numpy, dtype, numpy_way):
    models = loaded()
    run = in_numpy if numpy_way else lambda function, *given, **named: dict(function(*given, **named))
    maps = run(predict_maps, models, FOLDER, IDS, GROUPS, ("hflip",))
    coded = run(predict_codes, models, FOLDER, IDS, GROUPS, ("hflip",), dtype=dtype)
    for name in IDS:
        assert coded[name].dtype == dtype
        assert np.array_equal(coded[name], quantise(maps[name], dtype))


class Fixed(nn.Module):
    """Answers with one value for photos whose first pixel is bright. Needs a parameter to be a network."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        bright = (x[:, :, :1, :1].mean(1, keepdim=True) > 0).float()
        return torch.where(bright > 0, self.value, 1.0).expand(-1, 1, *x.shape[2:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_map_that_is_not_finite_stops_with_member_and_photo(tiny, loaded, value):
    class Broken(tiny.TinyModel):
        size = None

        def build(self):
            return Fixed(value)

    images = {name: np.full((8, 8, 3), 255 * (name == "c"), np.uint8) for name in "abcd"}
    folder = Folder({})
    folder.images = images
    with pytest.raises(TrainingError, match="member m: the map of c has NaN or infinity"):
        dict(predict_codes(loaded(Broken), folder, list(images), dict.fromkeys(images, "g"), ()))
    model = loaded(Broken, (0,))
    assert set(dict(predict_codes(model, folder, ["a", "d"], dict.fromkeys(images, "g"), ()))) == {"a", "d"}
    assert torch.isnan(model[0]._network.value) == np.isnan(value)  # nothing was written into the network


class Small(nn.Module):
    """A network on a device whose memory is full at some number of photos."""

    def __init__(self, most):
        super().__init__()
        self.most, self.asked = most, []
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        self.asked.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.layer(x)


def test_batches_are_halved_when_memory_is_short_and_it_is_said_once(tiny, loaded):
    class Fits(tiny.TinyModel):
        most = 2

        def build(self):
            return Small(self.most)

    lines = []
    (model,) = loaded(Fits, (0,))
    got = dict(predict_codes([model], FOLDER, IDS, GROUPS, (), say=lines.append))
    assert lines == [
        "m: not enough memory for 11 photos at once, so 8 from now on",
        "m: not enough memory for 8 photos at once, so 4 from now on",
        "m: not enough memory for 4 photos at once, so 2 from now on",
    ]
    assert model._network.asked == [11, 8, 4, 2, 2, 2, 2, 2, 1]
    (plain,) = loaded(Fits, (0,))
    plain._network.most = 99
    expected = dict(predict_codes([plain], FOLDER, IDS, GROUPS, ()))
    assert all(np.array_equal(got[name], expected[name]) for name in IDS)
    known = Batches(most=2, pixels=2**20)  # as an earlier call left it
    model._network.asked.clear()
    assert len(dict(predict_codes([model], FOLDER, IDS, GROUPS, (), batches=known, say=lines.append))) == 11
    assert max(model._network.asked) == 2
    assert len(lines) == 3
    model._network.most = 0
    with pytest.raises(MemoryError):
        dict(predict_codes([model], FOLDER, IDS, GROUPS, ()))
    with pytest.raises(MemoryError):
        dict(predict_codes([model], FOLDER, IDS, GROUPS, (), batches=Batches(3)))


def test_other_errors_of_a_network_are_not_taken_for_want_of_memory(tiny, loaded):
    class Odd(tiny.TinyModel):
        def forward(self, network, images):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        dict(predict_codes(loaded(Odd), FOLDER, IDS, GROUPS, ()))


def test_a_model_with_a_predict_of_its_own_is_asked_in_its_own_way(tiny, loaded):
    class Own(tiny.TinyModel):
        def predict(self, batch):
            return super().predict(batch) * 0 + 2

    models = loaded(Own)
    assert not predicts_on_device(models[0])
    assert predicts_on_device(loaded()[0])
    for values in dict(predict_maps(models, FOLDER, IDS, GROUPS, ())).values():
        assert values == pytest.approx(1 / (1 + np.exp(-2)))


def test_what_is_missing_is_predicted_in_the_company_it_would_have_had(tiny, loaded):
    class Company(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1)

        def forward(self, x):
            return self.layer(x) + x.mean()

    class Neighbourly(tiny.TinyModel):
        def build(self):
            return Company()

    models = loaded(Neighbourly)
    names = [f"p{k:02d}" for k in range(40)]
    folder, groups = Folder(dict.fromkeys(names, (24, 32))), dict.fromkeys(names, "g")
    whole = dict(predict_codes(models, folder, names, groups, (), batches=Batches(4)))
    some = [names[k] for k in (2, 9, 10, 33, 39)]
    rest = dict(predict_codes(models, folder, some, groups, (), names, batches=Batches(4)))
    assert list(rest) == some
    assert all(np.array_equal(rest[name], whole[name]) for name in some)
    alone = dict(predict_codes(models, folder, some, groups, (), batches=Batches(4)))
    assert not all(np.array_equal(alone[name], whole[name]) for name in some)


def test_batches_of_a_cpu_hold_few_pixels_and_what_is_asked_for_is_done(loaded):
    sizes = BatchSizes(loaded(), Batches())
    assert sizes.of(Size(1280, 1920)) == 1
    assert sizes.of(Size(128, 192)) == 8
    assert sizes.of(Size(2, 2)) == 32
    assert CPU_PIXELS >= 128 * 192 * 8
    assert sizes.lower(8) == 4
    assert sizes.of(Size(2, 2)) == 4
    assert sizes.lower(1) == 0
    assert BatchSizes(loaded(), Batches(5)).of(Size(1280, 1920)) == 5


def test_the_meter_counts_photos_and_the_networks_part_of_the_time(loaded):
    meter = Meter()
    assert len(dict(predict_codes(loaded(), FOLDER, IDS, GROUPS, ("hflip",), meter=meter))) == 11
    assert meter.photos == 11
    assert 0 < meter.network < meter.seconds
