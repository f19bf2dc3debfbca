"""Training and prediction at full size, images a second and memory: our networks beside segmentation-models-pytorch's.

    python tests/benchmarks/bench_gpu.py
    python tests/benchmarks/bench_gpu.py --only linknet34 unet11 --size 1280x1920 --batch 4 --precision float32

Networks with the same encoder take turns. A training step is forward, loss (binary cross-entropy and Dice), backward
and AdamW, on a batch that lies on the device; a prediction goes from uint8 photos to float32 maps in the computer's
memory.
From the speeds follows what the networks of Carvana's first place would take on this chip. Without a GPU everything is
small: 128x192 and float32. Random parameters, no weights are fetched. Needs carvana-ens[bench,models].
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carvana_ens import Batch, MemberConfig, Size
from carvana_ens.learn.parallel import Team
from carvana_ens.learn.steps import PRECISIONS, MiniBatch, Stepper
from carvana_ens.learn.torch_model import pick_device, place
from carvana_ens.registry import load_model
from carvana_ens.verbs.bench.machine import machine

MMAP_THRESHOLD = -3
"""glibc's number for mallopt."""
FULL, SMALL = Size(1280, 1920), Size(128, 192)
RATE = 1e-4
COMMON = {"loss": "bce,dice", "border": "0", "optimiser": "adamw", "clip_norm": 0.0}
"""The same step for every network of ours, whatever its own recipe says."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pair:
    """A model of ours with its options, and the peer's network with the same encoder, if it has one."""

    name: str
    model: str
    options: Mapping[str, object]
    peer: tuple[str, Callable[[], nn.Module]] | None = None


PAIRS = (
    Pair(
        "linknet34", "linknet34", {}, ("smp.Linknet, resnet34", lambda: smp.Linknet("resnet34", encoder_weights=None))
    ),
    Pair("unet11", "unet11", {}, ("smp.Unet, vgg11", lambda: smp.Unet("vgg11", encoder_weights=None))),
    Pair("unet-vgg11-v1", "unet-vgg11-v1", {}, ("smp.Unet, vgg11", lambda: smp.Unet("vgg11", encoder_weights=None))),
    Pair(
        "timm-unet, resnet34",
        "timm-unet",
        {"encoder": "resnet34"},
        ("smp.Unet, resnet34", lambda: smp.Unet("resnet34", encoder_weights=None)),
    ),
    Pair("unet-scratch", "unet-scratch", {}),
    Pair("refinenet-v4", "refinenet-v4", {}),
)


class Solved(NamedTuple):
    """One of the four groups of networks of Carvana's first place, as its code has them: model of ours, folds of cars,
    times that all folds were trained, epochs of each, input size, and flips of a prediction.
    """

    group: str
    model: str
    folds: int
    times: int
    epochs: int
    size: Size
    flips: int


FIRST_PLACE = (
    Solved("asanakoy, scratch", "unet-scratch", 7, 1, 250, Size(1024, 1024), 1),
    Solved("asanakoy, VGG11", "unet-vgg11-v1", 7, 1, 60, Size(1024, 1024), 1),
    Solved("albu, LinkNet34", "linknet34", 5, 6, 40, FULL, 2),
    Solved("ternaus, UNet11", "unet11", 5, 1, 52, FULL, 1),
)
STATED = (2140, 320)
"""Hours on Titan X Pascal that the team states for training and for prediction (its README)."""
PHOTOS, TEST_PHOTOS = 318 * 16, 100_064


@dataclass(frozen=True)
class Task:
    """What everybody works on: photos (N, H, W, 3) uint8, and a batch on the device."""

    photos: NDArray[np.uint8]
    inputs: Tensor
    targets: Tensor
    precision: str

    @property
    def device(self) -> torch.device:
        return self.inputs.device


class Way(NamedTuple):
    """A network with its two jobs; predict answers (N, H, W) float32."""

    parameters: int
    step: Callable[[], object]
    predict: Callable[[], NDArray[np.float32]]


class Measured(NamedTuple):
    """Seconds for a photo, median and median absolute deviation over the rounds, and bytes at most."""

    seconds: float
    spread: float
    memory: int | None


