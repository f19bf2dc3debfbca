"""The contract of a post-processing step: what mends a blended mask, such as keeping its largest component alone.

A step is one frozen dataclass derived from Step whose fields are its options, registered under the entry-point group
``carvana_ens.postprocess``. The host does what all steps share: blending, reading, threads, and checking the answer.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from carvana_ens.types import Json, Mask, Size


class BlendedImage(Protocol):
    """The image whose mask a step is given.

    size: its true size. members: those whose maps can be read, sorted. weights: of those that were blended, coprime
    whole numbers from 1.
    """

    @property
    def id(self) -> str: ...

    @property
    def size(self) -> Size: ...

    @property
    def members(self) -> tuple[str, ...]: ...

    @property
    def weights(self) -> Mapping[str, int]: ...

    def codes(self, member: str) -> NDArray[np.uint8]:
        """(H, W) codes of a member's map, 255 for probability 1; read when asked for, and the caller's own.

        Codes of a uint16 map are rounded to the nearest.

        Raises:
            UsageError: no such member.
            StoreError: the map is damaged.
        """


@dataclass(frozen=True)
class Step:
    """A post-processing step; its options are the fields of the dataclass, all with defaults (see ``option``).

    Options are of the types that models' options have. Lengths and areas are in pixels of the image at full size.

    name: the step's name, the same as that of its entry point.
    tried: by option, the values that tuning tries, where the user leaves the option as it is by default.
    """

    name: ClassVar[str]
    tried: ClassVar[Mapping[str, tuple[Json, ...]]] = {}

    def apply(self, mask: Mask, image: BlendedImage) -> Mask:
        """The mended mask of an image, (H, W) bool, as is the mask given, which must be left as it is.

        Called from several threads at once.
        """
        raise NotImplementedError

    def reads(self) -> tuple[str, ...]:
        """Members whose maps it needs, so that they are there even if their weight is zero."""
        return ()

    def candidates(self) -> tuple[Self, ...]:
        """The settings that tuning tries, those first that are preferred where scores are equal."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        free = {name: values for name, values in self.tried.items() if getattr(self, name) == defaults[name]}
        return tuple(
            dataclasses.replace(self, **dict(zip(free, values, strict=True)))
            for values in itertools.product(*free.values())
        )
