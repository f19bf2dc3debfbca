"""The maps that are raced on: made from masks, or taken from a project's stores.

Made ones are the sigmoid of the signed distance to the mask's outline, for every member displaced and softened in its
own way, with six spots in a picture where the members are unsure. A few pictures are made (``distinct``) for at most
``BASE`` members; what more is asked for are these, moved by pixels, so that all bytes differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.data.masks import open_masks
from carvana_ens.data.sample_car import build_mesh, draw_car
from carvana_ens.data.sample_raster import rasterise
from carvana_ens.data.sample_studio import draw_studio, placed, yaw_of
from carvana_ens.errors import CarvanaEnsError, DataError, UsageError
from carvana_ens.project import Project
from carvana_ens.store.place import place_of
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Mask, Say, Size
from carvana_ens.verbs.bench.numpy_ways import CodesOf, exact_mask

BASE = 8
"""Members whose maps are made."""
SIZE = Size(1280, 1918)
SEED = 1
SPOTS = 6
SOFTNESS = (0.7, 3.0)
"""Pixels over which a member's logit grows by 1 at the outline, from the sharpest to the softest."""
SATURATED_AT = 12.0
"""Logit where the saturated maps end: its code is exactly 255."""
SPECKLED_AT = 6.5
"""Logit where the speckled ones end, less a texture: codes 0..3 and 252..255."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Facts:
    """What maps are. exact_share: share of codes that are exactly 0 or 255, as measured."""

    kind: str
    size: Size
    source: str
    exact_share: float

    @property
    def line(self) -> str:
        """The same in words."""
        return f"{self.kind} maps of {self.size}: {self.source}; {self.exact_share:.1%} are exactly 0 or 255"


@dataclass(frozen=True)
class Maps:
    """The maps of one kind.

    masks: the truth of the distinct pictures, (H, W). bases: their maps, (B, P) uint8 each.
    """

    kind: str
    source: str
    masks: Sequence[Mask]
    bases: Sequence[CodesOf]

    @property
    def size(self) -> Size:
        """The size of every picture."""
        return Size(*self.masks[0].shape)

    @property
    def distinct(self) -> int:
        """How many pictures differ in more than their place."""
        return len(self.masks)

    def one(self, image: int, member: int) -> CodesOf:
        """(H, W) codes of any image and member."""
        bases = self.bases[image % self.distinct]
        codes = bases[member % len(bases)].reshape(self.size)
        down, right = image // self.distinct, member // len(bases)
        return np.roll(codes, (down, right), (0, 1)) if down or right else codes

    def stack(self, image: int, members: int) -> CodesOf:
        """(M, P) codes of one image."""
        return np.stack([self.one(image, member).reshape(-1) for member in range(members)])

    @property
    def facts(self) -> Facts:
        """What the report says of them."""
        share = float(np.mean([np.isin(codes, (0, 255)).mean() for codes in self.bases]))
        return Facts(self.kind, self.size, self.source, share)


def made_maps(cv2: Any, kind: str, masks: Sequence[Mask], source: str, members: int) -> Maps:
    """Maps of a kind made from masks. cv2: OpenCV."""
    rng = np.random.default_rng(SEED)
    bases = []
    for mask in masks:
        distance = _signed_distance(cv2, mask)
        spots = _spots(mask.shape, rng)
        bases.append(np.stack([_codes(cv2, distance, spots, kind, rng).reshape(-1) for _ in range(min(members, BASE))]))
    return Maps(kind, f"made from {source}", masks, bases)


def _signed_distance(cv2: Any, mask: Mask) -> Floats:
    """Pixels to the outline, positive inside; where there is no outline, as far as the picture is large."""
    inside = mask.astype(np.uint8)
    to_outside = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    to_inside = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    farthest = np.float32(sum(mask.shape))
    distance: Floats = np.where(mask, np.minimum(to_outside, farthest) - 0.5, 0.5 - np.minimum(to_inside, farthest))
    return distance


def _spots(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """1 in the middle of each spot, falling to 0 around it."""
    height, width = shape
    rows, columns = np.ogrid[:height, :width]
    spots = np.zeros(shape, np.float32)
    for _ in range(SPOTS):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.005, 0.014) * height
        down, right = (np.exp(-(((at - middle) / radius) ** 2) / 2) for at, middle in ((rows, y), (columns, x)))
        np.maximum(spots, (down * right).astype(np.float32), out=spots)
    return spots


def _codes(cv2: Any, distance: Floats, spots: Floats, kind: str, rng: np.random.Generator) -> CodesOf:
    """One member's map of one picture, (H, W)."""
    top = np.float32(SPECKLED_AT if kind == "speckled" else SATURATED_AT)
    displaced = distance + _field(cv2, distance.shape, 160, 1.5, rng) + np.float32(rng.normal(0, 0.5))
    softness = np.float32(np.exp(rng.uniform(*np.log(SOFTNESS))))
    logits = np.clip(displaced / softness, -top, top)
    unsure = spots * np.float32(rng.uniform(0.8, 1))
    logits = logits * (1 - unsure) + unsure * np.float32(rng.normal(0, 1.5))
    if kind == "speckled":
        texture = np.minimum(_field(cv2, distance.shape, 14, 0.9, rng) + np.float32(0.55), np.float32(2.1))
        logits -= logits / top * texture
    codes: CodesOf = np.rint(255 / (1 + np.exp(-logits))).astype(np.uint8)
    return codes


