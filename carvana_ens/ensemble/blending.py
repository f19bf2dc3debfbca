"""Weighted blends of probability stores, image by image."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np

from carvana_ens.core.blend import blend_bits, stack_codes
from carvana_ens.core.rle import bits_mask, rle_encode_bits_bytes
from carvana_ens.core.weights import MAX_WEIGHT_SUM, cut_sum, integer_weights, parse_threshold, parse_weights
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.store.store import ProbabilityStore
from carvana_ens.types import Bits, Mask, Say, Size, unsaid


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


class Blend:
    """An exact weighted blend of stores, cut at a threshold; iterating gives (image id, mask) in the stores' order.

    stores: by member name, all complete and of the same images. weights: "equal", "a=2,b=1" or a mapping; members
    without a weight are not read. threshold: in (0, 1], as text, fraction or number; ``0.5``, ``128/255``.
    A pixel is on when sum(w_i * code_i) >= ceil(t * S * sum(w_i)), in integers: no order of members, threads or
    floats can change it. One object may be used from several threads.
    """

    def __init__(
        self,
        stores: Mapping[str, ProbabilityStore],
        weights: str | Mapping[str, Fraction | int | str] = "equal",
        threshold: str | float | Fraction = "0.5",
    ) -> None:
        """Checks everything that can be checked before the first map is read.

        Raises:
            UsageError: a weight or threshold that cannot be meant.
            StoreError: a store is incomplete, or the stores have other images.
        """
        if not stores:
            raise UsageError("a blend needs at least one member")
        self.weights = exact_weights(list(stores), weights)
        self.threshold = parse_threshold(threshold)
        # by name, so that the order in which members were given cannot matter
        self._stores = [stores[name] for name in sorted(self.weights)]
        self._factors = np.array([self.weights[name] for name in sorted(self.weights)], dtype=np.uint32)
        check_alike(self._stores)
        for store in self._stores:
            store.require_complete()
        self.ids = self._stores[0].ids
        self._sizes = dict(zip(self.ids, self._stores[0].sizes, strict=True))

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, Mask]]:
        for image_id in self.ids:
            yield image_id, self.mask(image_id)

    def size(self, image_id: str) -> Size:
        """The true size of one image."""
        return self._sizes[image_id]

    def bits(self, image_id: str) -> Bits:
        """The mask of one image as bit words."""
        codes, full_scale = stack_codes([store.read(image_id) for store in self._stores])
        return blend_bits(codes, self._factors, cut_sum(self.threshold, full_scale, int(self._factors.sum())))

    def mask(self, image_id: str) -> Mask:
        """The mask of one image, (h, w), at its true size."""
        return bits_mask(self.bits(image_id), self._sizes[image_id])

    def rle(self, image_id: str) -> bytes:
        """The mask of one image as run-length text of the dialect ``carvana``."""
        size = self._sizes[image_id]
        return rle_encode_bits_bytes(self.bits(image_id), size.height * size.width)


def blend(
    stores: Mapping[str, ProbabilityStore],
    weights: str | Mapping[str, Fraction | int | str] = "equal",
    threshold: str | float | Fraction = "0.5",
) -> Blend:
    """Combines stores lazily, image by image; see Blend.

    ``for image_id, mask in blend({"a": open_store(...), "b": open_store(...)}, "a=2,b=1", "0.5"): ...``
    """
    return Blend(stores, weights, threshold)
