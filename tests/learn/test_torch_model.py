from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from carvana_ens.errors import TrainingError, UsageError
from carvana_ens.learn.torch_model import TorchModel, pick_device
from carvana_ens.model import Batch, MemberConfig
from carvana_ens.types import Size


def batch_of(*shape, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return Batch(images, tuple(f"p{i}" for i in range(shape[0])), ("g",) * shape[0])


def parameters(model, seed=1):
    torch.manual_seed(seed)
    network = model.build()
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return network.state_dict()


@pytest.fixture
def model(tiny):
    return tiny.TinyModel(tiny.config())


@pytest.mark.parametrize("shape", [(1, 24, 32), (2, 25, 33), (3, 1, 1), (1, 2, 67), (2, 31, 4)])
def test_logits_come_on_the_grid_given_whatever_it_is(model, shape):
    model.load(None, "cpu")
    maps = model.predict(batch_of(*shape))
    assert maps.shape == shape
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()


def test_odd_sides_are_padded_with_the_border_and_cropped_back(model):
    model.load(None, "cpu")
    odd = batch_of(1, 21, 30)
    padded = Batch(np.pad(odd.images, ((0, 0), (0, 3), (0, 2), (0, 0)), mode="edge"), odd.ids, odd.groups)
    assert np.allclose(model.predict(odd), model.predict(padded)[:, :21, :30], atol=1e-6)


def test_predict_is_the_network_on_normalised_rgb_in_eval_mode(model, tmp_path):
    state = parameters(model)
    save_file(state, tmp_path / "a.safetensors")
    model.load(tmp_path / "a.safetensors", "cpu")
    network = model.build()
    network.load_state_dict(state)
    batch = batch_of(2, 24, 32)
    inputs = (batch.images / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(inputs.transpose(0, 3, 1, 2)).float())[:, 0].numpy()
    assert np.allclose(model.predict(batch), expected, atol=1e-4)


class Identity(TorchModel):
    """Shows what the network sees: the logits are its first channel."""

    divisor = 1

    def build(self):
        return First()


class First(nn.Module):
    def forward(self, x):
        return x[:, :1]


def seen(batch, **options):
    model = Identity(MemberConfig(name="m", model="identity", options=options))
    model.load(None, "cpu")
    return model.predict(batch)


def test_colour_orders_and_gray():
    batch = batch_of(2, 5, 6)
    scaled = batch.images / 255.0
    assert np.allclose(seen(batch, normalise="unit"), scaled[..., 0], atol=1e-6)
    assert np.allclose(seen(batch, normalise="unit", colour="bgr"), scaled[..., 2], atol=1e-6)
    assert np.allclose(seen(batch, normalise="unit", colour="gray"), scaled @ [0.299, 0.587, 0.114], atol=1e-6)
    assert np.allclose(seen(batch, colour="bgr"), (scaled[..., 2] - 0.406) / 0.225, atol=1e-5)
    assert np.allclose(seen(batch, normalise="unit", colour="mean"), scaled.mean(3), atol=1e-6)
    hue = [[[colorsys.rgb_to_hsv(*pixel)[0] for pixel in row] for row in photo] for photo in scaled]
    assert np.allclose(seen(batch, normalise="unit", colour="hsv"), hue, atol=1e-5)
    for colour in ("gray", "mean"):
        assert TorchModel(MemberConfig(name="m", model="m", options={"colour": colour})).channels == 1
    assert np.allclose(seen(batch, colour="mean"), (scaled.mean(3) - 0.449) / 0.226, atol=1e-5)


def test_normalising_by_photo_does_not_look_at_the_neighbours():
    batch = batch_of(3, 8, 9)
    batch.images[1] = 200  # a flat photo has no deviation to divide by
    scaled = batch.images / 255.0
    got = seen(batch, normalise="photo")
    assert np.allclose(got[0], ((scaled[0] - scaled[0].mean()) / scaled[0].std())[..., 0], atol=1e-4)
    assert np.allclose(got[1], 0, atol=1e-3)
    alone = Batch(batch.images[2:], batch.ids[2:], batch.groups[2:])
    assert np.allclose(seen(alone, normalise="photo")[0], got[2], atol=1e-6)


def test_photos_that_are_not_writable_or_not_contiguous_are_taken(model):
    model.load(None, "cpu")
    batch = batch_of(1, 24, 32)
    turned = np.ascontiguousarray(batch.images[:, :, ::-1])[:, :, ::-1]
    turned.flags.writeable = False
    assert np.array_equal(model.predict(dataclasses.replace(batch, images=turned)), model.predict(batch))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_our_files_and_foreign_ones_give_the_same_maps(model, tmp_path, suffix):
    state = parameters(model)
    save_file(state, tmp_path / "ours.safetensors")
    model.load(tmp_path / "ours.safetensors", "cpu")
    expected = model.predict(batch_of(1, 24, 32))
    path = tmp_path / f"theirs{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    model.load(path, "cpu")
    assert np.array_equal(model.predict(batch_of(1, 24, 32)), expected)


class Code:
    ran = False

    def __reduce__(self):
        return (setattr, (Code, "ran", True))


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.safetensors"])
def test_a_file_with_code_in_it_is_refused_and_not_run(model, tmp_path, name):
    torch.save({"state_dict": parameters(model), "x": Code()}, tmp_path / name)
    with pytest.raises(TrainingError, match=name):
        model.load(tmp_path / name, "cpu")
    assert not Code.ran


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.99])
def test_a_truncated_file_is_refused_in_one_line(model, tmp_path, name, kept):
    path = tmp_path / name
    (torch.save if name.endswith("pt") else save_file)(parameters(model), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(TrainingError, match=name) as caught:
        model.load(path, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, {"state_dict": {"a": "text"}}])
