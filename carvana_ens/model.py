"""The plugin contract: what a model is given, what it answers, and how it is configured.

A plugin is one class derived from Model (or from carvana_ens.TorchModel), registered under the entry-point group
``carvana_ens.models``. The host does what all models share: decoding, resizing to the model's input and back,
test-time augmentation, sigmoid, quantising, storing. Nothing here imports torch, zarr or numba.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from carvana_ens.errors import PluginError, UsageError
from carvana_ens.types import Image, Images, Json, Mask, ModelMaps, ProbabilityMap, Size

Output = Literal["probabilities", "logits"]
Context = Literal["image", "group"]
PSEUDO_SHARE = 0.3
"""A member's default share of pseudo-labels: what JunhongXu's Carvana solution drew."""
TTA = ("hflip", "vflip", "transpose")
"""The flips of test-time augmentation by name; each adds itself to every view so far, and the plain view is always in.

hflip and vflip together are the 4-way flip, all three the eight symmetries of a square. Beside them ``x0.75`` (any
factor from 0.1 to 8) adds the views of the photo at that scale of the input size.
"""
_SCALE = re.compile(r"x([0-9]{1,2}(?:\.[0-9]{1,4})?)")


@dataclass(frozen=True)
class MemberConfig:
    """A configured model in a project: everything that decides its maps, apart from the data.

    ``size`` is the input size of the model (None: the model's own default, or the photo's grid where it has none).
    ``folds`` names the fold table. ``checkpoint`` is a file (relative to the project) that predicts without training,
    ``sha256`` what it must hash to, ``out_of_fold`` the user's word that it has not seen the training photos.
    ``like`` is another member whose checkpoints this one uses at its own size.
    ``options`` are the model's options as plain JSON values; only what differs from the defaults need be there.
    ``views`` are those that it is trained on, as ids have them behind the group (empty: all). ``pseudo`` names the
    pseudo-labels mixed into its training, ``pseudo_share`` their share of each mini-batch. ``tile`` is the size of the
    parts in which a photo is predicted (on the grid of ``size``, or on its own where that is None), ``overlap`` how
    many pixels neighbours share at least (None: an eighth of a tile).
    """

    name: str
    model: str
    size: Size | None = None
    tta: tuple[str, ...] = ()
    folds: str = "default"
    checkpoint: str | None = None
    sha256: str | None = None
    like: str | None = None
    out_of_fold: bool = False
    seed: int = 0
    options: Mapping[str, Json] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    pseudo: str | None = None
    pseudo_share: float = PSEUDO_SHARE
    tile: Size | None = None
    overlap: int | None = None

    def to_json(self) -> dict[str, Json]:
        """Plain JSON values; ``from_json`` gives the same config back."""
        document: dict[str, Json] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        document["size"] = None if self.size is None else str(self.size)
        document["tta"] = list(self.tta)
        document["options"] = dict(self.options)
        document["views"] = list(self.views)
        # left out while unset, so that what was stamped before they existed compares equal
        if not self.views:
            del document["views"]
        if self.pseudo is None:
            del document["pseudo"], document["pseudo_share"]
        if self.tile is None:
            del document["tile"], document["overlap"]
        else:
            document["tile"] = str(self.tile)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> MemberConfig:
        """The config that ``to_json`` described."""
        values = dict(document)
        for key in ("size", "tile"):
            if values.get(key) is not None:
                values[key] = Size.parse(values[key])
        values["tta"] = tuple(values.get("tta", ()))
        values["views"] = tuple(values.get("views", ()))
        return cls(**values)


def scale_of(name: str) -> float | None:
    """The factor of a test-time augmentation such as ``x0.75``; None where it is no scale."""
    match = _SCALE.fullmatch(name)
    return None if match is None or not 0.1 <= float(match[1]) <= 8 else float(match[1])


def tta_fault(names: Sequence[str]) -> str | None:
    """What is wrong with test-time augmentations, as the rest of a sentence; None where nothing is."""
    for name in names:
        if name not in TTA and scale_of(name) in (None, 1.0):
            return f"{name!r} is unknown: use {', '.join(TTA)}, or a scale such as x0.75"
    doubled = [name for name in names if list(names).count(name) > 1]
    return f"{doubled[0]!r} is there twice: name each once" if doubled else None


@dataclass(frozen=True)
class Batch:
    """Photos of one size, as the model's input grid has them.

    images: (N, H, W, 3) uint8 RGB. ids: N image ids. groups: N groups (the car of each photo); a model of context
    "group" gets exactly all views of one group.
    """

    images: Images
    ids: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def group(self) -> str:
        """The one group of all images in the batch.

        Raises:
            ValueError: the batch holds photos of several groups.
        """
        if len(set(self.groups)) != 1:
            raise ValueError(f"a batch of {len(self.ids)} photos has {len(set(self.groups))} groups: use .groups")
        return self.groups[0]


class MapWriter(Protocol):
    """Takes a model's maps, in any order, each id of the batches exactly once."""

    def write(self, image_id: str, values: ModelMaps) -> None:
        """values: (H, W) float32 on the grid that the batch had; probabilities or logits, as the model declares."""


