"""What may hang or end Python is tried in a process of its own: importing libraries, kernels, and the devices of torch.

``python -m carvana_ens.verbs.doctor_probe NAME...`` with names of LIBRARIES, or ``kernels``, or ``torch``, writes a
line of JSON, [name, state, text], for each thing as soon as it is tried, so that the last line tells how far it came.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Literal

State = Literal["ok", "note", "broken"]
Tried = tuple[str, State, str]
LIBRARIES = {
    "entrypoints": "entrypoints",
    "filelock": "filelock",
    "google-crc32c": "google_crc32c",
    "isal": "isal.isal_zlib",
    "lz4": "lz4.block",
    "numba": "numba",
    "numcodecs": "numcodecs",
    "numpy": "numpy",
    "pandas": "pandas",
    "pillow": "PIL.Image",
    "tomlkit": "tomlkit",
    "zarr": "zarr",
}
"""What a blend needs, by distribution, and the module that shows whether it works."""


def probe(names: Sequence[str], seconds: float) -> list[Tried]:
    """Tries things in a new process; what that has not come to by its end, or in time, is broken."""
    command = [sys.executable, "-m", "carvana_ens.verbs.doctor_probe", *names]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        output, errors, ended = done.stdout, done.stderr, f"it ended Python with exit code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, errors, ended = error.stdout or b"", b"", f"it did not end within {seconds:g} s"
    found: list[Tried] = []
    finished = False
    for line in output.decode(errors="replace").splitlines():
        name, state, text = json.loads(line)
        finished = finished or name == ""
        if name:
            found.append((name, state, text))
    if not finished:
        tried = {name for name, _, _ in found}
        last = (errors.decode(errors="replace").strip().splitlines() or [""])[-1]
        due = next((name for name in names if name not in tried), names[-1])
        found.append((due, "broken", f"{ended}: {last}" if last else ended))
    return found


def _library(name: str) -> Tried:
    _module(LIBRARIES[name])
    return name, "ok", ""


def _kernels() -> Iterator[Tried]:
    jit = _module("carvana_ens.core.jit")
    if jit.config.DISABLE_JIT:
        yield "kernel cache", "note", "NUMBA_DISABLE_JIT is set: kernels run as plain Python, a hundred times slower"
    elif jit.FOLDER is None:
        place = os.environ.get("CARVANA_ENS_CACHE")
        where = f"CARVANA_ENS_CACHE={place} cannot be used" if place else "there is no private writable cache folder"
        yield "kernel cache", "note", f"{where}: every run compiles anew; set CARVANA_ENS_CACHE to a folder of your own"
    else:
        yield "kernel cache", "ok", str(jit.FOLDER)
    rle, numpy = _module("carvana_ens.core.rle"), _module("numpy")
    mask = numpy.zeros((9, 9), numpy.bool_)
    mask[2, 3:7] = mask[8, 8] = True
    text = rle.rle_encode(mask)
    if text != "22 4 81 1" or not (rle.rle_decode(text, mask.shape) == mask).all():
        yield "kernels", "broken", f"they encode a mask as {text!r}, not as '22 4 81 1': install numba anew"
    else:
        yield "kernels", "ok", "they compile, and encode a mask as they should"
    store, google = _module("carvana_ens.core.crc32c"), _module("google_crc32c")
    instruction = getattr(store, "_INSTRUCTION", None)
    if google.implementation != "c":
        advice = "checksums take many times longer; install a wheel of google-crc32c for this Python"
        yield "checksums", "note", f"google-crc32c runs as plain Python: {advice}"
    elif instruction is None:
        yield "checksums", "note", "this processor's own instruction is not used: reading packed stores takes longer"
    else:
        yield "checksums", "ok", f"google-crc32c in C; kernels use {instruction}"
    block = _module("lz4.block")
    data = bytes(range(256)) * 64
    if block.decompress(block.compress(data)) != data:
        yield "lz4", "broken", "it does not give back what it was given: install it anew"
    else:
        yield "lz4", "ok", _module("lz4").VERSION


def _torch() -> Iterator[Tried]:
    torch: Any = _module("torch")
    yield "torch", "ok", str(torch.__version__)
    try:
        _module("torchvision")
        yield "torchvision", "ok", ""
    except ImportError as error:
        yield "torchvision", "note", f"{_told(error)}: timm needs it"
    except Exception as error:  # noqa: BLE001 (a pair that does not fit raises anything)
        advice = f"install the torchvision that belongs to torch {torch.__version__}"
        yield "torchvision", "broken", f"{_told(error)}; it is of another build than torch: {advice}"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            known = torch.cuda.get_device_properties(number)
            total = float(torch.ones(1000, device=f"cuda:{number}").sum())
            right: State = "ok" if total == 1000 else "broken"
            yield f"cuda:{number}", right, f"{known.name}, {known.total_memory / 2**30:.0f} GiB"
    elif torch.version.cuda is not None:
        yield "cuda", "note", f"torch is built for CUDA {torch.version.cuda}, but finds no device that it can use"
    if torch.backends.mps.is_available():
        yield "mps", "ok", "Apple's GPU"
    yield "cpu", "ok", f"{torch.get_num_threads()} threads"


def _module(name: str) -> ModuleType:
    """By name: each library has one room that may import it, and here it is only looked at."""
    return importlib.import_module(name)


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _attempts(names: Sequence[str]) -> Iterator[Tried]:
    for name in names:
        try:
            if name in LIBRARIES:
                yield _library(name)
            else:
                yield from _kernels() if name == "kernels" else _torch()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a library that is broken raises anything)
            yield name, "broken", _told(error)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # libraries may print: not among the answers
        for attempt in _attempts(sys.argv[1:]):
            out.write(json.dumps(attempt) + "\n")
            out.flush()
        out.write(json.dumps(["", "ok", ""]) + "\n")
