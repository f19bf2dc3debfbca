"""What a fold of a member is trained on: its photos, of the views that it wants, and what is mixed in."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from carvana_ens.data.folds import FoldTable
from carvana_ens.data.ids import listed, views
from carvana_ens.data.mixed import MixedImages, Part
from carvana_ens.errors import DataError, UsageError
from carvana_ens.files import digest
from carvana_ens.model import MemberConfig, Samples
from carvana_ens.project import FILE
from carvana_ens.types import Json
from carvana_ens.verbs.regions import roi_stamp, seen_by
from carvana_ens.verbs.workspace import Workspace


def training_samples(workspace: Workspace, config: MemberConfig, table: FoldTable, fold: int) -> Samples:
    """The photos and masks that one fold's model is trained on.

    Of the project's photos those that the fold does not hold out, of the member's views; with them every photo of
    ``data.extra``, whatever its view, and the member's pseudo-labels, again of its views.

    Raises:
        UsageError: a view that no photo is of.
        DataError: a second data set, or pseudo-labels, with photos of a group that the project's own have, or no
            pseudo-label of the member's views.
        ProjectError: no such pseudo-labels.
    """
    _check_views(workspace, config)
    ids = _of_views(workspace, config, table.trained_on(fold, workspace.groups))
    own = seen_by(workspace.project, config, workspace.labelled(ids))
    parts = [*workspace.extra, *_pseudo_parts(workspace, config)]
    return MixedImages([Part(own, ids), *parts]) if parts else own


def training_stamp(workspace: Workspace, config: MemberConfig) -> dict[str, Json]:
    """What of a member's training data is not told by fold table and photos; empty for a member that has no more."""
    stamp: dict[str, Json] = {}
    if config.views:
        stamp["views"] = sorted(config.views)
    if workspace.extra:
        stamp["extra"] = [
            [digest(list(part.ids)), None if part.share is None else str(part.share)] for part in workspace.extra
        ]
    if config.pseudo is not None:
        stamp["pseudo"] = [workspace.pseudo(config.pseudo).digest, config.pseudo_share]
    return stamp | roi_stamp(workspace.project, config, workspace.ids)


def check_training(workspace: Workspace, config: MemberConfig) -> None:
    """Refuses views and pseudo-labels that are not there; errors as for ``training_samples``."""
    _check_views(workspace, config)
    _pseudo_parts(workspace, config)


def _pseudo_parts(workspace: Workspace, config: MemberConfig) -> list[Part]:
    if config.pseudo is None:
        return []
    labels = workspace.pseudo(config.pseudo)
    ids = _of_views(workspace, config, labels.ids)
    if not ids:
        raise DataError(
            f"member {config.name}: none of the {len(labels.ids)} pseudo-labels {config.pseudo} is of its views "
            f"({', '.join(config.views)}): make more with carvana-ens pseudo-label --keep, or leave them out"
        )
    return [Part(labels, ids, f"pseudo {config.pseudo}:", Fraction(str(config.pseudo_share)))]


def _check_views(workspace: Workspace, config: MemberConfig) -> None:
    found = set(views(workspace.ids, workspace.project.data.group).values()) if config.views else set()
    for view in config.views:
        if view not in found:
            raise UsageError(
                f"member {config.name} is to be trained on view {view!r} ({FILE}, views), but no training photo is of "
                f"it: a view is what an id has behind its group, here {listed(found)}"
            )


def _of_views(workspace: Workspace, config: MemberConfig, ids: Sequence[str]) -> tuple[str, ...]:
    if not config.views:
        return tuple(ids)
    found = views(ids, workspace.project.data.group)
    return tuple(image_id for image_id in ids if found[image_id] in config.views)
