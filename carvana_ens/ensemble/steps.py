"""Post-processing steps: as text, and on the masks of a blend."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from carvana_ens.core.rle import bits_mask, mask_bits, rle_encode_bits_bytes
from carvana_ens.ensemble.blending import Blend, check_alike
from carvana_ens.errors import CarvanaEnsError, PluginError, UsageError
from carvana_ens.model import parse_options
from carvana_ens.postprocess import BlendedImage, Step
from carvana_ens.registry import list_steps, load_step
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Bits, Json, Mask, Size

Result = TypeVar("Result")

_EXAMPLE = "write for example largest,fill-holes:area=400"
_UINT16_STEP = 257
"""65535 / 255: one step of uint8 codes in uint16 codes."""


def parse_steps(text: str) -> tuple[Step, ...]:
    """Reads steps in their order, ``largest,fill-holes:area=400,roof-repair:member=albu:low=20``; "" for none.

    A step is a name, or ``package:name`` where two packages have it, and its options after colons.

    Raises:
        UsageError: a text of another form, an unknown option, or a value that does not fit it.
        PluginError: a step that is unknown, not installed or broken.
    """
    return tuple(_parse_step(part.strip(), text) for part in text.split(",")) if text.strip() else ()


def _parse_step(part: str, text: str) -> Step:
    pieces = [piece.strip() for piece in part.split(":")]
    names = list(itertools.takewhile(lambda piece: "=" not in piece, pieces))
    if not all(pieces) or not names:
        raise UsageError(
            f"post-processing {text!r} has a step {part!r} without a name or with an empty option: {_EXAMPLE}"
        )
    if len(names) > 1 and any(entry.name == names[0] for entry in list_steps().entries):
        raise UsageError(f"step {names[0]}: option {names[1]!r} is not name=value: {_EXAMPLE}")
    kind, entry = load_step(":".join(names))
    values: dict[str, Json] = {}
    for piece in pieces[len(names) :]:
        name, equals, value = (side.strip() for side in piece.partition("="))
        if not equals:
            raise UsageError(f"step {entry.name}: option {piece!r} is not name=value: {_EXAMPLE}")
        if name in values:
            raise UsageError(f"step {entry.name} is given option {name!r} twice: give it once")
        values[name] = value
    return make_step(kind, values)


def make_step(kind: type[Step], values: Mapping[str, Json]) -> Step:
    """A step with option values as JSON has them, or as texts.

    Raises:
        UsageError: an unknown option (with the nearest name), or a value that does not fit it; names the step.
        PluginError: the step's class raised an exception that is not ours.
    """
    try:
        step: Step = parse_options(kind, values, "it")
    except UsageError as error:
        raise UsageError(f"step {kind.name}: {error}") from error
    except Exception as error:
        raise _failed(f"step {kind.name} cannot be made", error) from error
    return step


def steps_text(steps: Sequence[Step], *, whole: bool = False) -> str:
    """The text that ``parse_steps`` reads back.

    Options at their default are left out. whole: they are not, for a text that is to mean the same with other defaults.

    Raises:
        UsageError: the value of an option cannot stand in it.
    """
    return ",".join(_step_text(step, whole) for step in steps)


def _step_text(step: Step, whole: bool) -> str:
    parts = [step.name]
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        if value == field.default and not whole:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if set(text) & set(",:") or text != text.strip():
            raise UsageError(f"step {step.name}: option {field.name} is {value!r}, which a text of steps cannot hold")
        parts.append(f"{field.name}={text}")
    return ":".join(parts)


class PostProcessed:
    """A blend whose masks went through steps, one after the other, in the order given.

    It gives masks as the blend does: iterating gives (image id, mask), and ``masks``, ``rles`` and ``each`` work ahead
    on as many threads as they are told, within the same bound. One object may be used from several threads.
    steps: see ``parse_steps``. members: those whose maps steps can read.
    """

    def __init__(
        self,
        blend: Blend,
        steps: str | Sequence[Step],
        others: Mapping[str, ProbabilityStore] | None = None,
    ) -> None:
        """others: stores by member for steps that read members without a weight, see ``unblended``.

        Raises:
            UsageError, PluginError: steps that cannot be meant, or one reads a member that is not there.
            StoreError: one of the other stores is incomplete or has other images.
        """
        self.blend = blend
        self.steps = parse_steps(steps) if isinstance(steps, str) else tuple(steps)
        self.ids, self.weights, self.threshold = blend.ids, blend.weights, blend.threshold
        stores = {**(others or {}), **blend.stores}
        self._stores = {name: stores[name] for name in sorted(stores)}
        self.members = tuple(self._stores)
        for name in unblended(self.steps, self._stores):
            near = difflib.get_close_matches(name, self.members, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.members)}"
            raise UsageError(
                f"post-processing {steps_text(self.steps)} reads member {name!r}, which is unknown: {hint}"
            )
        for store in (others or {}).values():
            check_alike([next(iter(blend.stores.values())), store])
            store.require_complete()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, Mask]]:
        return self.masks()

    def masks(self, threads: int | None = None) -> Iterator[tuple[str, Mask]]:
        """(image id, mask) of every image in order, as ``Blend.masks``."""
        return self.blend.each(lambda image_id, bits: (image_id, self._mended(image_id, bits)), threads, 1)

    def rles(self, threads: int | None = None) -> Iterator[tuple[str, bytes]]:
        """(image id, run-length text) of every image in order, as ``Blend.rles``."""
        return self.each(lambda image_id, bits: (image_id, self._rle(image_id, bits)), threads, 1)

    def each(self, make: Callable[[str, Bits], Result], threads: int | None = None, batch: int = 1) -> Iterator[Result]:
        """What ``make`` gives for the id and the mask, as bit words, of every image, as ``Blend.each``."""
        return self.blend.each(
            lambda image_id, bits: make(image_id, mask_bits(self._mended(image_id, bits))), threads, batch
        )

    def size(self, image_id: str) -> Size:
        """The true size of one image."""
        return self.blend.size(image_id)

    def bits(self, image_id: str) -> Bits:
        """The mask of one image as bit words."""
        return mask_bits(self.mask(image_id))

    def mask(self, image_id: str) -> Mask:
        """The mask of one image, (h, w), at its true size."""
        return self._mended(image_id, self.blend.bits(image_id))

    def rle(self, image_id: str) -> bytes:
        """The mask of one image as run-length text of the dialect ``carvana``."""
        return self._rle(image_id, self.bits(image_id))

    def image(self, image_id: str) -> BlendedImage:
        """The image as steps are given it."""
        return _Image(image_id, self.size(image_id), self._stores, self.weights)

    def _rle(self, image_id: str, bits: Bits) -> bytes:
        size = self.size(image_id)
        return rle_encode_bits_bytes(bits, size.height * size.width)

    def _mended(self, image_id: str, bits: Bits) -> Mask:
        mask = bits_mask(bits, self.size(image_id))
        for step in self.steps:
            mask = apply_step(step, mask, self.image(image_id))
        return mask


def unblended(steps: Sequence[Step], members: Mapping[str, object]) -> list[str]:
    """The members that steps read and that are not among these, sorted."""
    return sorted({name for step in steps for name in step.reads()} - set(members))


def apply_step(step: Step, mask: Mask, image: BlendedImage) -> Mask:
    """The mask (H, W) after a step, checked; the one given stays as it is, and is the answer where nothing changed.

    Raises:
        PluginError: the step raised an exception that is not ours, or answered with something else than such a mask.
    """
    given = mask.view()
    given.flags.writeable = False
    try:
        found = step.apply(given, image)
    except (CarvanaEnsError, MemoryError):
        raise
    except Exception as error:
        raise _failed(f"image {image.id}: step {step.name} failed", error) from error
    if found is given:
        return mask
    if not isinstance(found, np.ndarray) or found.dtype != np.bool_ or found.shape != mask.shape:
        got = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise PluginError(
            f"image {image.id}: step {step.name} answered with {got}, not a mask of bool {mask.shape}; "
            f"report it to the author of the step",
            name=step.name,
        )
    return found


def _failed(what: str, error: Exception) -> PluginError:
    told = " ".join(f"{type(error).__name__}: {error}".split())
    return PluginError(f"{what}: {told}; report it to the author of the step", reason=told)


@dataclass(frozen=True)
class _Image:
    """A BlendedImage of stores by member."""

    id: str
    size: Size
    stores: Mapping[str, ProbabilityStore]
    weights: Mapping[str, int]

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self.stores)

    def codes(self, member: str) -> NDArray[np.uint8]:
        if member not in self.stores:
            raise UsageError(f"image {self.id} has no map of member {member!r}: there are {', '.join(self.members)}")
        codes = self.stores[member].read(self.id)
        if codes.dtype == np.uint8:
            return codes.astype(np.uint8, copy=False)
        return ((codes.astype(np.uint32) + _UINT16_STEP // 2) // _UINT16_STEP).astype(np.uint8)
