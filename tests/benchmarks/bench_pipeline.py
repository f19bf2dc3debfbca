"""Prediction from JPEG files to a store: what it takes beside the network's own work.

    python tests/benchmarks/bench_pipeline.py FOLDER
    python tests/benchmarks/bench_pipeline.py FOLDER --photos other/ --model linknet34 --size 1280x1920 --count 16

Two ratios. **CPU time outside the forward pass**: all CPU time of the pipeline with a network that does nothing, beside
the bare sum of decoding the JPEG, resizing photo and map, encoding the map and writing it, one after the other with
Pillow and zstd; networks have one thread then, because a second one's waiting would count as work. **Wall time**: the
pipeline beside the network's bare forward passes on batches that lie ready on the device. Rounds of all take turns;
ratios are of each round, and the median is printed with the least and greatest. Random parameters; photos are drawn
where none are given. FOLDER is for what is written. Needs carvana-ens[models].
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numcodecs.zstd
import numpy as np
import torch
from PIL import Image
from torch import nn

from carvana_ens import MemberConfig, Size, TorchModel, open_store
from carvana_ens.data.images import ImageFolder
from carvana_ens.data.sample import make_sample
from carvana_ens.engine.memory import keep_freed_memory
from carvana_ens.learn.ahead import called_apart
from carvana_ens.learn.batches import BatchSizes
from carvana_ens.learn.inference import predict_codes
from carvana_ens.learn.resize import resize_image, resize_map
from carvana_ens.learn.units import Batches, Meter
from carvana_ens.registry import load_model
from carvana_ens.store.remove import remove_store
from carvana_ens.store.schema import Provenance
from carvana_ens.store.writer import StoreWriter
from carvana_ens.verbs.bench.machine import machine
from carvana_ens.verbs.photo_changes import PhotoPrints

WINNERS = "3.5 to 7"
"""Photos a second and GPU that Carvana's first place says of its networks (four to eight hours for 100,064)."""


class Idle(TorchModel):
    """A network that does nothing: the maps are of the photos' first channel, as steep as a trained network's."""

    def build(self) -> nn.Module:
        """One layer without work worth speaking of."""
        return Steep()


class Steep(nn.Module):
    """(N, 3, H, W) to (N, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(8.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """A multiple of the first channel."""
        return images[:, :1] * self.factor


class Pipeline:
    """Predicts all photos into a new store."""

    def __init__(self, folder: Path, photos: ImageFolder, ids: Sequence[str], model: TorchModel) -> None:
        self.folder, self.photos, self.ids, self.model = folder, photos, ids, model
        self.meter = Meter()
        self.sizes = [photos.size(image_id) for image_id in ids]
        self.provenance = Provenance(member=model.config.to_json(), split="test", seen="none")

    def __call__(self) -> None:
        path = self.folder / "pipeline.zarr"
        remove_store(path)
        self.meter = Meter()
        groups = dict.fromkeys(self.ids, "g")
        prints = PhotoPrints(self.photos, self.folder / "no cache")
        prints.begin(self.ids)
        with StoreWriter(path, self.ids, self.sizes, self.provenance) as writer:
            writer.photo = prints.of_map
            maps = predict_codes([self.model], self.photos, self.ids, groups, (), meter=self.meter)
            for _ in called_apart(partial(writer.write_codes, *made) for made in maps):
                pass


def inputs_of(photos: ImageFolder, ids: Sequence[str], size: Size, model: TorchModel) -> list[torch.Tensor]:
    """What the network is given, on its device, in the batches of the pipeline."""
    step = BatchSizes([model], Batches()).of(size)
    whole = [resize_image(photos.read(image_id), size) for image_id in ids]
    return [
        torch.from_numpy(np.stack(whole[start : start + step])).to(model.device) for start in range(0, len(ids), step)
    ]


def forwards(model: TorchModel, batches: Sequence[torch.Tensor]) -> None:
    """The bare forward passes."""
    for batch in batches:
        model.answer(batch)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def repeated(source: ImageFolder, folder: Path, count: int) -> ImageFolder:
    """So many photos, each again under another name as often as it takes."""
    folder.mkdir()
    for number, image_id in enumerate(itertools.islice(itertools.cycle(source.ids), count)):
        shutil.copy(source.path(image_id), folder / f"p{number:05d}_{image_id}{source.path(image_id).suffix}")
    return ImageFolder(folder)


class BareParts:
    """Decoding, resizing a photo and its map, encoding and writing, one after the other and nothing else."""

    def __init__(self, folder: Path, photos: ImageFolder, ids: Sequence[str], size: Size, store: Path) -> None:
        """store: maps of these photos."""
        self.folder, self.paths, self.size = folder / "bare", [photos.path(image_id) for image_id in ids], size
        opened = open_store(store)
        self.codes = [opened.read(image_id) for image_id in ids]
        self.maps = [resize_map(codes.astype(np.float32), size) for codes in self.codes]
        self.folder.mkdir(exist_ok=True)

    def __call__(self) -> None:
        for path, values, codes in zip(self.paths, self.maps, self.codes, strict=True):
            with Image.open(path) as picture:
                image = picture.convert("RGB")
            np.array(image.resize((self.size.width, self.size.height), Image.Resampling.BILINEAR))
            np.array(Image.fromarray(values).resize(image.size, Image.Resampling.BILINEAR))
            (self.folder / path.stem).write_bytes(numcodecs.zstd.compress(codes, 1))


def measured(work: Callable[[], Any]) -> tuple[float, float]:
    """(wall, processor) seconds of a call, all threads together."""
    started = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started[0], time.process_time() - started[1]


class Turns:
    """Works measured in rounds, each once a round, after a round that does not count."""

    def __init__(self, rounds: int, **works: Callable[[], Any]) -> None:
        every = [{name: measured(work) for name, work in works.items()} for _ in range(rounds + 1)]
        self.rounds = every[1:]

    def median(self, name: str, clock: int) -> float:
        """The seconds of a work in the median round; clock 0 is the wall's, 1 the processor's."""
        return statistics.median(each[name][clock] for each in self.rounds)

    def ratio(self, above: Sequence[str], below: str, clock: int) -> str:
        """The first of above, less the others, beside below, round by round: the median, the least, the greatest.

        Neighbours in time are compared, since a shared machine's speed drifts by more than what is looked for.
        """
        found = [
            (each[above[0]][clock] - sum(each[name][clock] for name in above[1:])) / each[below][clock]
            for each in self.rounds
        ]
        return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def beside(name: str, seconds: float, count: int) -> str:
    """A line of the table."""
    return f"| {name} | {1000 * seconds / count:,.1f} |"


def outside(folder: Path, photos: ImageFolder, ids: Sequence[str], size: Size, rounds: int) -> None:
    """Prints the processor time outside the forward pass."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    idle = Idle(MemberConfig(name="idle", model="idle", size=size))
    idle.load(None, "cpu")
    pipeline = Pipeline(folder, photos, ids, idle)
    pipeline()
    batches = inputs_of(photos, ids, size, idle)
    bare = BareParts(folder, photos, ids, size, folder / "pipeline.zarr")
    turns = Turns(rounds, pipeline=pipeline, forward=lambda: forwards(idle, batches), bare=bare)
    print(f"\nProcessor time a photo, network that does nothing at {size}, {len(ids)} photos, on the CPU:\n")
    print("| | ms |\n|---|--:|")
    print(beside("pipeline", turns.median("pipeline", 1), len(ids)))
    print(beside("of it normalising, in the forward pass", turns.median("forward", 1), len(ids)))
    print(beside("bare decoding, resizing there and back, encoding, writing", turns.median("bare", 1), len(ids)))
    torch.set_num_threads(threads)
    print(f"\noutside the forward pass beside bare: {turns.ratio(('pipeline', 'forward'), 'bare', 1)}")
    print(f"with normalising: {turns.ratio(('pipeline',), 'bare', 1)}")


