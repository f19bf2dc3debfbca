"""Where a member with option roi looks: around what another member's finished maps have found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from carvana_ens.errors import ProjectError, StoreError, UsageError
from carvana_ens.learn.recipe import InputOptions
from carvana_ens.learn.regions import Box, CroppedSamples, box_around
from carvana_ens.model import MemberConfig, Samples
from carvana_ens.project import IMPORTED, Project
from carvana_ens.registry import load_model
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Json
from carvana_ens.verbs.plugin_calls import configured


@dataclass(frozen=True)
class Regions:
    """The boxes of a split's photos: pixels of a probability of one half or more, and a margin in pixels."""

    store: ProbabilityStore
    margin: int

    def box(self, image_id: str) -> Box:
        """The box of one photo, read from the other member's map."""
        return box_around(self.store.read(image_id) > self.store.full_scale // 2, self.margin)


def first_pass(project: Project, config: MemberConfig) -> MemberConfig | None:
    """The member whose maps say where this one looks; None for a member that sees whole photos.

    Raises:
        UsageError: no such member, or it is this one.
    """
    options = configured(load_model(config.model)[0], config).options
    if not isinstance(options, InputOptions) or not options.roi:
        return None
    if options.roi == config.name:
        raise UsageError(f"member {config.name}: option roi names the member itself: name one that is predicted first")
    return project.member(options.roi)


def regions_of(project: Project, config: MemberConfig, split: str, ids: Sequence[str]) -> Regions | None:
    """The boxes of the photos in ``ids``; None for a member that sees whole photos.

    Raises:
        UsageError: as for ``first_pass``.
        ProjectError: the other member's maps of the split are not there for every photo.
    """
    first = first_pass(project, config)
    if first is None:
        return None
    try:
        store = open_store(project.store_path(first.name, split))
        missing = set(ids) - (set(store.ids) - set(store.missing()))
    except StoreError as error:
        raise _unfinished(config, first, split, str(error)) from error
    if missing:
        raise _unfinished(config, first, split, f"{len(missing)} of {len(ids)} are missing, first {min(missing)}")
    margin: int = configured(load_model(config.model)[0], config).options.roi_margin
    return Regions(store, margin)


def seen_by(project: Project, config: MemberConfig, samples: Samples) -> Samples:
    """Training photos as a member sees them: cut to their boxes, or whole; errors as for ``regions_of``."""
    regions = regions_of(project, config, "oof", samples.ids)
    return samples if regions is None else CroppedSamples(samples, regions.box)


def roi_stamp(project: Project, config: MemberConfig, ids: Sequence[str]) -> dict[str, Json]:
    """The maps that a member's training depends on; empty for a member that sees whole photos. Errors likewise."""
    regions = regions_of(project, config, "oof", ids)
    return {} if regions is None else {"roi": regions.store.fingerprint()}


def rounds(project: Project) -> list[list[str]]:
    """The members in the order in which they can be trained and predicted: each after the one whose maps it needs.

    Raises:
        UsageError: members that wait for one another; otherwise as for ``first_pass``.
    """
    waiting = {}
    for name in project.members:
        config = project.member(name)
        first = None if config.model == IMPORTED else first_pass(project, config)
        waiting[name] = None if first is None else first.name
    found: list[list[str]] = []
    while waiting:
        ready = [name for name, first in waiting.items() if first not in waiting]
        if not ready:
            raise UsageError(f"members {', '.join(waiting)} each look where another of them found the object (roi)")
        found.append(ready)
        waiting = {name: first for name, first in waiting.items() if name not in ready}
    return found


def _unfinished(config: MemberConfig, first: MemberConfig, split: str, reason: str) -> ProjectError:
    return ProjectError(
        f"member {config.name} looks where the {split} maps of {first.name} found the object (option roi), and these "
        f"are not finished ({reason}): run carvana-ens train {first.name} and predict {first.name} first"
    )
