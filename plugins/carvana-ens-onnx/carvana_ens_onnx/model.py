"""Model ``onnx``: a segmentation network in an ONNX file, run by ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ens import Batch, Model, Size, TrainingError, UsageError
from carvana_ens_onnx.described import activation_of, options_in, read_file
from carvana_ens_onnx.options import OnnxOptions, channel_of, normalising, object_logits

Floats = NDArray[np.float32]

PROVIDERS = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
"""ONNX Runtime's providers by device; a GPU of NVIDIA needs the package onnxruntime-gpu."""
CPU = "CPUExecutionProvider"
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


class Onnx(Model):
    """The checkpoint is the ONNX file. What it does not say of itself, the options must."""

    Options = OnnxOptions
    options: OnnxOptions
    batch_size: ClassVar[int] = 4

    def load(self, checkpoint: Path | None, device: str) -> None:
        """Reads the file, and takes its input size for the member's if it has one.

        Args:
            checkpoint: the ONNX file, all in one.
            device: auto, cpu, cuda (or cuda:1, ...) or mps.

        Raises:
            UsageError: no file, a device that is not there, or what the file does not say and the options must.
            TrainingError: the file cannot be used.
        """
        if checkpoint is None:
            raise UsageError("model onnx predicts with a file: carvana-ens add-model onnx --checkpoint FILE.onnx")
        proto = read_file(checkpoint)
        found = options_in(proto, checkpoint)
        if found:  # checked as the member's own are, which go before them
            both = dataclasses.replace(self.config, options={**found, **self.config.options})
            self.options = type(self)(both).options
        self._path = checkpoint
        self._session = _session(checkpoint, device, self.options.threads)
        try:
            self._find_input()
            self._output = _map_output(self._session.get_outputs(), self.options.output)
            activation = self.options.activation
            self._activation = activation_of(proto, self._output) if activation == "file" else activation
        except UsageError as error:
            raise UsageError(f"{checkpoint}: {error}") from error
        self.output = "probabilities" if self._activation == "none" else "logits"  # type: ignore[misc]

    def _find_input(self) -> None:
        """Name, layout, size, photos at once, colour and dtype of the input.

        Raises:
            UsageError: it is no photo's, or the file does not tell and the options must.
        """
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(item.name for item in inputs)
            raise UsageError(f"it has {len(inputs)} inputs ({names}), not one for the photos: export it with one")
        self._input: str = inputs[0].name
        shape, kind = inputs[0].shape, inputs[0].type
        told = f"input {self._input} is {kind} of {shape}"
        if kind not in DTYPES:
            raise UsageError(f"{told}: export it with an input of {', '.join(DTYPES)}")
        if len(shape) != 4:
            raise UsageError(
                f"{told}, which has not the four axes of photos: export it as (N, C, H, W) or (N, H, W, C)"
            )
        fixed = [side if isinstance(side, int) and side > 0 else None for side in shape]
        layouts = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if fixed[axis] in (1, 3)]
        layout = self.options.layout
        if layout == "file":
            if len(layouts) != 1:
                raise UsageError(f"{told}, where channels cannot be told from sides: set layout to nchw or nhwc")
            layout = layouts[0]  # type: ignore[assignment]
        elif layout not in layouts:
            raise UsageError(f"{told}, without one or three channels where layout={layout} has them: change the layout")
        self._first = layout == "nchw"
        channels, sides = (fixed[1], fixed[2:]) if self._first else (fixed[3], fixed[1:3])
        self._at_once = fixed[0]
        self._fit_size(sides)
        colour = self.options.colour
        if colour == "file":
            colour = "gray" if channels == 1 else "rgb"
        if (colour == "gray") != (channels == 1):
            raise UsageError(f"{told}, and option colour is {colour}: leave it out")
        self._normalised = normalising(self.options, colour, np.dtype(DTYPES[kind]))

    def _fit_size(self, sides: list[int | None]) -> None:
        """Takes the input size that the file fixes, or checks that the member's own is no other.

        Raises:
            UsageError: it is another, or the file fixes one side and the member has no size.
        """
        own, height, width = self.config.size, *sides
        if own is None and height is not None and width is not None:
            self.size = Size(height, width)  # type: ignore[misc]
        elif any(side is not None and (own is None or own[axis] != side) for axis, side in enumerate(sides)):
            fixed = "x".join("any" if side is None else str(side) for side in sides)
            raise UsageError(f"its input is {fixed} (height x width), and the member's size is {own}: set --size so")

    def predict(self, batch: Batch) -> Floats:
        """(N, H, W) probabilities or logits, on the grid of the photos.

        Raises:
            UsageError: the options do not say which channel is the object.
            TrainingError: the network does not take photos of this size, or answers with no map.
        """
        height, width = batch.images.shape[1:3]
        multiple = self.options.multiple
        margins = ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0))
        images = np.pad(batch.images, margins, "edge") if multiple > 1 else batch.images
        inputs = self._normalised(images)
        grid = Size(*inputs.shape[1:3])
        answer = self._run(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2) if self._first else inputs), grid)
        maps = self._object(self._channels(answer, grid))
        if maps.shape[1:] != grid:
            maps = np.stack([_resized(values, grid) for values in maps])
        return np.ascontiguousarray(maps[:, :height, :width])

    def _run(self, inputs: NDArray[np.generic], grid: Size) -> Any:
        """What the network answers to all inputs, in as many photos at once as the file wants."""
        step = self._at_once or len(inputs)
        answers = []
        for start in range(0, len(inputs), step):
            part = inputs[start : start + step]
            spare = np.repeat(part[-1:], step - len(part), axis=0)
            try:
                answer = self._session.run([self._output], {self._input: np.concatenate([part, spare])})[0]
            except Exception as error:  # ONNX Runtime's exceptions have no other base
                raise TrainingError(
                    f"{self._path} fails on photos of {grid}: {_line(error)}; if its sides must be multiples of some "
                    "number, set multiple=32, or give the member the --size that it was trained at"
                ) from error
            answers.append(answer[: len(part)])
        return np.concatenate(answers)

    def _channels(self, answer: Any, grid: Size) -> list[Floats]:
        """The channels of the output, each (N, h, w).

        Raises:
            TrainingError: it is no map of the photo.
        """
        if answer.dtype.kind == "f" and answer.ndim == 3:
            answer = answer[:, None]
        axes = [axis for axis in (1, 3) if answer.ndim == 4 and _alike(np.delete(answer.shape[1:], axis - 1), grid)]
        if answer.dtype.kind != "f" or not axes:
            raise TrainingError(
                f"{self._path} answers photos of {grid} with {self._output}: {answer.dtype} of shape {answer.shape}, "
                "which are no maps of probabilities or logits: name another with option output, or export it so"
            )
        own = 1 if self._first else 3
        channels = np.moveaxis(answer, own if own in axes else axes[0], 0)
        return list(channels.astype(np.float32, copy=False))

    def _object(self, channels: list[Floats]) -> Floats:
        try:
            channel, activation = channel_of(len(channels), self.options, self._activation)
        except UsageError as error:
            raise UsageError(f"{self._path}: {error}") from error
        return object_logits(channels, channel) if activation == "softmax" else channels[channel]