class Row(NamedTuple):
    name: str
    parameters: int
    train: Measured
    predict: Measured


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def our_way(pair: Pair, task: Task) -> Way:
    model_class, _ = load_model(pair.model)
    model = model_class(
        MemberConfig(name="bench", model=pair.model, options={**COMMON, **pair.options, "precision": task.precision})
    )
    network = place(model.fresh_network(0), task.device, model.options.channels_last)
    stepper = Stepper(model, network, model.options, task.device, Team())
    stepper.train()
    batch = [MiniBatch(task.inputs, task.targets, 1.0, len(task.inputs))]
    ids = tuple(f"car_{number:02d}" for number in range(len(task.photos)))
    seen = Batch(task.photos, ids, ("car",) * len(ids))
    predictor = model_class(model.config)
    predictor.load(None, str(task.device))
    return Way(count(network), lambda: stepper.step(batch, 1, RATE), lambda: predictor.predict(seen))


def peers_way(make: Callable[[], nn.Module], task: Task) -> Way:
    """The library's network in the loop that its users write, laid out in memory as ours is."""
    network, predictor = (place(make(), task.device) for _ in range(2))
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    cross_entropy, dice = nn.BCEWithLogitsLoss(), smp.losses.DiceLoss("binary")
    dtype = PRECISIONS[task.precision]
    mean, deviation = (torch.tensor(values, device=task.device)[None, :, None, None] for values in (MEAN, DEVIATION))
    network.train()
    predictor.eval()

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(task.device.type, dtype, enabled=dtype != torch.float32):
            images = ((task.inputs - mean) / deviation).contiguous(memory_format=torch.channels_last)
            logits = network(images)
        (cross_entropy(logits.float(), task.targets) + dice(logits.float(), task.targets)).backward()
        optimiser.step()

    def predict() -> NDArray[np.float32]:
        with torch.inference_mode():
            images = torch.from_numpy(task.photos).to(task.device).permute(0, 3, 1, 2).float() / 255
            logits = predictor(((images - mean) / deviation).contiguous(memory_format=torch.channels_last))
        return logits[:, 0].float().cpu().numpy()

    return Way(count(network), step, predict)


