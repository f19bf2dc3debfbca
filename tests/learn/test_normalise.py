"""Normalising by the mini-batch and by the fold, and photos that are equalised first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from carvana_ens.errors import TrainingError, UsageError
from carvana_ens.learn.clahe import equalised_image
from carvana_ens.learn.inference import predict_maps
from carvana_ens.learn.normalise import Statistics, normalised
from carvana_ens.learn.photos import Photos
from carvana_ens.learn.recipe import InputOptions, TorchOptions
from carvana_ens.learn.resize import Padding, input_rule, map_back, resize_image
from carvana_ens.model import parse_options
from carvana_ens.types import Size


class Reader:
    """The photos of samples as prediction reads them, each changed first."""

    def __init__(self, samples, change=lambda image: image):
        self.samples, self.change = samples, change

    def read(self, image_id):
        return self.change(self.samples.image(image_id))


def predicted(model, samples, ids=None, groups=None, all_ids=None, change=lambda image: image):
    ids = samples.ids if ids is None else ids
    groups = dict.fromkeys(samples.ids, "g") if groups is None else groups
    return dict(predict_maps([model], Reader(samples, change), ids, groups, (), all_ids))


def images(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).float()


def test_a_batch_is_brought_to_mean_0_and_deviation_1_as_a_whole():
    batch = images(3, 3, 6, 7) * torch.tensor([0.2, 0.9, 0.5]).view(3, 1, 1, 1)
    got = normalised(batch, InputOptions(normalise="batch", colour="mean"))
    gray = batch.numpy().mean(1, keepdims=True)
    np.testing.assert_allclose(got.numpy(), (gray - gray.mean()) / gray.std(), atol=1e-5)


def test_a_fold_has_a_mean_and_a_deviation_for_each_channel():
    batch = images(2, 3, 4, 5)
    fold = Statistics(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 0.0]))
    got = normalised(batch, InputOptions(normalise="fold", colour="bgr"), fold).numpy()
    blue_first = batch.numpy()[:, ::-1]
    np.testing.assert_allclose(got[:, 0], (blue_first[:, 0] - 0.1) / 0.5, atol=1e-6)
    np.testing.assert_allclose(got[:, 1], (blue_first[:, 1] - 0.2) / 0.25, atol=1e-6)
    assert np.isfinite(got).all()


def test_imagenets_numbers_are_not_those_of_hsv():
    with pytest.raises(UsageError, match=r"imagenet.*hsv"):
        parse_options(TorchOptions, {"colour": "hsv"})
    assert parse_options(TorchOptions, {"colour": "hsv", "normalise": "unit"}).colour == "hsv"


@pytest.mark.parametrize("colour", ["bgr", "mean"])
def test_the_statistics_of_a_folds_training_photos_stay_with_its_checkpoint(tiny, tmp_path, colour):
    options = {"normalise": "fold", "colour": colour, "epochs": 1, "ema": 0.5}
    task = tiny.task(tmp_path / "fold0")
    result = tiny.TinyModel(tiny.config(**options)).fit(task)
    photos = np.stack([resize_image(task.train.image(i), Size(24, 32)) for i in task.train.ids]) / 255
    seen = photos[..., ::-1] if colour == "bgr" else photos.mean(3, keepdims=True)
    kept = load_file(result.checkpoint)
    np.testing.assert_allclose(kept["input_mean"], seen.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(kept["input_deviation"], seen.std((0, 1, 2)), atol=1e-5)

    model = tiny.TinyModel(tiny.config(**options))
    model.load(result.checkpoint, "cpu")
    maps = predicted(model, task.valid)
    save_file(kept | {"input_mean": kept["input_mean"] + 1}, tmp_path / "other.safetensors")
    model.load(tmp_path / "other.safetensors", "cpu")
    others = predicted(model, task.valid)
    assert all(np.abs(maps[i] - others[i]).max() > 1e-3 for i in task.valid.ids)  # the kept numbers are the used ones


def test_without_a_fold_there_are_no_statistics(tiny, tmp_path):
    model = tiny.TinyModel(tiny.config(normalise="fold"))
    with pytest.raises(TrainingError, match=r"normalise is fold.* train it"):
        model.load(None, "cpu")
    save_file(tiny.TinyModel(tiny.config()).build().state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(TrainingError, match=r"2 missing .input_mean"):
        model.load(tmp_path / "plain.safetensors", "cpu")


def test_by_batch_a_map_depends_on_its_group_alone(tiny):
    model = tiny.TinyModel(tiny.config(normalise="batch"))
    model.load(None, "cpu")
    photos = tiny.Memory(0, 6)
    groups = {image_id: "a" if number < 4 else "b" for number, image_id in enumerate(photos.ids)}
    whole = predicted(model, photos, groups=groups)
    one = predicted(model, photos, photos.ids[1:2], groups, photos.ids[:4])
    np.testing.assert_array_equal(one[photos.ids[1]], whole[photos.ids[1]])
    alone = predicted(model, photos, photos.ids[1:2], groups)
    assert np.abs(alone[photos.ids[1]] - whole[photos.ids[1]]).max() > 1e-4


def test_photos_are_equalised_on_their_own_grid_in_training_and_prediction(tiny):
    samples = tiny.Memory(0, 3)
    model = tiny.TinyModel(tiny.config(equalise=True, normalise="unit"))
    size, fitting = input_rule(model)
    photos = Photos(samples, size, fitting)
    (seen, covers), *_ = photos.batches([[0]])
    first = samples.ids[0]
    expected = resize_image(equalised_image(samples.image(first)), Size(24, 32))
    np.testing.assert_array_equal(seen[0].permute(1, 2, 0).numpy(), expected)
    plain = Photos(samples, *input_rule(tiny.TinyModel(tiny.config())))
    (unlike, same), *_ = plain.batches([[0]])
    assert (unlike != seen).float().mean() > 0.5
    assert torch.equal(covers, same)

    model.load(None, "cpu")
    ready = tiny.TinyModel(tiny.config(normalise="unit"))
    ready.load(None, "cpu")

    ours, theirs = predicted(model, samples), predicted(ready, samples, change=equalised_image)
    assert all(np.array_equal(ours[i], theirs[i]) for i in samples.ids)


def test_padding_comes_after_equalising(tiny):
    options = {"equalise": True, "pad": "zero"}
    _, fitting = input_rule(tiny.TinyModel(tiny.config(**options)))
    photo = tiny.Memory(0, 1).image("disc00")
    padded = fitting.image(photo, fitting.grid(Size(41, 50)), "disc00")
    assert padded.shape == (44, 52, 3)
    np.testing.assert_array_equal(padded[:40, :50], equalised_image(photo))
    assert not padded[40:].any()
    assert fitting.cover(np.ones((40, 50), bool), Size(44, 52)).sum() == 2000
    assert map_back(np.ones((44, 52), np.float32), Size(40, 50), fitting).shape == (40, 50)
    assert isinstance(fitting.fitting, Padding)