def _field(cv2: Any, shape: tuple[int, ...], cell: int, spread: float, rng: np.random.Generator) -> Floats:
    """Smooth noise of that standard deviation at points ``cell`` pixels apart."""
    height, width = shape
    points = rng.normal(0, spread, (height // cell + 2, width // cell + 2)).astype(np.float32)
    field: Floats = cv2.resize(points, (width, height), interpolation=cv2.INTER_CUBIC)
    return field


def given_masks(cv2: Any, folder: Path, count: int, size: Size | None) -> tuple[list[Mask], str]:
    """Masks spread over a folder (or table, or COCO file), and what they are; at ``size``, if given, by the nearest
    pixel.

    Raises:
        DataError: there are none, or they are damaged.
        UsageError: a table, whose masks have no size of their own, and no size is given.
    """
    found = open_masks(folder)
    chosen = found.ids[:: max(len(found.ids) // count, 1)][:count]
    masks = []
    for image_id in chosen:
        own = found.own_size(image_id) or size
        if own is None:
            raise UsageError(f"{folder} does not say how large its masks are: give --size HxW")
        size = size or own
        mask = found.read(image_id, own)
        if own != size:
            pixels = cv2.resize(mask.view(np.uint8), (size.width, size.height), interpolation=cv2.INTER_NEAREST)
            mask = pixels.view(np.bool_)
        masks.append(mask)
    return masks, f"{len(masks)} masks of {found.describe}"


def drawn_masks(count: int, size: Size) -> tuple[list[Mask], str]:
    """Masks of the sample's drawn cars, and what they are."""
    return list(_drawn(count, size)), f"{count} masks of drawn cars"


def _drawn(count: int, size: Size) -> Iterator[Mask]:
    for number in range(count):
        car, studio = draw_car(SEED, number // 4), draw_studio(SEED, number // 4, size)
        mesh, yaw = build_mesh(car), yaw_of(3 * number, 16)
        turned = mesh._replace(points=placed(mesh.points, yaw), normals=placed(mesh.normals, yaw))
        seen = rasterise(turned, studio.camera)
        mask = np.zeros(size, np.bool_)
        mask[seen.rows, seen.columns] = True
        yield mask


def stored_maps(project: Project, count: int, say: Say) -> Maps:
    """Maps of a project's own stores, of the split that most members have: images of one size, spread over the split.

    The truth is the members' own blend at 0.5.

    Raises:
        DataError: no member has a complete store of uint8 codes.
    """
    splits = [_complete(project, split, say) for split in ("test", "oof")]
    stores = max(splits, key=len)
    if not stores:
        raise DataError(f"{project.root} has no complete store of uint8 codes: run predict or import first")
    first = stores[0]
    alike = [image_id for image_id, size in zip(first.ids, first.sizes, strict=True) if size == first.sizes[0]]
    chosen = alike[:: max(len(alike) // count, 1)][:count]
    bases: list[Any] = [np.stack([store.read(image_id).reshape(-1) for store in stores]) for image_id in chosen]
    masks = [exact_mask(codes).reshape(first.sizes[0]) for codes in bases]
    return Maps("stored", f"{len(chosen)} images of {len(stores)} stores in {project.root}", masks, bases)


def _complete(project: Project, split: str, say: Say) -> list[ProbabilityStore]:
    stores: list[ProbabilityStore] = []
    for name in project.members:
        path = project.store_path(name, split)
        if not place_of(path).exists():
            continue
        try:
            store = open_store(path)
            store.require_complete()
        except CarvanaEnsError as error:
            say(f"left out: {error}")
            continue
        if store.dtype != "uint8" or (stores and (store.ids, store.sizes) != (stores[0].ids, stores[0].sizes)):
            say(f"left out: {path} has {store.dtype} codes, or other images than {stores[0].path if stores else path}")
            continue
        stores.append(store)
    return stores
