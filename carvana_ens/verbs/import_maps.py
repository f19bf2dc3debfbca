"""import: makes a member of a folder of 8-bit PNG probability maps that were made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carvana_ens.data.images import ImageFolder, image_size
from carvana_ens.data.maps import MapFolder
from carvana_ens.engine import ordered_map
from carvana_ens.errors import DataError, UsageError
from carvana_ens.model import MemberConfig
from carvana_ens.project import IMPORTED, Project, add_member
from carvana_ens.store.remove import remove_store
from carvana_ens.store.schema import Provenance
from carvana_ens.store.writer import StoreWriter
from carvana_ens.types import Say, Size, Track, unsaid, untracked
from carvana_ens.verbs.workspace import Workspace


@dataclass(frozen=True)
class Imported:
    """path: the store. images: maps in it. new: maps that were read just now."""

    member: str
    split: str
    path: Path
    images: int
    new: int


def import_maps(
    project: Project,
    name: str,
    source: Path,
    *,
    split: str,
    out_of_fold: bool = False,
    fresh: bool = False,
    threads: int = 1,
    say: Say = unsaid,
    track: Track = untracked,
) -> Imported:
    """Copies the maps of ``source`` (PNG, 8 bit, one channel; code = rint(255 p), file stem = image id) into a store.

    Where the project knows the photos of the split, there must be one map a photo, of the photo's size; otherwise
    the maps say which images there are. out_of_fold: the user's word that each map was made by a model that had not
    seen its image's group; without it ``tune`` refuses the maps. A stopped import goes on where it was.

    Raises:
        UsageError: the name belongs to a member that is not imported, or the split is unknown.
        DataError: maps without photo, photos without map, a size or file that does not fit.
    """
    if split not in ("oof", "test"):
        raise UsageError(f"split {split!r} is unknown to import: use oof or test")
    if out_of_fold and split != "oof":
        raise UsageError("--out-of-fold says something of --split oof only: leave it out")
    if name in project.members and project.members[name].model != IMPORTED:
        raise UsageError(f"member {name!r} has a model of its own: import under another name")
    maps = MapFolder(source)
    workspace = Workspace(project, say, track)
    photos = _photos(workspace, split)
    sizes = _sizes(maps, photos, source)
    if name not in project.members:
        # refuses a bad name before anything is written
        project = add_member(project, MemberConfig(name=name, model=IMPORTED))
    path = project.store_path(name, split)
    if fresh:
        remove_store(path)
    provenance = Provenance(
        member={"name": name, "imported": True},
        split=split,
        seen="declared out-of-fold" if out_of_fold else "unknown",
        source=str(source.absolute()),
    )
    with StoreWriter(path, maps.ids, sizes, provenance) as writer:
        missing = writer.missing()
        read = ordered_map(lambda image_id: (image_id, maps.read(image_id)), missing, threads)
        for image_id, codes in track(read, len(missing), f"{name} {split}"):
            writer.write_codes(image_id, codes)
    return Imported(name, split, path, len(maps.ids), len(missing))


def _photos(workspace: Workspace, split: str) -> ImageFolder | None:
    data = workspace.project.data
    if split == "oof":
        return workspace.images if data.images is not None else None
    return workspace.test if data.test is not None else None


def _sizes(maps: MapFolder, photos: ImageFolder | None, source: Path) -> list[Size]:
    if photos is None:
        return [image_size(maps.path(image_id)) for image_id in maps.ids]
    for ids, others, what in (
        (photos.ids, maps.ids, "has no map of"),
        (maps.ids, photos.ids, "has a map, but no photo, of"),
    ):
        lost = sorted(set(ids) - set(others))
        if lost:
            raise DataError(f"{source} {what} {', '.join(lost[:3])} ({len(lost)} in all, photos in {photos.folder})")
    sizes = []
    for image_id in maps.ids:
        size, photo = image_size(maps.path(image_id)), photos.size(image_id)
        if size != photo:
            raise DataError(f"the map of {image_id} in {source} is {size}, its photo is {photo}: resize the map first")
        sizes.append(size)
    return sizes