def _session(path: Path, device: str, threads: int) -> Any:
    """An onnxruntime.InferenceSession of the file on the device.

    Raises:
        UsageError: the device is not there.
        TrainingError: ONNX Runtime does not take the file.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4  # what it raises is told by us
    asked = _providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(path, settings, providers=asked)
    except Exception as error:  # its exceptions have no other base
        raise TrainingError(
            f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {_line(error)}"
        ) from error
    if device not in ("auto", "cpu") and session.get_providers()[0] == CPU:
        raise UsageError(f"ONNX Runtime cannot start device {device} here: see to its driver and CUDA, or use auto")
    return session


def _providers(device: str, available: list[str]) -> list[Any]:
    """Providers to ask for, the CPU last, which takes what others cannot do.

    Raises:
        UsageError: the device is unknown, or not among those that are available.
    """
    kind, _, index = device.partition(":")
    if kind == "auto":
        return [name for name in (PROVIDERS["cuda"], CPU) if name in available]
    if device == "cpu":
        return [CPU]
    if kind not in PROVIDERS or not (index.isdecimal() or device == kind):
        raise UsageError(f"device {device!r} is unknown: use auto, cpu, cuda or mps")
    if PROVIDERS[kind] not in available:
        raise UsageError(
            f"device {device} is not there: ONNX Runtime has {', '.join(available)}; use auto or cpu"
            + (", or pip install onnxruntime-gpu in place of onnxruntime" if kind == "cuda" else "")
        )
    return [(PROVIDERS[kind], {"device_id": index or "0"} if kind == "cuda" else {}), CPU]


def _map_output(outputs: list[Any], name: str) -> str:
    """The name of the output that is the map.

    Raises:
        UsageError: none is named so, or several may be meant.
    """
    names: list[str] = [item.name for item in outputs]
    if name and name not in names:
        raise UsageError(f"option output is {name!r}, and its outputs are {', '.join(names)}: name one of them")
    if name:
        return name
    maps: list[str] = [item.name for item in outputs if len(item.shape or ()) in (0, 3, 4)]
    if len(maps) != 1:
        told = ", ".join(f"{item.name} {item.shape}" for item in outputs)
        raise UsageError(f"it has several outputs or none that is a map ({told}): set output to the name of the map")
    return maps[0]


def _alike(sides: NDArray[np.int_], grid: Size) -> bool:
    """Whether a grid has the proportions of the photo's, to within a pixel; one pixel alone tells nothing of them."""
    height, width = map(int, sides)
    near = abs(height * grid.width - width * grid.height) < min(grid)
    return (height, width) == grid or (near and height * width > 1)


def _resized(values: Floats, grid: Size) -> Floats:
    """(H, W) float32, bilinear between the centres of pixels, as the host resizes maps."""
    resized = Image.fromarray(values).resize((grid.width, grid.height), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.float32)


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
