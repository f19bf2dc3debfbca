"""The parts that need no disk: read, rle, blend, curve. Items rotate through more memory than the cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from carvana_ens.core.blend import blend_bits
from carvana_ens.core.coco_counts import coco_encode
from carvana_ens.core.curve import dice_curve, histograms
from carvana_ens.core.rle import mask_bits, rle_decode, rle_encode, rle_encode_bits, rle_encode_bits_bytes
from carvana_ens.core.weights import cut_sum
from carvana_ens.types import Bits
from carvana_ens.verbs.bench import KINDS, foreign
from carvana_ens.verbs.bench.course import Course, Field
from carvana_ens.verbs.bench.maps import Maps
from carvana_ens.verbs.bench.numpy_ways import (
    CodesOf,
    Curve,
    Flat,
    counted_curve,
    curve,
    decoded,
    exact_mask,
    float_mask,
    lean_curve,
    lean_mask,
    lean_text,
    usual_text,
)
from carvana_ens.verbs.bench.race import Contest, Contestant, Heading

LOW, HIGH = 64, 191
"""The levels of the thresholds .25 to .75."""

READ = "limit: reading the maps once (uint64 xor)"
READ_MASK = "limit: reading the mask once (uint64 xor)"
OUR_TEXT, OUR_BITS_TEXT, OUR_BLEND, OUR_CURVE = "rle_encode", "rle_encode_bits", "blend_bits + RLE", "histograms"
LEAN_NUMPY, COCO_TEXT = "numpy, leanest form", "pycocotools + text"
LOOP = "numpy, loop over the levels, int64"


def xor(array: Any) -> Any:
    """Reads every byte of an array, eight at a time, and the rest one by one."""
    flat = array.reshape(-1).view(np.uint8)
    whole = flat.size // 8 * 8
    return np.bitwise_xor.reduce(flat[:whole].view(np.uint64)) ^ np.bitwise_xor.reduce(flat[whole:], initial=0)


def stacks(course: Course, maps: Maps) -> list[CodesOf]:
    """(M, P) codes of the distinct pictures."""
    return [maps.stack(image, course.options.members) for image in range(maps.distinct)]


class Chunks(NamedTuple):
    """One image's maps: the codes, and each member's chunk by two codecs."""

    codes: CodesOf
    lz4: list[bytes]
    zstd: list[bytes]


def read(course: Course, maps: Maps) -> Iterator[Contest]:
    """The limits: reading the maps, copying them, and decoding them by fast codecs."""
    heading = Heading("read", "read", f"{course.options.members} maps of {maps.size} read", maps.kind)
    codecs = course.peers.need("numcodecs", "reading stores")
    lz4, zstd = codecs.LZ4(), codecs.Zstd(1)
    some = stacks(course, maps)
    into = np.empty_like(some[0])
    chunks = [Chunks(codes, [lz4.encode(row) for row in codes], [zstd.encode(row) for row in codes]) for codes in some]

    def decode(codec: Any, encoded: list[bytes]) -> CodesOf:
        for row, chunk in zip(into, encoded, strict=True):
            codec.decode(chunk, out=row)
        return into

    def copy(item: Chunks) -> CodesOf:
        np.copyto(into, item.codes)
        return into

    def again(item: Chunks) -> Chunks:
        return Chunks(item.codes.copy(), *([bytes(bytearray(chunk)) for chunk in kind] for kind in item[1:]))

    field = Field(course, heading)
    field.add(
        Contestant(READ, lambda item: xor(item.codes), "limit", None),
        Contestant("copying them (memcpy)", copy, "limit"),
        Contestant("decoding them, LZ4", lambda item: decode(lz4, item.lz4), "limit"),
        Contestant("decoding them, zstd level 1", lambda item: decode(zstd, item.zstd), "limit"),
    )
    yield field.race(course.many(chunks, again, some[0].nbytes), lambda item: item.codes)


def rle(course: Course, maps: Maps) -> Iterator[Contest]:
    """Masks to text, from pixels and from the blend's bit words, and back."""
    kind = "masks" if maps.kind in KINDS else maps.kind
    masks = course.many(maps.masks, np.copy, maps.masks[0].nbytes)
    field = Field(course, Heading("rle", "rle.mask", f"bool mask of {maps.size} -> run-length text", kind))
    field.add(
        Contestant(READ_MASK, xor, "limit", None),
        Contestant(OUR_TEXT, rle_encode, "ours"),
        Contestant(LEAN_NUMPY, lean_text),
        Contestant("numpy, padded differences, joined", usual_text),
    )
    field.invite(
        "pycocotools.mask",
        make=lambda coco: [
            Contestant(
                "pycocotools, packed counts", lambda mask: foreign.coco_counts(coco, mask), result=foreign.coco_text
            ),
            Contestant(COCO_TEXT, lambda mask: foreign.coco_text(foreign.coco_counts(coco, mask))),
        ],
    )
    field.invite(
        "rlemasklib",
        make=lambda lib: [
            Contestant(
                "rlemasklib, counts", lambda mask: foreign.rlemasklib_counts(lib, mask), result=foreign.counts_text
            ),
            Contestant("rlemasklib + text", lambda mask: foreign.counts_text(foreign.rlemasklib_counts(lib, mask))),
        ],
    )
    yield field.race(masks, usual_text)

    pixels = maps.size.height * maps.size.width
    pairs = [(mask, mask_bits(mask)) for mask in masks]
    field = Field(course, Heading("rle", "rle.bits", "the blend's bit words -> run-length text", kind))
    field.add(
        Contestant(OUR_BITS_TEXT, lambda pair: rle_encode_bits(pair[1], pixels), "ours"),
        Contestant(f"{LEAN_NUMPY}, from the mask", lambda pair: lean_text(pair[0])),
    )
    yield field.race(pairs, lambda pair: usual_text(pair[0]))

    field = Field(course, Heading("rle", "rle.coco", f"bool mask of {maps.size} -> COCO's compressed counts", kind))
    field.add(
        Contestant(READ_MASK, xor, "limit", None),
        Contestant("coco_encode", coco_encode, "ours", foreign.coco_text_of),
    )
    field.invite(
        "pycocotools.mask",
        make=lambda coco: [
            Contestant(
                "pycocotools, after numpy's asfortranarray",
                lambda mask: coco.encode(np.asfortranarray(mask.view(np.uint8))),
                result=foreign.coco_text_of,
            )
        ],
    )
    field.invite("rlemasklib", make=lambda lib: [Contestant("rlemasklib", lib.encode, result=foreign.coco_text_of)])
    yield field.race(masks, lambda mask: usual_text(mask.T))

    texts = [(usual_text(mask), mask) for mask in maps.masks]
    field = Field(course, Heading("rle", "rle.back", "run-length text -> mask", kind))
    field.add(
        Contestant("rle_decode", lambda pair: rle_decode(pair[0], maps.size), "ours"),
        Contestant("numpy, loop over the runs", lambda pair: decoded(pair[0], maps.size)),
    )
    yield field.race(texts, lambda pair: pair[1])


