"""Network parameters and training states on disk: safetensors, written whole or not at all, never code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from carvana_ens.errors import TrainingError
from carvana_ens.files import replacing
from carvana_ens.types import Json

WRAPPERS = ("state_dict", "model_state_dict", "model")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Json]) -> None:
    """Replaces ``path`` by a safetensors file; ``document`` goes into its header, one JSON text a key.

    Raises:
        CarvanaEnsError: the file cannot be written.
    """
    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    header = {key: json.dumps(value) for key, value in document.items()}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, metadata=header)
    except SafetensorError as error:
        raise TrainingError(f"{path} cannot be written ({_line(error)}): make room on the disk") from error


def read_header(path: Path) -> dict[str, Json]:
    """What ``write_tensors`` put into the header of a file.

    Raises:
        TrainingError: the file cannot be read, or is no whole safetensors file of ours.
    """
    return _read(path, tensors=False)[1]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """The tensors, on the CPU, and the document of a file that ``write_tensors`` wrote; errors as ``read_header``."""
    return _read(path, tensors=True)


def _read(path: Path, tensors: bool) -> tuple[dict[str, Tensor], dict[str, Json]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            document = {key: json.loads(text) for key, text in (file.metadata() or {}).items() if key != "format"}
            return {name: file.get_tensor(name) for name in file.keys()} if tensors else {}, document  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainingError(
            f"{path} is no readable safetensors file ({_line(error)}): remove it or make it anew"
        ) from error


def read_parameters(path: Path) -> dict[str, Tensor]:
    """The parameters in a checkpoint, on the CPU: ours, any .safetensors, or a foreign .pt / .pth.

    A foreign file is read with torch's ``weights_only``, which builds tensors and runs no code. Parameters that lie
    under ``state_dict`` or ``model``, and the ``module.`` that DataParallel puts before every name, are unwrapped.

    Raises:
        TrainingError: the file is missing, truncated, holds code, or holds no parameters.
    """
    if path.suffix.lower() == ".safetensors":
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"checkpoint {path} cannot be read ({_line(error)}): give a whole .safetensors file"
            ) from error
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TrainingError(
            f"checkpoint {path} holds more than parameters, and loading it could run code: "
            "ask its author for a .safetensors file, or for torch.save(network.state_dict(), ...)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise TrainingError(
            f"checkpoint {path} cannot be read ({_line(error)}): give a .safetensors or .pt file"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise TrainingError(f"checkpoint {path} holds no table of parameters: save network.state_dict()")
    prefix = "module." if all(name.startswith("module.") for name in found) else ""
    return {name.removeprefix(prefix): value for name, value in found.items()}


def fit_parameters(network: nn.Module, parameters: Mapping[str, Tensor], path: Path) -> None:
    """Copies the parameters into the network; names and shapes must match one to one.

    Raises:
        TrainingError: they differ; the line names the file and the first names that do.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in parameters]
    foreign = [name for name in parameters if name not in own]
    shapes = [
        f"{name} is {_shape(parameters[name])}, not {_shape(own[name])}"
        for name in own
        if name in parameters and parameters[name].shape != own[name].shape
    ]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unknown", foreign), ("of another shape", shapes))
        if names
    ]
    if parts:
        raise TrainingError(
            f"checkpoint {path} does not fit this network of {len(own)} tensors: {'; '.join(parts)}. "
            "Use the model and the options it was trained with"
        )
    network.load_state_dict(dict(parameters))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
