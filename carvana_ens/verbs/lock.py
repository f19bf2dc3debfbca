"""lock: all that a submission was made of, in one file that replay makes it from again."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from carvana_ens import __version__
from carvana_ens.core.rle_dialects import CARVANA, find_dialect
from carvana_ens.core.spaces import Space
from carvana_ens.data.folds import FoldTable, read_folds
from carvana_ens.ensemble.blending import Blend
from carvana_ens.ensemble.lock_file import Lock, LockedMember
from carvana_ens.ensemble.steps import PostProcessed, parse_steps, steps_text
from carvana_ens.errors import DataError, PluginError
from carvana_ens.output.submission import HEADER, check_suffix, submission_row
from carvana_ens.project import IMPORTED, Project
from carvana_ens.store.place import place_of
from carvana_ens.store.schema import Provenance, ids_digest
from carvana_ens.store.store import open_store
from carvana_ens.types import Say, Track, unsaid, untracked
from carvana_ens.verbs.blend import open_blend, post_processed, tuned_steps
from carvana_ens.verbs.regions import first_pass
from carvana_ens.verbs.replay import found_here, photos_digest, text_digest
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.versions import step_sources


@dataclass(frozen=True)
class Locked:
    """path: of the lock. unlike: what of it the project could not make again as it is now, one line each."""

    path: Path
    lock: Lock
    unlike: list[str]


def lock(
    project: Project,
    output: Path,
    *,
    weights: str = "equal",
    threshold: str | None = None,
    split: str = "test",
    postprocess: str | None = None,
    submission: Path | None = None,
    threads: int | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Locked:
    """Writes the lock of the submission that ``blend`` makes with these arguments; no submission is written.

    submission: must have the text that the blend gives.

    Raises:
        CarvanaEnsError: all that ``blend`` refuses.
        DataError: ``submission`` has another text.
    """
    if submission is not None:
        check_suffix(submission)
    steps = parse_steps(tuned_steps(project, weights) if postprocess is None else postprocess)
    plain = open_blend(project, weights, threshold, split, say)
    combined = post_processed(project, plain, steps, split) if steps else plain
    with recorded(project, "lock", split=split) as run:
        sha = _blended_digest(combined, threads, track)
        if submission is not None and text_digest(submission) != sha:
            raise DataError(
                f"{submission} is not what carvana-ens blend makes of these maps and settings: lock it with those that "
                f"it was made with, or compare it with carvana-ens diff"
            )
        run |= {"images": len(combined.ids)}
    stores = {name: open_store(project.store_path(name, split)) for name in _members(project, combined, split)}
    space = plain.space
    if space.members:
        space = Space(space.kind, {name: space.members[name] for name in sorted(combined.weights)})
    found = Lock(
        carvana_ens=__version__,
        split=split,
        images=len(combined.ids),
        ids_sha256=ids_digest(combined.ids),
        photos_sha256=photos_digest(project, split),
        members={name: LockedMember.of(store) for name, store in stores.items()},
        fold_tables=_fold_tables(project, [store.provenance for store in stores.values()]),
        weights=combined.weights,
        threshold=combined.threshold,
        cut=plain.cut,
        space=space,
        steps=steps_text(steps, whole=True),
        step_packages=tuple(step_sources([step.name for step in steps])),
        submission_sha256=sha,
    )
    found.write(
        output,
        {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "fingerprints": {name: store.fingerprint() for name, store in stores.items()},
            "sources": {name: store.provenance.source for name, store in stores.items() if store.provenance.source},
        },
    )
    unlike = [one.text for one in found_here(project, found, made=True).differences]
    return Locked(output, found, unlike)


def _blended_digest(combined: Blend | PostProcessed, threads: int | None, track: Track) -> str:
    """sha256 (hex) of the text that ``write_submission`` would write."""
    dialect = find_dialect(CARVANA)
    text = hashlib.sha256(HEADER)
    for image_id, rle in track(combined.rles(threads), len(combined.ids), "lock"):
        text.update(submission_row(image_id, rle, dialect))
    return text.hexdigest()


def _members(project: Project, combined: Blend | PostProcessed, split: str) -> list[str]:
    """The members that are blended, those that steps read, and those whose maps one of them looks at (option roi)."""
    names = list(combined.members if isinstance(combined, PostProcessed) else combined.stores)
    for name in names:  # grows meanwhile
        with suppress(PluginError):  # blending needs no plugin
            config = project.member(name)
            first = None if config.model == IMPORTED else first_pass(project, config)
            if first is None or first.name in names:
                continue
            if place_of(project.store_path(first.name, split)).exists():
                names.append(first.name)
    return sorted(names)


def _fold_tables(project: Project, members: Sequence[Provenance]) -> dict[str, FoldTable]:
    """The tables that the maps are of, as far as the project still has them."""
    found = {}
    for stamp in (member.fold_table for member in members):
        if stamp is not None and project.fold_file(str(stamp["name"])).is_file():
            table = read_folds(project.fold_file(str(stamp["name"])))
            if table.digest == stamp["digest"]:
                found[table.name] = table
    return found
