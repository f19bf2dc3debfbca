"""Plugins that break the contract, one fault each; the tests copy this file into a folder with entry points."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import jax  # noqa: F401 (a framework, imported at once: the fault of Heavy, which stands for all of this file)
import numpy as np

from carvana_ens import FitResult, Model, option


class Good(Model):
    """Bright is the object."""

    def predict(self, batch):
        return batch.images.mean(axis=-1, dtype=np.float32) / 255


class Cropped(Good):
    def predict(self, batch):
        height, width = batch.images.shape[1:3]
        return super().predict(batch)[:, : height // 4 * 4, : width // 4 * 4]


class Bytes(Good):
    def predict(self, batch):
        return super().predict(batch) * 255


class Doubles(Good):
    def predict(self, batch):
        return super().predict(batch).astype(np.float64)


class NotFinite(Good):
    def predict(self, batch):
        maps = super().predict(batch)
        with np.errstate(divide="ignore"):
            return np.maximum(np.float32(1) - np.float32(0.01) / maps, 0) if maps.min() else np.log(maps)


class Sorted(Good):
    def predict(self, batch):
        return np.sort(super().predict(batch), axis=0)


class Neighbours(Good):
    def predict(self, batch):
        maps = super().predict(batch)
        return maps * maps.mean()


class Drawing(Good):
    def predict(self, batch):
        return (super().predict(batch) * np.random.default_rng().uniform(0.5, 1)).astype(np.float32)


class Remembering(Good):
    seen = 0

    def predict(self, batch):
        self.seen += len(batch.ids)
        return super().predict(batch) / self.seen


class Deaf(Good):
    """Takes any option."""

    def __init__(self, config):
        self.config, self.options = config, self.Options()


@dataclass(frozen=True)
class Unexplained:
    gain: float = 1.0


class Silent(Good):
    Options = Unexplained


class Forgetting(Good):
    def predict_all(self, batches, writer):
        for batch in batches:
            for image_id, values in list(zip(batch.ids, self.predict(batch), strict=True))[:2]:
                writer.write(image_id, values)
            return


class Stretched(Good):
    def predict(self, batch):
        maps = super().predict(batch)
        low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
        return (maps - low) / np.maximum(high - low, np.float32(1e-6))


class Sigmoid(Good):
    output = "logits"

    def predict(self, batch):
        return 1 / (1 + np.exp(4 - 8 * super().predict(batch)))


class Trained(Good):
    trainable = True

    def fit(self, task):
        path = task.directory / "fit.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        for epoch in range(self.first_epoch(state, task), 4):
            task.train.mask(task.train.ids[0])
            path.write_text(json.dumps({"digest": task.digest, "epoch": epoch}))
            task.report({"epoch": epoch})
        return FitResult(path, 0.5, 3)

    def first_epoch(self, state, task):
        return state["epoch"] + 1 if state.get("digest") == task.digest else 1


class Restarting(Trained):
    def first_epoch(self, state, task):
        return 1


class AnotherTasks(Trained):
    def first_epoch(self, state, task):
        return state.get("epoch", 0) + 1


class Elsewhere(Trained):
    def fit(self, task):
        return FitResult(super().fit(task).checkpoint.parent, 0.5, 3)


class Leaving(Good):
    """Ends Python, as a library in C may."""

    def predict(self, batch):
        os.write(1, b"a last word\n")
        os._exit(7)


@dataclass(frozen=True)
class WithGain:
    gain: float = option(1.0, "multiplies")


class Loud(Good):
    """Keeps the contract, and prints."""

    Options = WithGain

    def predict(self, batch):
        print('{"verdict": {"check": "answers", "held": false}}', flush=True)
        return np.minimum(super().predict(batch) * np.float32(self.options.gain), 1)