class Samples(Protocol):
    """Photos with their masks, read one at a time."""

    @property
    def ids(self) -> Sequence[str]: ...

    def image(self, image_id: str) -> Image: ...

    def mask(self, image_id: str) -> Mask: ...


@runtime_checkable
class SoftSamples(Samples, Protocol):
    """Photos of which some have soft masks (pseudo-labels)."""

    def target(self, image_id: str) -> ProbabilityMap:
        """(H, W) float32 in [0, 1], what ``mask`` was cut from at 0.5; of a plain mask 0 and 1."""


@dataclass(frozen=True)
class FitTask:
    """One fold to train.

    train, valid: photos with masks on their own grid (valid: the held-out fold). Where other photos are mixed in,
    train is :class:`SoftSamples`; the shares of mini-batches that they have are kept by torch networks. directory:
    where the checkpoints lie; a file left there by a stopped run of the same task is to be resumed. report: called
    after each epoch with its numbers (``epoch``, ``epochs``, ``loss``, ``dice``, ...). digest identifies the task
    (config, fold table, data); a state with another digest is not to be resumed.
    """

    train: Samples
    valid: Samples
    directory: Path
    digest: str
    seed: int
    device: str
    report: Callable[[Mapping[str, float]], None]


@dataclass(frozen=True)
class FitResult:
    """checkpoint: the best parameters, in ``task.directory``. dice: mean Dice on ``task.valid``. epochs: run in all."""

    checkpoint: Path
    dice: float
    epochs: int


@dataclass(frozen=True)
class NoOptions:
    """A model without options."""


def option(default: Any, help: str, *, path: bool = False) -> Any:
    """A field of an options dataclass, with the line that ``carvana-ens models NAME`` shows for it.

    path: a text that may name a file; in ensemble.toml it is relative to that file, and the model is handed the
    absolute path. A text that names no file is left as it is.
    """
    return field(default=default, metadata={"help": help, "path": path})


@dataclass(frozen=True)
class Recipe:
    """A named set of option values, as somebody trained the model with them.

    help: one line: whose it is, and what of it cannot be had here. size, tta: of the member, where the recipe has its
    own. options: plain JSON values, which ``add-model --recipe`` writes into ensemble.toml; see ``recipes_of``.
    """

    help: str
    size: Size | None = None
    tta: tuple[str, ...] = ()
    options: Mapping[str, Json] = field(default_factory=dict)


MODERN = "modern"
"""The recipe that every model with options has."""


def path_options(cls: type) -> list[str]:
    """Names of the options of a dataclass that were declared with ``path=True``."""
    return [f.name for f in dataclasses.fields(cls) if f.metadata.get("path", False)]