def blend(course: Course, maps: Maps) -> Iterator[Contest]:
    """Maps in memory to the blend's text at 0.5, equal weights."""
    members, size = course.options.members, maps.size
    ones, half = np.ones(members, np.uint32), cut_sum(Fraction(1, 2), 255, members)
    some = stacks(course, maps)
    title = f"{members} maps of {size} in memory -> blend at 0.5 -> run-length text"
    field = Field(course, Heading("blend", "blend", title, maps.kind))
    field.add(
        Contestant(READ, xor, "limit", None),
        Contestant(
            OUR_BLEND,
            lambda codes: rle_encode_bits_bytes(blend_bits(codes, ones, half), codes.shape[1]),
            "ours",
            result=bytes.decode,
        ),
        Contestant("numpy, float32 mean, leanest text", lambda codes: lean_text(float_mask(codes).reshape(size))),
        Contestant("numpy, uint16 sum, leanest text", lambda codes: lean_text(lean_mask(codes).reshape(size))),
    )
    field.invite(
        "cv2",
        make=lambda cv2: [
            Contestant("OpenCV accumulate, leanest text", lambda codes: foreign.opencv_text(cv2, codes, size))
        ],
    )
    many = course.many(some, np.copy, some[0].nbytes)
    yield field.race(many, lambda codes: usual_text(exact_mask(codes).reshape(size)), checked=maps.distinct)


