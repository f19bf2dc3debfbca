"""What the peers' answers say in our words, so that they can be compared; and their ways to our work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ens.types import Mask
from carvana_ens.verbs.bench.numpy_ways import CodesOf, Curve, Flat, lean_text, levels


def coco_text(counts: bytes) -> str:
    """The text of pycocotools' packed counts (5 bits a character, differences from the count two before)."""
    numbers: list[int] = []
    number = shift = 0
    for octet in counts:
        piece = octet - 48
        number |= (piece & 31) << shift
        shift += 5
        if not piece & 32:
            if piece & 16:
                number -= 1 << shift
            if len(numbers) > 2:
                number += numbers[-2]
            numbers.append(number)
            number = shift = 0
    return counts_text(np.array(numbers, np.int64))


def coco_text_of(encoded: Mapping[str, Any]) -> str:
    """The same of an encoding as pycocotools gives it, ``{"size": ..., "counts": ...}``."""
    return coco_text(encoded["counts"])


def counts_text(counts: NDArray[Any]) -> str:
    """The text of run lengths that begin with the background's."""
    ends = counts.cumsum()
    runs = np.empty(counts.size // 2 * 2, np.int64)
    runs[::2] = ends[: runs.size : 2] + 1
    runs[1::2] = counts[1::2]
    return str(runs.tolist())[1:-1].replace(",", "")


def coco_counts(coco: Any, mask: Mask) -> bytes:
    """Packed counts of pycocotools; it goes by columns, and the mask's transpose lies as it wants it."""
    counts: bytes = coco.encode(mask.T.view(np.uint8))["counts"]
    return counts


def rlemasklib_counts(rlemasklib: Any, mask: Mask) -> NDArray[Any]:
    """Run lengths of rlemasklib, of the transpose as well."""
    counts: NDArray[Any] = rlemasklib.RLEMask.from_array(mask.T).counts_view
    return counts


def opencv_text(cv2: Any, codes: CodesOf, size: tuple[int, int]) -> str:
    """The blend at 0.5 by OpenCV's accumulate (float32), and the leanest numpy form for the text."""
    total = np.zeros(size, np.float32)
    for member in codes:
        cv2.accumulate(member.reshape(size), total)
    return lean_text(total >= np.float32(127.5 * len(codes)))


def sklearn_curve(metrics: Any, codes: CodesOf, truth: Flat) -> tuple[Any, Any, Any]:
    """scikit-learn's precision, recall and thresholds, of the levels floor(sum / M)."""
    found: tuple[Any, Any, Any] = metrics.precision_recall_curve(truth, levels(codes))
    return found


def sklearn_dice(found: tuple[Any, Any, Any]) -> Curve:
    """Dice at k / 255: that of the least threshold from there on."""
    precision, recall, thresholds = found
    return _dice(precision, recall)[np.searchsorted(thresholds, np.arange(1, 256))]


def torchmetrics_curve(torch: Any, classification: Any, codes: CodesOf, truth: Flat) -> tuple[Any, Any, Any]:
    """Binned precision and recall of torchmetrics at k / 255, of the levels floor(sum / M)."""
    probabilities = torch.from_numpy(levels(codes)).float() / 255
    cuts = torch.arange(1, 256, dtype=torch.float32) / 255
    found: tuple[Any, Any, Any] = classification.binary_precision_recall_curve(
        probabilities, torch.from_numpy(truth).long(), thresholds=cuts
    )
    return found


def torchmetrics_dice(found: tuple[Any, Any, Any]) -> Curve:
    """Dice at k / 255."""
    precision, recall, _ = found
    return _dice(precision.numpy()[:-1].astype(float), recall.numpy()[:-1].astype(float))


def _dice(precision: NDArray[Any], recall: NDArray[Any]) -> Curve:
    """2 P R / (P + R), 0 where both are."""
    total = precision + recall
    found: Curve = np.divide(2 * precision * recall, total, out=np.zeros(total.shape), where=total > 0)
    return found