def memory_of(job: Callable[[], object], device: torch.device) -> int | None:
    """Bytes of the device at most while the job runs, beyond what it finds; on a CPU of this process, on Linux."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        job()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        with _freed_at_once():
            Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what there is now
            before = _status("VmRSS")
            job()
            return _status("VmHWM") - before
    except (AttributeError, OSError):  # not Linux with glibc
        return None


@contextmanager
def _freed_at_once() -> Iterator[None]:
    """What is freed goes back to the system, and what is allocated comes from it; else the peak would not show it."""
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    libc.mallopt(MMAP_THRESHOLD, 1 << 16)
    try:
        yield
    finally:
        libc.mallopt(MMAP_THRESHOLD, 1 << 25)  # where glibc's own rule ends


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def seconds_of(job: Callable[[], object], device: torch.device, calls: int) -> float:
    """Of a call: by the clock on a GPU, elsewhere CPU time of all threads, which other programs hardly change."""
    clock = time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        clock = time.perf_counter
    start = clock()
    for _ in range(calls):
        job()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - start) / calls


def measured(pair: Pair, task: Task, rounds: int, calls: int) -> list[Row]:
    """Ours and the peer in turns, both jobs; the first call of each is not timed, but its memory is taken."""
    makers: list[tuple[str, Callable[[], Way]]] = [(pair.name, lambda: our_way(pair, task))]
    if pair.peer is not None:
        title, make = pair.peer
        makers.append((title, lambda: peers_way(make, task)))
    ways = {name: make() for name, make in makers}
    memory: dict[tuple[str, str], int | None] = {}
    times: dict[tuple[str, str], list[float]] = {}
    for name, way in ways.items():
        maps = way.predict()
        if maps.shape != task.photos.shape[:3] or not np.isfinite(maps).all():
            raise SystemExit(f"{name} answers {maps.shape}, or values that are not finite: its time would say nothing")
        for what, job in (("step", way.step), ("predict", way.predict)):
            job()
            memory[name, what] = memory_of(job, task.device)
            times[name, what] = []
    for _ in range(rounds):
        for name, way in ways.items():
            for what, job in (("step", way.step), ("predict", way.predict)):
                times[name, what].append(seconds_of(job, task.device, calls) / len(task.photos))

    def result(name: str, what: str) -> Measured:
        middle = statistics.median(times[name, what])
        spread = statistics.median(abs(value - middle) for value in times[name, what])
        return Measured(middle, spread, memory[name, what])

    return [Row(name, way.parameters, result(name, "step"), result(name, "predict")) for name, way in ways.items()]


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def cells_of(job: Measured, ours: Measured) -> list[str]:
    memory = "-" if job.memory is None else f"{job.memory / 2**30:.2f}"
    return [
        f"{1 / job.seconds:.2f}",
        f"{100 * job.spread / job.seconds:.0f}%",
        memory,
        f"{job.seconds / ours.seconds:.2f}",
    ]


def shown(pairs: Sequence[Sequence[Row]]) -> str:
    titles = ["images/s", "+-", "GiB", "x ours"]
    lines = [["", "parameters", *(f"train {titles[0]}", *titles[1:]), *(f"predict {titles[0]}", *titles[1:])]]
    for rows in pairs:
        for place_, row in enumerate(rows):
            ours = rows[0]
            name = row.name if place_ == 0 else f"  {row.name}"
            jobs = [*cells_of(row.train, ours.train), *cells_of(row.predict, ours.predict)]
            lines.append([name, f"{row.parameters:,}", *jobs])
    return table(lines)


def restated(rows: Mapping[str, Row], size: Size, chip: str) -> str:
    """Hours of the first place's 49 networks on this chip, by the measured speeds and the pixels of each photo."""
    lines = [["", "networks", "epochs", "input", "train h", "predict h"]]
    total = [0.0, 0.0]
    for solved in FIRST_PLACE:
        row = rows[solved.model]
        pixels = solved.size.height * solved.size.width / (size.height * size.width)
        networks = solved.folds * solved.times
        held_out = PHOTOS / solved.folds
        epoch = (PHOTOS - held_out) * row.train.seconds + held_out * row.predict.seconds
        hours = [
            networks * solved.epochs * epoch * pixels / 3600,
            networks * TEST_PHOTOS * solved.flips * row.predict.seconds * pixels / 3600,
        ]
        total = [a + b for a, b in zip(total, hours, strict=True)]
        lines.append(
            [solved.group, str(networks), str(solved.epochs), str(solved.size), *(f"{value:,.0f}" for value in hours)]
        )
    lines.append(["together", "49", "", "", *(f"{value:,.0f}" for value in total)])
    lines.append(["as the team states, Titan X Pascal", "49", "", "", *(f"{value:,}" for value in STATED)])
    note = (
        ""
        if size == FULL
        else (
            f"\nFrom {size} by pixels: the optimiser's share of a step is far larger there, so that these are too many."
        )
    )
    return f"the first place's networks on {chip} (a validation an epoch, batches of this run)\n{table(lines)}{note}"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--size", type=Size.parse, help="HxW; default: 1280x1920 on a GPU, 128x192 on a CPU")
    parser.add_argument("--batch", type=int, default=2, help="photos of a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, help="steps of a round; default: 10 on a GPU, 1 on a CPU")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="of training; default: bfloat16 on a GPU")
    parser.add_argument("--only", nargs="+", choices=[pair.name for pair in PAIRS], help="of our networks")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    device = pick_device(options.device)
    gpu = device.type == "cuda"
    size = options.size or (FULL if gpu else SMALL)
    precision = options.precision or ("bfloat16" if gpu else "float32")
    calls = options.calls or (10 if gpu else 1)
    here = machine()
    threads = torch.get_num_threads()
    chip = torch.cuda.get_device_name(device) if gpu else f"{here.processor}, {threads} of {here.processors} processors"
    random = np.random.default_rng(0)
    photos = random.integers(0, 256, (options.batch, *size, 3), np.uint8)
    inputs = torch.from_numpy(photos).to(device).permute(0, 3, 1, 2).float() / 255
    targets = torch.zeros(options.batch, 1, *size, device=device)
    targets[..., size.height // 4 : size.height * 3 // 4, size.width // 4 : size.width * 3 // 4] = 1
    task = Task(photos, inputs, targets, precision)
    print(f"{chip}; torch {torch.__version__}, smp {smp.__version__}")
    print(
        f"{size}, batches of {options.batch}, training in {precision}, prediction in float32, median of "
        f"{options.rounds} rounds, {'wall-clock' if gpu else 'CPU'} time\n"
    )
    results: list[list[Row]] = []
    for pair in PAIRS:
        if options.only is None or pair.name in options.only:
            results.append(measured(pair, task, options.rounds, calls))
            gc.collect()
            if gpu:
                torch.cuda.empty_cache()
    print(shown(results))
    by_name = {rows[0].name: rows[0] for rows in results}
    if all(solved.model in by_name for solved in FIRST_PLACE):
        print("\n" + restated(by_name, size, chip))


if __name__ == "__main__":
    main()
