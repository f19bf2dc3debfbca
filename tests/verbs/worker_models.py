"""Models without torch that make trouble for workers, and steps. The tests copy this file beside entry points.

A photo is known by its id: ``options.at`` names the one where it happens. Files beside the photos say what has happened
already, to all processes.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from carvana_ens import Model, Step, option


def soft(images, cut):
    return (1 / (1 + np.exp((cut - images.astype(np.float32).mean(axis=-1)) / 12))).astype(np.float32)


class Together(Model):
    """What a photo is given with shows in its map, so that other batches are other maps."""

    batch_size = 4

    def predict(self, batch):
        return soft(batch.images, np.float32(batch.images.mean()))


@dataclass(frozen=True)
class TroubleOptions:
    how: Literal["none", "sleep", "kill", "raise"] = option("none", "what happens")
    at: str = option("", "the photo where it happens")
    times: int = option(1, "how often it happens; 0: always")
    marks: str = option("", "a folder where it is noted")
    pause: float = option(0.0, "seconds to wait at each photo")


class Trouble(Model):
    """A cut of brightness that hangs, dies or raises at one photo."""

    Options = TroubleOptions

    def predict(self, batch):
        options = self.options
        time.sleep(options.pause * len(batch.ids))
        if options.at in batch.ids and options.how != "none":
            marks = Path(options.marks)
            before = len(list(marks.glob("trouble-*")))
            (marks / f"trouble-{time.time_ns()}-{os.getpid()}").touch()
            if not options.times or before < options.times:
                match options.how:
                    case "sleep":
                        time.sleep(1000)
                    case "kill":
                        os.kill(os.getpid(), signal.SIGKILL)
                    case "raise":
                        raise ValueError("no such\nlayer")
        return soft(batch.images, np.float32(120))


@dataclass(frozen=True)
class Emptied(Step):
    """Nothing from a row on."""

    name: ClassVar[str] = "emptied"
    row: int = option(0, "the row")

    def apply(self, mask, image):
        return mask & (np.arange(len(mask)) < self.row)[:, None]


@dataclass(frozen=True)
class KeptBy(Step):
    """What a member has, too."""

    name: ClassVar[str] = "kept-by"
    member: str = option("", "the member")

    def apply(self, mask, image):
        return mask & (image.codes(self.member) > 127)

    def reads(self):
        return (self.member,)
