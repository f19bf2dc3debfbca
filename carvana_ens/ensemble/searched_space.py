"""Searches in a blending space that is fitted on the very images that are searched on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Protocol

from carvana_ens.core.spaces import Space
from carvana_ens.ensemble.disputed import Disputed
from carvana_ens.ensemble.honest import Choice, Search
from carvana_ens.ensemble.kept_searches import KeptSearches
from carvana_ens.ensemble.objectives import Objective
from carvana_ens.ensemble.search import Found
from carvana_ens.ensemble.searched import SearchedPixels
from carvana_ens.ensemble.spaces import UNFITTED


class Searched(Protocol):
    """Finds choices on some images and scores them on others: ``SearchedPixels`` or ``SearchedSpace``."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the members."""
        ...

    def found(self, ids: Sequence[str]) -> Found:
        """The outcome of a search on these images."""
        ...

    def search(self, how: str | None = None) -> Search:
        """See ``SearchedPixels.search``."""
        ...

    def score(self, choice: Choice, ids: Sequence[str]) -> Mapping[str, float]:
        """See ``SearchedPixels.score``."""
        ...


class SearchedSpace:
    """As ``SearchedPixels``, in a space of a kind; its choices name the space that they were found in.

    names: of the members. fit: the space of the kind on some images. pixels: of all images in a space. options: as
    ``search.search`` takes them. A space is fitted, and its pixels are kept, once for each set of images that is
    searched on.
    """

    def __init__(
        self,
        kind: str,
        names: Sequence[str],
        fit: Callable[[Sequence[str]], Space],
        pixels: Callable[[Space], Disputed],
        objective: Objective,
        kept: KeptSearches | None,
        **options: Any,
    ) -> None:
        self._kind, self._names, self._fit, self._pixels = kind, tuple(names), fit, pixels
        self._objective, self._kept, self._options = objective, kept, options
        self._fitted: dict[tuple[str, ...], tuple[Space, SearchedPixels]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the members."""
        return self._names

    def space(self, ids: Sequence[str]) -> Space:
        """The space that is fitted on these images."""
        return self._on(ids)[0]

    def thresholds(self, ids: Sequence[str]) -> Sequence[Fraction]:
        """Those that are tried in it."""
        return self._on(ids)[1].thresholds

    def found(self, ids: Sequence[str]) -> Found:
        """The outcome of a search on these images, in the space that is fitted on them."""
        return self._on(ids)[1].found(ids)

    def search(self, how: str | None = None) -> Search:
        """As ``SearchedPixels.search``."""

        def choose(ids: Sequence[str]) -> Choice:
            space, searched = self._on(ids)
            return replace(searched.search(how)(ids), space=space)

        return choose

    def score(self, choice: Choice, ids: Sequence[str]) -> dict[str, float]:
        """Dice of each image, in the space of the choice, which is one of ours."""
        searched = next(searched for space, searched in self._fitted.values() if space is choice.space)
        return searched.score(choice, ids)

    def _on(self, ids: Sequence[str]) -> tuple[Space, SearchedPixels]:
        key = () if self._kind in UNFITTED else tuple(ids)
        if key not in self._fitted:
            space = self._fit(ids)
            searched = SearchedPixels(self._pixels(space), self.names, self._objective, self._kept, **self._options)
            self._fitted[key] = space, searched
        return self._fitted[key]
