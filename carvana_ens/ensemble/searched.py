"""Searches on disputed pixels in the form that honest scores and smaller ensembles ask for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from carvana_ens.core.dice import dice_from_counts
from carvana_ens.ensemble.disputed import Disputed
from carvana_ens.ensemble.honest import Choice, Search
from carvana_ens.ensemble.kept_searches import KeptSearches
from carvana_ens.ensemble.objectives import OBJECTIVES, Objective
from carvana_ens.ensemble.search import Found, search


class SearchedPixels:
    """Choices searched on some of the images of disputed pixels, and their Dice on others.

    names: of the members, in the order of the pixels. options: as ``search.search`` takes them; without a time limit
    the outcome is the same each time. A search on the same images is done once. kept: outcomes of an earlier run.
    """

    def __init__(
        self,
        pixels: Disputed,
        names: Sequence[str],
        objective: Objective = OBJECTIVES["mean-dice"],
        kept: KeptSearches | None = None,
        **options: Any,
    ) -> None:
        self._pixels, self._names, self._objective, self._options = pixels, tuple(names), objective, options
        self._found: dict[tuple[str, ...], Found] = {}
        self._kept = kept

    @property
    def names(self) -> tuple[str, ...]:
        """Of the members."""
        return self._names

    @property
    def thresholds(self) -> Sequence[Fraction]:
        """Those that are tried, rising."""
        return self._pixels.thresholds

    def found(self, ids: Sequence[str]) -> Found:
        """The outcome of a search on these images.

        Raises:
            DataError: an image whose pixels were not kept.
        """
        key = tuple(ids)
        if key not in self._found:
            found = None if self._kept is None else self._kept.get(key)
            if found is None:
                found = search(self._pixels.only(ids), self._objective, **self._options)
                if self._kept is not None:
                    self._kept.put(key, found)
            self._found[key] = found
        return self._found[key]

    def search(self, how: str | None = None) -> Search:
        """What ``honest.nested`` calls. how: one of the settings that a search answers with, such as "equal" (weights,
        at their best threshold) or "best single"; None: the best of all.
        """

        def choose(ids: Sequence[str]) -> Choice:
            found = self.found(ids)
            setting = found.best if how is None else found.settings[how]
            return Choice(dict(zip(self._names, setting.weights, strict=True)), str(setting.threshold))

        return choose

    def score(self, choice: Choice, ids: Sequence[str]) -> dict[str, float]:
        """Dice of each image, exact; the threshold is one of those that the pixels were kept for.

        Raises:
            DataError: an image whose pixels were not kept.
        """
        weights = [choice.weights[name] for name in self._names]
        counts = self._pixels.only(ids).counts(weights, Fraction(choice.threshold))
        return dict(zip(ids, dice_from_counts(counts[:, 0], counts[:, 1], counts[:, 2]).tolist(), strict=True))
