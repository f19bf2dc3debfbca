"""Weighted blends of probability stores, image by image."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np

from carvana_ens.core.blend import blend_bits
from carvana_ens.core.expected_dice import expected_dice_bits
from carvana_ens.core.packed import can_blend
from carvana_ens.core.rle import bits_mask, rle_encode_bits_bytes
from carvana_ens.core.spaces import PROBABILISTIC, SCALE, Space, SpaceBlend, scaled_tables
from carvana_ens.core.weights import MAX_WEIGHT_SUM, cut_sum, integer_weights, parse_threshold, parse_weights
from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.ensemble.packed_stack import PackedStack
from carvana_ens.ensemble.stack import MapStack, check_tables
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Bits, Mask, Say, Size, unsaid

Result = TypeVar("Result")

CUTS = ("threshold", "expected-dice")
"""How a blend is cut: all images at one threshold, or each where its own expected Dice is greatest."""

_BATCH = 8
"""Images a task: handing one over costs little beside four images, and what is under way stays small."""


def check_alike(stores: Sequence[ProbabilityStore]) -> None:
    """Refuses stores whose maps cannot be combined image by image.

    Raises:
        StoreError: another set, order or true size of images; names the store and the first id that differs.
    """
    first = stores[0]
    for store in stores[1:]:
        if set(store.ids) != set(first.ids):
            extra = sorted(set(store.ids) ^ set(first.ids))
            raise StoreError(
                f"{store.path} and {first.path} have other images, {len(extra)} ids are in one only, first {extra[0]}: "
                f"predict or import both for the same photos"
            )
        if store.ids != first.ids:
            raise StoreError(
                f"{store.path} and {first.path} have their images in another order: predict or import again"
            )
        for image_id, mine, theirs in zip(first.ids, first.sizes, store.sizes, strict=True):
            if mine != theirs:
                raise StoreError(
                    f"{store.path} has image {image_id} as {theirs}, {first.path} as {mine}: import maps of one size"
                )


def exact_weights(
    names: Sequence[str], weights: str | Mapping[str, Fraction | int | str], say: Say = unsaid
) -> dict[str, int]:
    """Integer weights by member, coprime, without the members of weight zero.

    weights: "equal", "a=2,b=1", or a mapping. say: told of a weight so small beside the others that it becomes zero.

    Raises:
        UsageError: not a weight, an unknown member, or all weights are zero.
    """
    if weights == "equal":
        given = dict.fromkeys(names, Fraction(1))
    elif isinstance(weights, str):
        given = parse_weights(weights)
    else:
        given = parse_weights(",".join(f"{name}={weight}" for name, weight in weights.items()))
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
            raise UsageError(f"member {name!r} in the weights is unknown: {hint}")
    exact = integer_weights(given)
    for name, weight in given.items():
        if weight > 0 and exact[name] == 0:
            say(f"warning: the weight of {name} is under 1/{MAX_WEIGHT_SUM} of the sum and counts as 0")
    return {name: weight for name, weight in exact.items() if weight > 0}


def check_cut(cut: str, space: Space) -> None:
    """Refuses a cut that is unknown, or not for a space.

    Raises:
        UsageError: it is.
    """
    if cut not in CUTS:
        raise UsageError(f"cut {cut!r} is unknown: there are {', '.join(CUTS)}")
    if cut == "expected-dice" and space.kind not in PROBABILISTIC:
        raise UsageError(
            f"values of the space {space.kind} are no probabilities, so no Dice can be expected of them: cut it at a "
            f"threshold, or blend in {' or '.join(PROBABILISTIC)}"
        )


class Blend:
    """An exact weighted blend of stores, cut at a threshold; iterating gives (image id, mask) in the stores' order.

    stores: by member name, all complete and of the same images. weights: "equal", "a=2,b=1" or a mapping; members
    without a weight are not read. threshold: in (0, 1], as text, fraction or number; ``0.5``, ``128/255``.
    A pixel is on when sum(w_i * code_i) >= ceil(t * S * sum(w_i)), in integers: no order of members, threads or
    floats can change it. One object may be used from several threads, and works on several itself: ``for image_id,
    mask in blend`` on as many as there are processors, ``masks``, ``rles`` and ``each`` on as many as they are told.

    space: what codes count as (see ``core/spaces.py``); the threshold is then one of that space, and the stores must be
    of the dtypes that it was fitted on. None: probabilities. cut: "threshold", or "expected-dice" (see
    ``core/expected_dice.py``), which leaves ``threshold`` unused and asks for a space of probabilities. Packed stores
    are read in part, and so faster, only for probabilities cut at a threshold; else they are decoded like plain ones.
    """

    def __init__(
        self,
        stores: Mapping[str, ProbabilityStore],
        weights: str | Mapping[str, Fraction | int | str] = "equal",
        threshold: str | float | Fraction = "0.5",
        *,
        space: Space | None = None,
        cut: str = "threshold",
    ) -> None:
        """Checks everything that can be checked before the first map is read.

        Raises:
            UsageError: a weight, threshold or cut that cannot be meant, or a member that the space does not have.
            StoreError: a store is incomplete or not of the space's dtype, or the stores have other images.
        """
        self.space, self.cut = space or Space(), cut
        check_cut(cut, self.space)
        if not stores:
            raise UsageError("a blend needs at least one member")
        self.weights = exact_weights(list(stores), weights)
        self.threshold = parse_threshold(threshold)
        # by name, so that the order in which members were given cannot matter
        chosen = [stores[name] for name in sorted(self.weights)]
        self._factors = np.array([self.weights[name] for name in sorted(self.weights)], dtype=np.uint32)
        check_alike(chosen)
        for store in chosen:
            store.require_complete()
        self.stores = dict(zip(sorted(self.weights), chosen, strict=True))
        self.ids = chosen[0].ids
        self._sizes = dict(zip(self.ids, chosen[0].sizes, strict=True))
        tables = self.space.tables(sorted(self.weights))
        check_tables(chosen, tables)
        # an expected Dice takes every value; at a threshold few are needed, so codes are read and those looked up
        self._stack = MapStack(chosen, tables if cut == "expected-dice" else ())
        total = int(self._factors.sum())
        self._cut = cut_sum(self.threshold, SCALE if tables else self._stack.full_scale, total)
        self._packed: PackedStack | None = None
        self._spaced: SpaceBlend | None = None
        if cut == "threshold" and tables:
            self._spaced = SpaceBlend(scaled_tables(tables, self._stack.full_scale), self._factors, self._cut)
        packed = cut == "threshold" and not tables and all(store.packed is not None for store in chosen)
        if packed and can_blend(self._cut, total, self._stack.full_scale):
            self._packed = PackedStack(chosen, self._factors, self._cut, self._stack.full_scale)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, Mask]]:
        return self.masks()

    def masks(self, threads: int | None = None) -> Iterator[tuple[str, Mask]]:
        """(image id, mask) of every image in order; threads: None for as many as there are processors.

        Work goes a few images a thread ahead of what is taken. Raises StoreError at a map that is damaged.
        """
        return self.each(lambda image_id, bits: (image_id, bits_mask(bits, self._sizes[image_id])), threads, 1)

    def rles(self, threads: int | None = None) -> Iterator[tuple[str, bytes]]:
        """(image id, run-length text) like ``masks``: rows as ``write_submission`` takes them."""
        return self._mapped(lambda image_id: (image_id, self.rle(image_id)), threads, _BATCH)

    def each(
        self, make: Callable[[str, Bits], Result], threads: int | None = None, batch: int = _BATCH
    ) -> Iterator[Result]:
        """What ``make`` gives for the id and the mask, as bit words, of every image, in order.

        ``make`` runs on the threads. batch: images a task; two tasks a thread are under way at most.
        """
        return self._mapped(lambda image_id: make(image_id, self.bits(image_id)), threads, batch)

    def _mapped(self, one: Callable[[str], Result], threads: int | None, batch: int) -> Iterator[Result]:
        return ordered_map(one, self.ids, threads or default_threads(), batch)

    def size(self, image_id: str) -> Size:
        """The true size of one image."""
        return self._sizes[image_id]

    def bits(self, image_id: str) -> Bits:
        """The mask of one image as bit words; valid until this thread asks a blend for another."""
        if self._packed is not None:
            return self._packed.bits(image_id)
        if self.cut == "expected-dice":
            return expected_dice_bits(self._stack.read(image_id), self._factors)
        if self._spaced is not None:
            return self._spaced.bits(self._stack.read(image_id))
        return blend_bits(self._stack.read(image_id), self._factors, self._cut)

    def mask(self, image_id: str) -> Mask:
        """The mask of one image, (h, w), at its true size."""
        return bits_mask(self.bits(image_id), self._sizes[image_id])

    def rle(self, image_id: str) -> bytes:
        """The mask of one image as run-length text of the dialect ``carvana``."""
        if self._packed is not None:
            return self._packed.rle(image_id)
        size = self._sizes[image_id]
        return rle_encode_bits_bytes(self.bits(image_id), size.height * size.width)


def blend(
    stores: Mapping[str, ProbabilityStore],
    weights: str | Mapping[str, Fraction | int | str] = "equal",
    threshold: str | float | Fraction = "0.5",
    *,
    space: Space | None = None,
    cut: str = "threshold",
) -> Blend:
    """Combines stores lazily, image by image; see Blend.

    ``for image_id, mask in blend({"a": open_store(...), "b": open_store(...)}, "a=2,b=1", "0.5"): ...``
    """
    return Blend(stores, weights, threshold, space=space, cut=cut)
