"""Small models that keep the contract, and what the first check says of one that does not."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from carvana_ens.errors import PluginError
from carvana_ens.files import write_json
from carvana_ens.model import FitResult, Model, option
from carvana_ens.testing.checks import CHECKS, check_import
from carvana_ens.types import Size


@dataclass(frozen=True)
class Options:
    slope: float = option(1.0, "steepness of the map")
    channel: Literal["red", "green", "blue"] = option("green", "the channel to look at")
    invert: bool = option(False, "whether dark is the object")
    steps: int = option(2, "epochs of training")
    note: str = option("", "anything")


def map_of(image, middle, options):
    values = (image[..., ["red", "green", "blue"].index(options.channel)] / np.float32(255) - middle) * options.slope
    values = np.clip(values + 0.5, 0, 1).astype(np.float32)
    return 1 - values if options.invert else values


class Bright(Model):
    """Bright is the object."""

    Options = Options
    batch_size = 3

    def predict(self, batch):
        return np.stack([map_of(image, 0.5, self.options) for image in batch.images])


class Logits(Model):
    """Brighter than the middle of the photo's own range is the object."""

    output = "logits"
    size = Size(32, 48)

    def predict(self, batch):
        gray = batch.images.astype(np.float32).mean(-1)
        return gray - (gray.min((1, 2), keepdims=True) + gray.max((1, 2), keepdims=True)) / 2


class Group(Model):
    """What is brighter than the mean of all views is the object."""

    Options = Options
    context = "group"

    def predict(self, batch):
        middle = batch.images.astype(np.float64).mean() / 255
        return np.stack([map_of(image, middle, self.options) for image in batch.images])


class Trained(Model):
    """Learns the brightness of the object; keeps its state after each epoch."""

    Options = Options
    trainable = True

    def load(self, checkpoint, device):
        self.middle = json.loads(checkpoint.read_text())["middle"]

    def predict(self, batch):
        return np.stack([map_of(image, self.middle, self.options) for image in batch.images])

    def fit(self, task):
        path = task.directory / "fit.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        if state.get("digest") != task.digest:
            state = {"digest": task.digest, "middles": []}
        for epoch in range(len(state["middles"]) + 1, self.options.steps + 1):
            parts = [task.train.image(i)[task.train.mask(i)].mean() for i in task.train.ids]
            state["middles"].append(float(np.mean(parts)) / 255 + 1e-3 * task.seed)
            state["middle"] = float(np.mean(state["middles"]))
            write_json(path, state)
            task.report({"epoch": epoch, "epochs": self.options.steps, "loss": 0.5})
        return FitResult(path, 0.5, self.options.steps)

    def count_parameters(self):
        return 1


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
