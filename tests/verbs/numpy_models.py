"""Models without torch for the tests: cuts of brightness. The tests copy this file into a folder with entry points.

With NUMPY_MODELS_LOG set, every load, predict and fit adds a line to that file, also from another process.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from carvana_ens import FitResult, Model, Recipe, Size, option


def log(*words):
    path = os.environ.get("NUMPY_MODELS_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(" ".join(map(str, words)) + "\n")


@dataclass(frozen=True)
class CutOptions:
    cut: float = option(120.0, "brightness that counts as half")
    soft: float = option(12.0, "levels of brightness from half to three quarters, about")
    pause: float = option(0.0, "seconds to wait at each photo")

    def __post_init__(self):
        if self.soft <= 0:
            raise ValueError(f"option soft is {self.soft}: it must be above 0")


class BrightCut(Model):
    """The object is what is bright."""

    Options = CutOptions
    recipes: ClassVar = {
        "dusk": Recipe("for dim photos", size=Size(24, 36), tta=("hflip",), options={"cut": 80, "soft": 6.5}),
        "modern": Recipe("sharper than the defaults", options={"soft": 9.0}),
    }

    def predict(self, batch):
        log("predict", self.config.name, *batch.ids)
        time.sleep(self.options.pause * len(batch.ids))
        bright = batch.images.astype(np.float32).mean(axis=-1)
        return (1 / (1 + np.exp((self.options.cut - bright) / self.options.soft))).astype(np.float32)


@dataclass(frozen=True)
class LearnedOptions:
    epochs: int = option(3, "cuts to try")
    soft: float = option(12.0, "levels of brightness")


class LearnedCut(Model):
    """Learns the cut; a stopped training goes on after its last whole epoch."""

    Options = LearnedOptions
    trainable = True
    output = "logits"

    def load(self, checkpoint, device):
        log("load", self.config.name, checkpoint.parent.name, device)
        self.cut = json.loads(checkpoint.read_text())["cut"]

    def predict(self, batch):
        log("predict", self.config.name, *batch.ids)
        return (batch.images.astype(np.float32).mean(axis=-1) - np.float32(self.cut)) / np.float32(self.options.soft)

    def fit(self, task):
        log("fit", self.config.name, task.directory.name, task.seed)
        state_file = task.directory / "state.json"
        state = {"digest": task.digest, "epoch": 0, "score": -1.0, "cut": 0.0}
        if state_file.is_file() and json.loads(state_file.read_text())["digest"] == task.digest:
            state = json.loads(state_file.read_text())
        photos = [(task.train.image(i), task.train.mask(i)) for i in task.train.ids]
        for epoch in range(state["epoch"], self.options.epochs):
            log("epoch", self.config.name, task.directory.name, epoch)
            cut = float(np.random.default_rng([task.seed, epoch]).integers(90, 150))
            score = float(np.mean([np.mean((image.mean(axis=-1) >= cut) == mask) for image, mask in photos]))
            if score > state["score"]:
                state |= {"score": score, "cut": cut}
            state["epoch"] = epoch + 1
            state_file.write_text(json.dumps(state))
            task.report({"epoch": epoch + 1, "epochs": self.options.epochs, "score": score})
            if os.environ.get("NUMPY_MODELS_STOP") == str(epoch + 1):
                raise KeyboardInterrupt
        checkpoint = task.directory / "cut.json"
        checkpoint.write_text(json.dumps({"cut": state["cut"]}))
        dices = []
        for image_id in task.valid.ids:
            found, truth = task.valid.image(image_id).mean(axis=-1) >= state["cut"], task.valid.mask(image_id)
            dices.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
        return FitResult(checkpoint, float(np.mean(dices)), state["epoch"])


class GroupCut(Model):
    """Bright against the mean of all views of the group."""

    context = "group"

    def predict(self, batch):
        log("predict", self.config.name, batch.group, *batch.ids)
        bright = batch.images.astype(np.float32).mean(axis=-1)
        return np.clip((bright - bright.mean()) / 120 + 0.5, 0, 1).astype(np.float32)


@dataclass(frozen=True)
class FaultyOptions:
    how: Literal["nan", "infinity", "shape", "range", "few", "integers", "raise", "load", "exit"] = option(
        "nan", "fault"
    )
    at: str = option("", "the image that it happens at; all: each")


class Faulty(Model):
    """Answers wrongly on request."""

    Options = FaultyOptions

    def load(self, checkpoint, device):
        if self.options.how == "load":
            raise ValueError("no such\nlayer")

    def predict(self, batch):
        maps = np.full(batch.images.shape[:3], 0.5, np.float32)
        if self.options.at not in (*batch.ids, "all"):
            return maps
        place = 0 if self.options.at == "all" else batch.ids.index(self.options.at)
        match self.options.how:
            case "nan":
                maps[place, 3, 4] = np.nan
            case "infinity":
                maps[place, 3, 4] = np.inf
            case "range":
                maps[place, 3, 4] = 1.5
            case "shape":
                return maps[:, :-1]
            case "few":
                return maps[:0]
            case "integers":
                return (maps * 255).astype(np.uint8)
            case "raise":
                raise RuntimeError("kernel\nsize mismatch")
        return maps


class BadFit(LearnedCut):
    """Trains, and breaks the contract of fit as its option ``soft`` says."""

    def fit(self, task):
        done = super().fit(task)
        match int(self.options.soft):
            case 1:
                return FitResult(task.directory / "gone.json", done.dice, done.epochs)
            case 2:
                outside = Path(task.directory).parent / "outside.json"
                outside.write_text("{}")
                return FitResult(outside, done.dice, done.epochs)
            case 3:
                return FitResult(done.checkpoint, float("nan"), done.epochs)
            case 4:
                raise ZeroDivisionError("division by zero")
        return done
