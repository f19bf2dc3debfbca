"""Maps of photos of which some cannot be predicted: these are found, and the others made."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

from carvana_ens.errors import DataError, PluginError, TrainingError
from carvana_ens.learn.units import UNIT, blocks_of
from carvana_ens.model import Model
from carvana_ens.types import Codes
from carvana_ens.verbs.member_maps import MemberMaps

PHOTO = (DataError, TrainingError, PluginError)
"""What a photo may be to blame for."""
Made = tuple[str, Codes | str]
"""An id with the codes of its map, or with the reason why there is none."""


def units_of_block(model: Model, block: Sequence[str]) -> list[tuple[str, ...]]:
    """The parts of a block (``learn.units``) that are tried apart when one of its photos fails: a group is one."""
    step = UNIT if model.context == "image" else len(block)
    return [tuple(block[start : start + step]) for start in range(0, len(block), step)]


def made_or_failed(
    maps: MemberMaps, units: Sequence[Sequence[str]], groups: Mapping[str, str], wanted: Collection[str], by_group: bool
) -> Iterator[Made]:
    """Every wanted photo of the units, in any order: all are predicted together, then what is still missing unit by
    unit, then photo by photo; the photos that fail then are the ones to name.

    Raises:
        PluginError, TrainingError: of many photos none can be predicted, though all can be read: then the member is at
            fault.
    """
    made: set[str] = set()
    failed: dict[str, Exception] = {}
    for ids in _tries(units, by_group):
        due = [image_id for image_id in ids if image_id in wanted and image_id not in made]
        if not due:
            continue
        try:
            for image_id, codes in maps.maps(due, groups, ids):
                made.add(image_id)
                yield image_id, codes
        except PHOTO as error:
            if len(ids) == 1 or by_group:
                failed |= dict.fromkeys(due, error)
    if len(failed) >= UNIT and not made and not any(isinstance(error, DataError) for error in failed.values()):
        raise next(iter(failed.values()))
    yield from ((image_id, str(error)) for image_id, error in failed.items() if image_id not in made)


def all_made_or_failed(
    maps: MemberMaps, model: Model, ids: Sequence[str], groups: Mapping[str, str], wanted: Collection[str]
) -> Iterator[Made]:
    """Every wanted photo of a split, in one go as long as none fails: then its block is gone through with care.

    ids: all photos, in order; of blocks without a wanted one none is predicted.
    """
    wanted = frozenset(wanted)
    blocks = [block for block in blocks_of(model, ids, groups) if not wanted.isdisjoint(block)]
    by_group = model.context == "group"
    made: set[str] = set()
    while blocks:
        rest = list(itertools.chain(*blocks))
        try:
            for image_id, codes in maps.maps([image_id for image_id in rest if image_id in wanted], groups, rest):
                made.add(image_id)
                yield image_id, codes
        except PHOTO:
            blocks = list(itertools.dropwhile(lambda block: made.issuperset(wanted.intersection(block)), blocks))
            units = units_of_block(model, blocks.pop(0))
            yield from made_or_failed(maps, units, groups, wanted - made, by_group)
        else:
            return


def _tries(units: Sequence[Sequence[str]], by_group: bool) -> Iterator[Sequence[str]]:
    """Photos to predict together."""
    yield tuple(itertools.chain(*units))
    for unit in units:
        yield unit
        if not by_group:
            yield from ((image_id,) for image_id in unit)
