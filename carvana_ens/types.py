"""Array aliases with axes, dtype and range, and the few value types that every room shares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import UsageError

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) RGB, 0..255."""

Images: TypeAlias = NDArray[np.uint8]
"""(N, H, W, 3) RGB, 0..255."""

Mask: TypeAlias = NDArray[np.bool_]
"""(H, W), True = object."""

ProbabilityMap: TypeAlias = NDArray[np.float32]
"""(H, W), probability of the object in [0, 1]."""

ModelMaps: TypeAlias = NDArray[np.float32]
"""(N, H, W), probabilities in [0, 1] or logits, as the model declares."""

Codes: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W), stored probability: code = rint(S p), half to even; S = 255 for uint8, 65535 for uint16."""

Bits: TypeAlias = NDArray[np.uint64]
"""(ceil(P / 64),) a mask of P pixels in row-major order, pixel k in bit k % 64 of word k // 64; spare bits 0."""

Json: TypeAlias = Any
"""What json.loads gives: None, bool, int, float, str, list or dict of these."""

T = TypeVar("T")


class Track(Protocol):
    """Wraps the items of long work to show progress; the plain one is ``untracked``."""

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterable[T]: ...


def untracked(items: Iterable[T], total: int, what: str) -> Iterable[T]:  # noqa: ARG001
    """Progress shown nowhere."""
    return items


Say: TypeAlias = Callable[[str], None]
"""Receives one line for the user (a warning, a step); verbs never print."""


def unsaid(line: str) -> None:
    """A line shown nowhere."""


class Size(NamedTuple):
    """Height and width in pixels, in that order everywhere; printed as ``HxW``."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """Reads ``HxW`` (``1280x1918``).

        Raises:
            UsageError: the text is no ``HxW`` with both sides at least 1.
        """
        match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
        if match is None:
            raise UsageError(f"size {text!r} is not HxW: write height x width in pixels, for example 1280x1918")
        return cls(int(match[1]), int(match[2]))