class Scored(NamedTuple):
    """One image's codes and truth, the latter also as bit words."""

    codes: CodesOf
    truth: Flat
    bits: Bits


def curves(course: Course, maps: Maps) -> Iterator[Contest]:
    """Maps in memory to the Dice at every threshold, and at those from .25 to .75."""
    members = course.options.members
    ones = np.ones(members, np.uint32)
    items = [
        Scored(codes, mask.reshape(-1), mask_bits(mask))
        for codes, mask in zip(stacks(course, maps), maps.masks, strict=True)
    ]

    def ours(item: Scored, *levels: int) -> Curve:
        return dice_curve(*histograms(item.codes, ones, item.bits, *levels))

    def within(found: Curve) -> Curve:
        return found[LOW - 1 : HIGH]

    many = course.many(items, lambda item: Scored(*(array.copy() for array in item)), items[0].codes.nbytes)
    title = f"{members} maps of {maps.size} in memory -> Dice at all 255 thresholds"
    field = Field(course, Heading("curve", "curve.all", title, maps.kind))
    field.add(
        Contestant(READ, lambda item: xor(item.codes), "limit", None),
        Contestant(OUR_CURVE, ours, "ours"),
        Contestant(LOOP, lambda item: curve(item.codes, item.truth)),
        Contestant("numpy, the loop made lean (uint8)", lambda item: lean_curve(item.codes, item.truth)),
        Contestant("numpy, no loop (bincount)", lambda item: counted_curve(item.codes, item.truth)),
    )
    field.invite(
        "sklearn.metrics",
        make=lambda metrics: [
            Contestant(
                "scikit-learn precision_recall_curve",
                lambda item: foreign.sklearn_curve(metrics, item.codes, item.truth),
                result=foreign.sklearn_dice,
                tolerance=1e-12,
            )
        ],
    )
    field.invite(
        "torch",
        "torchmetrics.functional.classification",
        make=lambda torch, classification: [
            Contestant(
                "torchmetrics, 255 bins",
                lambda item: foreign.torchmetrics_curve(torch, classification, item.codes, item.truth),
                result=foreign.torchmetrics_dice,
                tolerance=1e-5,
            )
        ],
    )
    yield field.race(many, lambda item: curve(item.codes, item.truth), rounds=course.options.few_rounds)

    title = f"{members} maps of {maps.size} in memory -> Dice at the thresholds .25 to .75"
    field = Field(course, Heading("curve", "curve.range", title, maps.kind))
    field.add(
        Contestant(READ, lambda item: xor(item.codes), "limit", None),
        Contestant(OUR_CURVE, lambda item: ours(item, LOW, HIGH), "ours", result=within),
        Contestant(f"{LOOP}, all 255", lambda item: curve(item.codes, item.truth), result=within),
        Contestant(f"{LOOP}, these {HIGH - LOW + 1}", lambda item: curve(item.codes, item.truth, LOW, HIGH)),
        Contestant("numpy, the loop made lean, these", lambda item: lean_curve(item.codes, item.truth, LOW, HIGH)),
    )
    yield field.race(many, lambda item: within(curve(item.codes, item.truth)), rounds=course.options.few_rounds)
