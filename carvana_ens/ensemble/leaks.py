"""Maps that must not be tuned or scored on: by a model that saw the image, or another of its group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from carvana_ens.data.folds import NEVER, FoldTable
from carvana_ens.data.ids import listed
from carvana_ens.errors import StoreError
from carvana_ens.store.schema import PENDING, Provenance
from carvana_ens.store.store import ProbabilityStore

_AGAIN = "predict again with --fresh"


def refuse_leaks(
    stores: Mapping[str, ProbabilityStore],
    ids: Iterable[str],
    groups: Mapping[str, str],
    tables: Mapping[str, FoldTable],
    folded: Mapping[str, str] | None = None,
) -> None:
    """Refuses stores that hold a map by a model that saw its image or its group, or that may have; see ``leaks``.

    stores: by member. The other arguments: as for ``leaks``.

    Raises:
        StoreError: names the store, the first ids and how many they are, and why.
    """
    scored = list(ids)
    for member, store in stores.items():
        found = leaks(store.provenance, scored, groups, tables, folded)
        if found:
            reason = next(iter(found.values()))
            same = [image_id for image_id, why in found.items() if why == reason]
            raise StoreError(
                f"{store.path}: {len(found)} of {len(scored)} maps of {member} cannot be tuned or scored on, "
                f"{listed(same)}: {reason}"
            )


def leaks(
    provenance: Provenance,
    ids: Iterable[str],
    groups: Mapping[str, str],
    tables: Mapping[str, FoldTable],
    folded: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Why the model behind a map saw the map's image or its group, or may have; by image id, of these images only.

    A store that was declared out-of-fold is believed. What else mixes into training (second data sets, pseudo-labels)
    is kept apart from the groups of the training photos when it is trained on.

    Args:
        provenance: of the store.
        ids: of the images to be scored.
        groups: the group of every training photo, those that are not scored too: what must not be split now.
        tables: the fold tables as they are now, by name.
        folded: the group of every training photo by the rule that the tables were made with; None: ``groups``.
    """
    scored = list(ids)
    reason = _of_all(provenance, tables)
    if reason is not None:
        return dict.fromkeys(scored, reason)
    if provenance.seen != "fold table" or provenance.fold_table is None:
        return {}
    table = tables[provenance.fold_table["name"]]
    folded = groups if folded is None else folded
    folds_of: dict[str, set[int | None]] = {}
    for image_id, group in groups.items():
        folds_of.setdefault(group, set()).add(table.assignment.get(folded.get(image_id, "")))
    found = {}
    for image_id in scored:
        reason = _of_image(provenance, table, folded.get(image_id), folds_of.get(groups.get(image_id, ""), set()))
        if reason is not None:
            found[image_id] = reason
    return found


def _of_all(provenance: Provenance, tables: Mapping[str, FoldTable]) -> str | None:
    """What makes every map of a store doubtful."""
    seen, trained = provenance.seen, any(provenance.checkpoints.values())
    if seen == "declared out-of-fold" or (seen == "none" and not trained):
        return None
    if seen == "none":
        return f"the store says that no model was trained, yet it names checkpoints; {_AGAIN}"
    if seen != "fold table":
        return (
            "nobody says that the model behind these maps had not seen the photos; if so, declare it with "
            "--out-of-fold (import, or add-model --checkpoint) and make the maps again with --fresh"
        )
    if provenance.fold_table is None:
        return f"the store names no fold table that would say which photos its models saw; {_AGAIN}"
    name, digest = (str(provenance.fold_table.get(key)) for key in ("name", "digest"))
    if name not in tables:
        return f"they were made with fold table {name!r}, which is gone; put it back, or train and {_AGAIN}"
    if tables[name].digest != digest:
        return (
            f"they were made with another fold table {name!r} than there is now, so that nobody knows which photos "
            f"their models saw; put that one back, or train and {_AGAIN}"
        )
    return None


def _of_image(
    provenance: Provenance, table: FoldTable, group: str | None, folds_of_group: set[int | None]
) -> str | None:
    """What the table says of one image. group: by the table's rule. folds_of_group: of all images of its group now."""
    fold = table.assignment.get(group) if group is not None else None
    if fold is None:
        return f"fold table {table.name!r} does not know their group; make a new table, train and {_AGAIN}"
    if fold == NEVER:
        return (
            f"fold table {table.name!r} never holds their group out: every fold model was trained on it; leave them out"
        )
    if provenance.split != "oof" and table.folds > 1:
        return (
            f"maps of split {provenance.split!r} are the mean over all fold models, of which {table.folds - 1} were "
            f"trained on their group; take those of split 'oof'"
        )
    if provenance.checkpoints.get(str(fold), PENDING) == PENDING:
        return f"the store names no checkpoint of fold {fold}, which holds them out; {_AGAIN}"
    if folds_of_group != {fold}:
        return (
            f"fold table {table.name!r} was made with another group pattern and splits their group: their fold model "
            f"was trained on other photos of it; put the pattern back, or make a new table, train and {_AGAIN}"
        )
    return None
