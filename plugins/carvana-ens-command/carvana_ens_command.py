"""Model ``command``: any program that turns a folder of photos into a folder of maps.

TensorFlow, nnU-Net, a shell script: what runs in an environment of its own is started once for many photos, never
through a shell, and everything that it was given or left behind is removed afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ens import Batch, MemberConfig, Model, Size, TrainingError, UsageError, option

Floats = NDArray[np.float32]

KINDS = (".png", ".npy", ".npz")
GRAYS = ("1", "L", "I;16")
"""Pillow's modes of PNG files with one channel, of 1, 8 and 16 bits."""
GRACE = 5.0
"""Seconds that a program has to end when it is asked to, before it is ended."""
LAST = 500
"""Characters of its last words that an error quotes."""


@dataclass(frozen=True)
class CommandOptions:
    """What ``carvana-ens add-model command --set NAME=VALUE`` can change.

    Raises:
        ValueError: a command without its folders, or a value out of its range.
    """

    command: str = option(
        "",
        "program and arguments, quoted as in a shell, which is not used; {images} and {maps} stand for two folders, "
        "{program}, {checkpoint}, {device} for the member's, {python} for the Python of carvana-ens",
    )
    program: str = option("", "a file for {program} in command; in ensemble.toml relative to that file", path=True)
    photo: str = option("{id}.png", "file name of a photo that the program is given; nnU-Net wants {id}_0000.png")
    form: Literal["any", "png", "npy", "npz"] = option("any", "files that are read as maps, where it writes others too")
    key: str = option("", "name of the array in .npz files; empty: the only one")
    channel: int = option(-1, "channel that is the object, from 0; -1: the only one, or the second of two")
    values: Literal["probabilities", "logits"] = option("probabilities", "what numbers in .npy and .npz files are")
    full: int = option(0, "whole number that is probability 1; 0: the greatest of its type, such as 255; labels have 1")
    batch: int = option(16, "photos that one start of the program is given, if they are of one size")
    timeout: float = option(3600.0, "seconds that one start may take")
    environment: str = option("", "variables set for the program, as in CUDA_VISIBLE_DEVICES=0 OMP_NUM_THREADS=4")

    def __post_init__(self) -> None:
        words = _words(self.command, "command")
        missing = [place for place in ("{images}", "{maps}") if words and not any(place in word for word in words)]
        if missing:
            raise ValueError(f"option command is {self.command!r}, without {' and '.join(missing)}: say where they go")
        _variables(self.environment)
        plain = self.photo.replace("{id}", "id")
        if "{id}" not in self.photo or not plain.endswith(".png") or Path(plain).name != plain:
            raise ValueError(f"option photo is {self.photo!r}: write a file name with {{id}} that ends in .png")
        for name, least in (("batch", 1), ("channel", -1), ("full", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"option {name} is {getattr(self, name)}: it must be {least} or more")
        if self.timeout <= 0:
            raise ValueError(f"option timeout is {self.timeout}: it must be greater than 0")


def _words(text: str, name: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"option {name} is {text!r}, which cannot be read ({error}): see to its quotes") from error


def _variables(text: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in _words(text, "environment")]
    if not all(name and sign for name, sign, _ in pairs):
        raise ValueError(f"option environment is {text!r}: write NAME=VALUE, with a space between two")
    return {name: value for name, _, value in pairs}


class Command(Model):
    """Runs a program on each batch of photos; a checkpoint, if the member has one, is handed to it."""

    Options = CommandOptions
    options: CommandOptions
    batch_size: ClassVar[int] = 16

    def __init__(self, config: MemberConfig) -> None:
        super().__init__(config)
        self.batch_size = self.options.batch  # type: ignore[misc]
        self.output = self.options.values  # type: ignore[misc]

    def load(self, checkpoint: Path | None, device: str) -> None:
        """Looks for the program, and puts its arguments together.

        Raises:
            UsageError: there is no such program, or command and member do not go together.
        """
        command, program = self.options.command, self.options.program
        if not command:
            raise UsageError('model command needs a program: --set "command=PROGRAM --input {images} --output {maps}"')
        for place, given, how in (
            ("{checkpoint}", checkpoint, "add-model --checkpoint FILE"),
            ("{program}", program, "--set program=FILE"),
        ):
            if (place in command) != bool(given):
                raise UsageError(
                    f"option command and {how} go together: give both, with {place} in command, or neither"
                )
        if program and not Path(program).is_file():
            raise UsageError(f"option program is {program}, which is no file: give its full path")
        known = {"{checkpoint}": checkpoint, "{program}": program, "{device}": device, "{python}": sys.executable}
        self._words = [_filled(word, known) for word in _words(command, "command")]
        if shutil.which(self._words[0]) is None:
            raise UsageError(f"program {self._words[0]} is not found: install it, or give its full path in command")

    def predict(self, batch: Batch) -> Floats:
        """(N, H, W) probabilities or logits, as the program writes them.

        Raises:
            UsageError: an option must say what its files mean.
            TrainingError: it fails, takes too long, or does not write the map of every photo.
        """
        with tempfile.TemporaryDirectory(prefix="carvana-ens-command-", ignore_cleanup_errors=True) as folder:
            images, maps, log = (Path(folder) / name for name in ("images", "maps", "log.txt"))
            try:
                images.mkdir()
                maps.mkdir()
                for image_id, image in zip(batch.ids, batch.images, strict=True):
                    name = self.options.photo.replace("{id}", image_id)
                    Image.fromarray(image).save(images / name, compress_level=1)
            except OSError as error:
                raise TrainingError(
                    f"photos for the program cannot be written into {folder}: {error.strerror or error}; set TMPDIR "
                    "to a folder with room"
                ) from error
            known = {"{images}": images, "{maps}": maps}
            self._run([_filled(word, known) for word in self._words], len(batch.ids), log)
            files = self._found(maps, batch.ids, log)
            read = [self._read(file, Size(*batch.images.shape[1:3])) for file in files]
        if self.options.full == 0 and {values.dtype.kind for values in read} == {"u"} and np.max(read) == 1:
            raise UsageError(
                f"the greatest value in the maps of {len(read)} photos, the first {batch.ids[0]}, is 1 of "
                f"{np.iinfo(read[0].dtype).max}: if they are labels 0 and 1, set full=1, else full to what "
                "is probability 1"
            )
        return np.stack([self._scaled(values) for values in read])

    def _run(self, words: Sequence[str], photos: int, log: Path) -> None:
        """Starts the program and waits for its end; its output goes to ``log``.

        Raises:
            TrainingError: it cannot be started, fails, or takes too long.
        """
        timeout = self.options.timeout
        try:
            with open(log, "wb") as output, _started(words, _variables(self.options.environment), output) as process:
                code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TrainingError(
                f"program {words[0]} took more than {timeout:g} s for {photos} photos and was ended{_last_words(log)}; "
                "set a longer timeout or a smaller batch"
            ) from error
        except OSError as error:
            raise TrainingError(f"program {words[0]} cannot be started: {error.strerror or error}") from error
        if code:
            told = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
            raise TrainingError(f"program {words[0]} {told}{_last_words(log)}")

    def _found(self, maps: Path, ids: Sequence[str], log: Path) -> list[Path]:
        """The file of each id.

        Raises:
            TrainingError: one has none, or several.
        """
        kinds = KINDS if self.options.form == "any" else (f".{self.options.form}",)
        written = {path.name for path in maps.iterdir()}
        found = {image_id: [image_id + kind for kind in kinds if image_id + kind in written] for image_id in ids}
        missing = [image_id for image_id, names in found.items() if not names]
        if missing:
            there = ", ".join(sorted(written)[:3]) + (" ..." if len(written) > 3 else "")
            raise TrainingError(
                f"program {self._words[0]} wrote no map for {len(missing)} of {len(ids)} photos, the first "
                f"{missing[0]} (as ID{', ID'.join(kinds)}); its folder has {there or 'nothing'}{_last_words(log)}"
            )
        several = next((names for names in found.values() if len(names) > 1), None)
        if several:
            raise TrainingError(f"program {self._words[0]} wrote {' and '.join(several)}: set form to the one to read")
        return [maps / names[0] for names in found.values()]

    def _read(self, file: Path, grid: Size) -> NDArray[Any]:
        """(H, W) values as they are in a file.

        Raises:
            UsageError: an option must say which array or channel is meant.
            TrainingError: it cannot be read, or is on another grid.
        """
        try:
            values = _picture(file) if file.suffix == ".png" else self._array(file)
        except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
            raise TrainingError(f"the map {file.name} that the program wrote cannot be read: {error}") from error
        channels: NDArray[Any] | None = None
        if values.shape[-2:] == grid:
            channels = values.reshape(-1, *grid)
        elif values.ndim == 3 and values.shape[:2] == grid:
            channels = np.moveaxis(values, -1, 0)
        if channels is None or values.dtype.kind not in "fbui":
            raise TrainingError(
                f"the map {file.name} is {values.dtype} of shape {values.shape}, and its photo is {grid} (height x "
                "width): let the program write numbers on the grid of the photos that it is given"
            )
        channel = self.options.channel
        if channel >= len(channels) or (channel < 0 and len(channels) > 2):
            raise UsageError(
                f"the map {file.name} has {len(channels)} channels: set option channel to the object's, from 0"
            )
        chosen: NDArray[Any] = channels[channel]
        return chosen

    def _array(self, file: Path) -> NDArray[Any]:
        with np.load(file, allow_pickle=False) if file.suffix == ".npz" else contextlib.nullcontext() as archive:
            if archive is None:
                return np.asarray(np.load(file, allow_pickle=False))
            key = self.options.key
            if key not in archive and (key or len(archive.files) != 1):
                raise UsageError(
                    f"the map {file.name} has the arrays {', '.join(archive.files) or 'none'}, and option key is "
                    f"{key!r}: set it to one of them"
                )
            return np.asarray(archive[key or archive.files[0]])

    def _scaled(self, values: NDArray[Any]) -> Floats:
        """(H, W) float32 of values of any type.

        Raises:
            UsageError: whole numbers where logits are to be, or with signs and no ``full``.
        """
        if values.dtype.kind == "f":
            return values.astype(np.float32)
        if self.options.values == "logits":
            raise UsageError(f"option values is logits, and the maps are {values.dtype}: set it to probabilities")
        full = self.options.full or {"b": 1, "u": 0, "i": -1}[values.dtype.kind] or np.iinfo(values.dtype).max
        if full < 0:
            raise UsageError(f"the maps are {values.dtype}: set option full to the number that is probability 1")
        return values.astype(np.float32) / np.float32(full)


def _filled(word: str, known: Mapping[str, object]) -> str:
    for place, value in known.items():
        word = word.replace(place, str(value))
    return word


@contextlib.contextmanager
def _started(
    words: Sequence[str], variables: Mapping[str, str], output: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that does not outlive the block, nor does what it started: they have a process group of their own."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=os.environ | dict(variables),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            try:
                _signal(process, "SIGTERM")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
            finally:
                _signal(process, "SIGKILL")
                process.wait()


def _signal(process: subprocess.Popen[bytes], name: str) -> None:
    """Sends a signal to the program's group, or ends the program alone on systems without groups."""
    if not hasattr(os, "killpg"):
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, getattr(signal, name))


def _last_words(log: Path) -> str:
    """What the program said last, for the end of a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = " | ".join(line.strip() for line in lines if line.strip())
    return f"; it said last: {said[-LAST:]}" if said else ""


def _picture(file: Path) -> NDArray[Any]:
    with Image.open(file, formats=("PNG",)) as picture:
        if picture.mode not in GRAYS:
            raise ValueError(f"it is a picture of mode {picture.mode}, not of one gray channel")
        return np.asarray(picture)