class Model:
    """A segmentation model in any framework.

    Class attributes say what the host must know:
        Options: a frozen dataclass of JSON values with defaults.
        output: "probabilities" in [0, 1], or "logits" (the host averages augmented views in this space, then
            applies the sigmoid).
        context: "image", or "group" for a model that must see all views of one group at once.
        trainable: whether ``fit`` is implemented.
        size: the default input size; None runs on each photo's own grid.
        batch_size: photos that ``predict`` is given at once (context "image").
        recipes: named option values, as somebody trained it. One named "modern" changes what the recipe of that name
            has anyway: every option with its default.
    """

    Options: ClassVar[type] = NoOptions
    output: ClassVar[Output] = "probabilities"
    context: ClassVar[Context] = "image"
    trainable: ClassVar[bool] = False
    size: ClassVar[Size | None] = None
    batch_size: ClassVar[int] = 1
    recipes: ClassVar[Mapping[str, Recipe]] = {}

    def __init__(self, config: MemberConfig) -> None:
        """Checks the options; heavy work waits for ``load``.

        Raises:
            UsageError: an unknown option, or a value of the wrong type.
        """
        self.config = config
        self.options = parse_options(self.Options, config.options)

    def load(self, checkpoint: Path | None, device: str) -> None:
        """Gets ready to predict. checkpoint: a file that ``fit`` or the user made, None for an untrained model."""

    def predict(self, batch: Batch) -> ModelMaps:
        """(N, H, W) float32 on the grid of ``batch.images``, in the space that ``output`` declares."""
        raise NotImplementedError

    def predict_all(self, batches: Iterable[Batch], writer: MapWriter) -> None:
        """Predicts each batch and writes its maps. Override it to overlap work; every id must be written once."""
        for batch in batches:
            maps = self.predict(batch)
            if len(maps) != len(batch.ids):
                raise PluginError(
                    f"member {self.config.name}: predict gave {len(maps)} maps for {len(batch.ids)} photos; "
                    f"report it to the author of model {self.config.model}",
                    name=self.config.model,
                )
            for image_id, values in zip(batch.ids, maps, strict=True):
                writer.write(image_id, values)

    def fit(self, task: FitTask) -> FitResult:
        """Trains one fold, resuming what a stopped run left in ``task.directory``."""
        raise NotImplementedError

    def count_parameters(self) -> int:
        """Number of trainable parameters; 0 for a model that has none."""
        return 0


def recipes_of(model: type[Model]) -> dict[str, Recipe]:
    """The recipes of a model by name: first "modern", which names every option, then those that the model declares."""
    own = dict(model.recipes)
    modern = own.pop(MODERN, Recipe("the defaults of this version, every one written out"))
    whole = options_json(model.Options()) | dict(modern.options)
    return {MODERN: dataclasses.replace(modern, options=whole), **own} if whole or own else {}


def find_recipe(model: type[Model], name: str) -> Recipe:
    """A recipe of a model.

    Raises:
        UsageError: it has none of this name; names the nearest.
    """
    known = recipes_of(model)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known) or 'none'}"
        raise UsageError(f"recipe {name!r} is unknown to this model: {hint}")
    return known[name]


def parse_options(cls: type, values: Mapping[str, Json], owner: str = "this model") -> Any:
    """An instance of an options dataclass from JSON values, or from the texts of ``--set name=value``.

    Values are checked against the field annotations ``bool``, ``int``, ``float``, ``str`` and ``Literal[...]`` of
    these; a text is converted where the field is not a text. owner: whose options they are, for the message.

    Raises:
        UsageError: unknown option (with the nearest name), or a value that does not fit the field.
    """
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(names) or 'none'}"
            raise UsageError(f"{owner} has no option {name!r}: {hint}")
    try:
        return cls(**{name: _convert(name, hints[name], value) for name, value in values.items()})
    except ValueError as error:  # __post_init__ of the dataclass refuses a combination
        raise UsageError(str(error)) from error


def _convert(name: str, hint: Any, value: Json) -> Json:
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else None
    kind = type(choices[0]) if choices else hint
    result: Json = value
    if kind is bool and isinstance(value, str) and value in ("true", "false"):
        result = value == "true"
    elif kind in (int, float) and isinstance(value, str):
        try:
            result = kind(value)
        except ValueError:
            result = value
    elif kind is float and type(value) is int:
        result = float(value)
    if type(result) is not kind:
        raise UsageError(f"option {name} takes {_kind_word(kind)}, got {value!r}")
    if kind is float and result - result != 0:
        raise UsageError(f"option {name} takes a finite number, got {value!r}")
    if choices and result not in choices:
        raise UsageError(f"option {name} takes one of {', '.join(map(str, choices))}, got {value!r}")
    return result


def _kind_word(kind: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def options_json(options: Any) -> dict[str, Json]:
    """Every option with its value, as plain JSON values."""
    return dataclasses.asdict(options)