def wall(
    folder: Path, photos: ImageFolder, ids: Sequence[str], size: Size, rounds: int, name: str, device: str
) -> None:
    """Prints the wall time of the pipeline beside that of the bare forward passes."""
    kind, _ = load_model(name)
    network: Any = kind(MemberConfig(name=name, model=name, size=size))
    network.load(None, device)
    batches = inputs_of(photos, ids, size, network)
    pipeline = Pipeline(folder, photos, ids, network)
    turns = Turns(rounds, pipeline=pipeline, forward=lambda: forwards(network, batches))
    whole = turns.median("pipeline", 0)
    where = torch.cuda.get_device_name(network.device) if network.device.type == "cuda" else network.device.type
    print(f"\nWall time a photo, {name} at {size}, {len(ids)} photos in batches of {len(batches[0])}, on {where}:\n")
    print("| | ms |\n|---|--:|")
    print(beside("pipeline", whole, len(ids)))
    print(beside("bare forward passes", turns.median("forward", 0), len(ids)))
    busy = 100 * pipeline.meter.network / pipeline.meter.seconds
    print(
        f"\npipeline beside bare forward passes: {turns.ratio(('pipeline',), 'forward', 0)}\n"
        f"{len(ids) / whole:.2f} photos a second (the winners: {WINNERS}); network at work {busy:.0f} % of the time"
    )


def main() -> None:
    """Prints both ratios."""
    parser = argparse.ArgumentParser(description="Prediction beside the network's own work.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--model", default="linknet34")
    parser.add_argument("--size", type=Size.parse, default=Size(1280, 1920))
    parser.add_argument("--count", type=int, default=64, help="photos for the processor time")
    parser.add_argument("--forward", type=int, default=8, help="photos for the wall time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--default-memory", action="store_true", help="let the C library give memory back at once")
    given = parser.parse_args()
    here = machine()
    kept = not given.default_memory and keep_freed_memory()  # as predict does; the bare parts have it, too
    memory = "kept" if kept else "as the C library has it"
    print(f"{here.processor}, {here.processors} processors; torch {here.versions['torch']}; freed memory: {memory}")
    if given.photos is None:
        make_sample(given.folder / "sample", cars=2)
    source = ImageFolder(given.photos or given.folder / "sample" / "train_hq")
    photos = repeated(source, given.folder / "photos", max(given.count, given.forward))
    outside(given.folder, photos, photos.ids[: given.count], given.size, given.rounds)
    wall(given.folder, photos, photos.ids[: given.forward], given.size, given.rounds, given.model, given.device)


if __name__ == "__main__":
    main()