def test_a_file_without_parameters_is_refused(model, tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(TrainingError, match=r"a\.pt holds no table of parameters"):
        model.load(tmp_path / "a.pt", "cpu")


def test_a_missing_file_is_refused(model, tmp_path):
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(TrainingError, match=name):
            model.load(tmp_path / name, "cpu")


def test_a_checkpoint_that_does_not_fit_names_what_differs(model, tmp_path):
    state = parameters(model)
    state["head.9.weight"] = state.pop("head.2.weight")
    state["body.0.weight"] = torch.zeros(8, 1, 3, 3)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(TrainingError) as caught:
        model.load(tmp_path / "a.safetensors", "cpu")
    for part in ("a.safetensors", "1 missing (head.2.weight)", "1 unknown (head.9.weight)", "8x1x3x3, not 8x3x3x3"):
        assert part in str(caught.value)


def test_a_network_on_another_grid_is_the_plugins_fault():
    class Half(Identity):
        def build(self):
            return nn.Sequential(First(), nn.MaxPool2d(2))

    model = Half(MemberConfig(name="mine", model="half"))
    model.load(None, "cpu")
    with pytest.raises(TrainingError, match=r"mine.*author of model half"):
        model.predict(batch_of(1, 8, 8))


class Pyramid(nn.Module):
    """The first channel as it is and averaged over 2, 4 and 8 pixels, in both modes if it is told so."""

    def __init__(self, in_eval=False, coarse=1):
        super().__init__()
        self.in_eval, self.coarse = in_eval, coarse

    def forward(self, x):
        coarser = [nn.functional.avg_pool2d(x[:, : self.coarse], side) for side in (2, 4, 8)]
        return (x[:, :1], *coarser) if self.training or self.in_eval else x[:, :1]


@pytest.mark.parametrize(
    ("shape", "grids"),
    [
        ((16, 24), [(16, 24), (8, 12), (4, 6), (2, 3)]),
        ((9, 24), [(9, 24), (5, 12), (3, 6), (2, 3)]),
        ((7, 1), [(7, 1), (4, 1), (2, 1), (1, 1)]),
    ],
)
def test_a_deeply_supervised_network_gives_all_maps_in_training_and_the_finest_in_prediction(shape, grids):
    class Deep(Identity):
        divisor = 8

        def build(self):
            return Pyramid()

    model = Deep(MemberConfig(name="m", model="deep", options={"normalise": "unit"}))
    network = model.build()
    images = torch.rand(2, 3, *shape)
    maps = model.forward_maps(network.train(), images)
    assert [tuple(m.shape) for m in maps] == [(2, 1, *grid) for grid in grids]
    for m, side in zip(maps, (1, 2, 4, 8), strict=True):
        corner = images[:, 0, : min(side, shape[0]), : min(side, shape[1])].numpy()
        padded = np.pad(corner, ((0, 0), (0, side - corner.shape[1]), (0, side - corner.shape[2])), mode="edge")
        assert np.allclose(m[:, 0, 0, 0].numpy(), padded.mean((1, 2)), atol=1e-6)
    assert torch.equal(model.forward(network, images), maps[0])
    (only,) = model.forward_maps(network.eval(), images)
    assert torch.equal(only, maps[0])


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Pyramid(in_eval=True).eval(), r"answers tuple to .*author of model deep"),
        (Pyramid(coarse=3), r"\(1, 1, 8, 8\), \(1, 3, 4, 4\), .*author of model deep"),
    ],
)
def test_maps_that_training_or_prediction_cannot_use_are_the_plugins_fault(network, words):
    model = Identity(MemberConfig(name="m", model="deep"))
    with pytest.raises(TrainingError, match=words):
        model.forward(network, torch.rand(1, 3, 8, 8))


def test_predicting_before_loading_is_refused(model):
    with pytest.raises(TrainingError, match="load"):
        model.predict(batch_of(1, 8, 8))


def test_parameters_are_counted_without_making_them(model, monkeypatch):
    assert model.count_parameters() == sum(p.numel() for p in model.build().parameters())

    class Huge(TorchModel):
        def build(self):
            network = nn.Sequential(nn.Linear(2**20, 2**20, bias=False), nn.Linear(3, 1))
            network[1].requires_grad_(False)
            return network

    assert Huge(MemberConfig(name="m", model="m")).count_parameters() == 2**40


def test_an_untrained_network_is_drawn_from_the_seed_and_leaves_torchs_random_state_alone(tiny):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    maps = []
    for seed in (0, 0, 1):
        model = tiny.TinyModel(dataclasses.replace(tiny.config(), seed=seed))
        model.load(None, "cpu")
        maps.append(model.predict(batch_of(1, 24, 32)))
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cpu:9", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(UsageError, match="device"):
        pick_device(name)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}


def test_default_size_is_one_of_the_model(tiny):
    assert tiny.TinyModel.size == Size(24, 32)
    assert tiny.TinyModel.output == "logits"
