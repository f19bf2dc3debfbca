"""blend: finished stores into one submission, and mask files if asked."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from carvana_ens.core.rle import bits_mask, rle_encode_bits_bytes
from carvana_ens.core.rle_dialects import CARVANA, find_dialect
from carvana_ens.core.weights import parse_threshold, threshold_text
from carvana_ens.engine import ordered_map
from carvana_ens.engine.cluster import Workers, connected
from carvana_ens.engine.tasks import ordered
from carvana_ens.engine.worker import alive, kept, threads_here
from carvana_ens.ensemble.blending import Blend, exact_weights
from carvana_ens.ensemble.steps import PostProcessed, parse_steps, steps_text, unblended
from carvana_ens.ensemble.tuning import Tuning, check_fresh, check_members, read_tuning
from carvana_ens.errors import StoreError, UsageError
from carvana_ens.files import digest
from carvana_ens.output.mask_forms import MaskFiles
from carvana_ens.output.submission import (
    check_names,
    check_row,
    check_suffix,
    columns_of,
    compare_submission,
    row_digest,
    write_submission,
)
from carvana_ens.postprocess import Step
from carvana_ens.project import Project
from carvana_ens.store.place import place_of
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Bits, Say, Track, unsaid, untracked
from carvana_ens.verbs.runs import recorded
from carvana_ens.verbs.versions import installed, step_sources

TUNED = "tuned"
_TASK = 64
"""Images that a worker is given at once: their rows are as many text as is worth a message."""


@dataclass(frozen=True)
class Blended:
    """What was written.

    weights: exact integers, members of weight zero left out. threshold: exact. postprocess: the steps that masks went
    through, as text. checked: rows that were decoded again and found to be their masks.
    """

    path: Path | None
    images: int
    weights: dict[str, int]
    threshold: str
    postprocess: str
    checked: int = 0


def open_blend(
    project: Project,
    weights: str = "equal",
    threshold: str | None = None,
    split: str = "test",
    say: Say = unsaid,
) -> Blend:
    """The blend of a project's stores, before post-processing.

    weights: "equal" (every member), "tuned", or "name=w,...". threshold: "tuned" or a number; None: tuned with tuned
    weights, else 0.5. Tuned weights come with their blending space, and with their cut where the threshold is tuned.

    Raises:
        UsageError: weights or a threshold that cannot be meant, or a tuned threshold of another blending space.
        StaleError: tuned values whose sources changed.
        StoreError: a store is missing or incomplete, or they have other images.
    """
    project.select(())
    if threshold is None:
        threshold = TUNED if weights == TUNED else "0.5"
    if threshold != TUNED:
        parse_threshold(threshold)  # refused before any store is opened, as weights are
    chosen = {} if weights == TUNED else exact_weights(list(project.members), weights, say)
    if TUNED not in (weights, threshold):
        return Blend(_open(project, chosen, split), chosen, threshold)
    tuning = read_tuning(project.tuning_file)
    check_members(project.tuning_file, tuning, project.members)
    if weights == TUNED:
        chosen = exact_weights(list(project.members), tuning.weights)
    oof = {name: open_store(project.store_path(name, "oof")) for name in tuning.weights}
    stores = _open(project, chosen, split)
    check_fresh(project.tuning_file, tuning, oof, {name: stores[name] for name in chosen if name in oof})
    space = tuning.blending_space()
    if weights != TUNED:
        if space.kind != "probability":
            raise UsageError(
                f"the tuned threshold is one of the blending space {space.kind}, which only tuned weights have: give a "
                f"number, or --weights tuned"
            )
        return Blend(stores, chosen, tuning.threshold)
    cut = tuning.cut if threshold == TUNED else "threshold"
    return Blend(stores, chosen, tuning.threshold if threshold == TUNED else threshold, space=space, cut=cut)


def tuned_blend(tuning: Tuning, stores: Mapping[str, ProbabilityStore]) -> PostProcessed:
    """What was tuned, on these stores of its members: weights, blending space, cut and steps.

    Raises:
        StoreError: a store is incomplete or of another dtype, or they have other images.
    """
    chosen = exact_weights(list(stores), tuning.weights)
    plain = Blend(stores, chosen, tuning.threshold, space=tuning.blending_space(), cut=tuning.cut)
    return PostProcessed(plain, tuning.steps, stores)


def tuned_steps(project: Project, weights: str) -> str:
    """The steps that come with these weights where none are named: the tuned ones with tuned weights, else none."""
    return read_tuning(project.tuning_file).steps if weights == TUNED else ""


def post_processed(project: Project, blended: Blend, steps: Sequence[Step], split: str = "test") -> PostProcessed:
    """A blend of a project's stores with its masks going through steps, which may read members without a weight.

    Raises:
        UsageError: a step reads a member that the project does not have.
        StoreError: a store that is read only by a step is missing or incomplete, or has other images.
    """
    names = unblended(steps, blended.weights)
    project.select(names)
    return PostProcessed(blended, steps, _open(project, names, split))


def _open(project: Project, names: Iterable[str], split: str) -> dict[str, ProbabilityStore]:
    stores = {}
    for name in names:
        path = project.store_path(name, split)
        if not place_of(path).exists():
            raise StoreError(f"member {name} has no {split} maps ({path} is not there): run predict or import first")
        stores[name] = open_store(path)
    return stores


def blend(
    project: Project,
    output: Path | None,
    *,
    weights: str = "equal",
    threshold: str | None = None,
    split: str = "test",
    postprocess: str | None = None,
    masks: Path | None = None,
    masks_as: str | None = None,
    sample_submission: Path | None = None,
    dialect: str = CARVANA,
    header: str | None = None,
    check: bool = False,
    threads: int | None = None,
    workers: Workers | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Blended:
    """Writes the blend as a submission (``.csv`` or ``.csv.gz``), and its masks to ``masks``.

    postprocess: steps that each mask goes through, see ``ensemble.steps.parse_steps``; None: ``tuned_steps``. workers:
    other processes that blend in place of this one, which writes what they give it; they have threads of their own.
    The CSV text depends on the maps, weights, threshold, steps and dialect alone: not on threads or workers, nor on the
    order of members.

    masks_as: form of ``masks``, see ``output.mask_forms``; None: as its suffix says, else a folder of PNG files.
    dialect: of the run lengths, see ``core.rle_dialects``. header: of the file, see ``data.rle_csv.HEADERS``; None:
    the sample submission's, which also says how images are named, else that of the dialect's competition. check: each
    row is decoded again and compared with its mask, and the file is read back and compared with these rows.

    Raises:
        UsageError: nothing to write, or what ``open_blend``, ``parse_steps`` or ``post_processed`` refuses.
        DataError: the images are not those of the sample submission, or a row is not its mask.
        StoreError: what ``open_blend`` or ``post_processed`` refuses, or a damaged map.
        PluginError: a step that is unknown, broken, or fails.
        CarvanaEnsError: no workers, or the scheduler was lost.
    """
    if output is None and masks is None:
        raise UsageError("blend has nothing to write: name a submission with -o FILE, or a folder with --masks DIR")
    if masks is None and masks_as is not None:
        raise UsageError("--masks-as says how masks are written: name a place for them with --masks")
    if check and output is None:
        raise UsageError("--check decodes the submission: name one with -o FILE")
    find_dialect(dialect)
    columns = columns_of(dialect, header, sample_submission)
    if workers is not None and threads is not None:
        raise UsageError("workers have threads of their own: leave out --threads")
    if output is not None:
        check_suffix(output)
    asked = _Asked(weights, threshold, split, tuned_steps(project, weights) if postprocess is None else postprocess)
    steps = parse_steps(asked.postprocess)
    combined = asked.opened(project, say)
    if columns.names is not None:
        check_names(combined.ids, columns.names)

    facts = {"weights": combined.weights, "threshold": threshold_text(combined.threshold), "split": split}
    plain = combined.blend if isinstance(combined, PostProcessed) else combined
    if plain.cut != "threshold" or plain.space.kind != "probability":
        facts |= {"cut": plain.cut, "space": plain.space.kind}
    if steps:
        facts |= {"postprocess": steps_text(steps), "packages": step_sources([step.name for step in steps])}
    if dialect != CARVANA:
        facts |= {"dialect": dialect}
    form = _Form(None if masks is None else MaskFiles.named(masks, masks_as), dialect, check)
    checked = 0
    digests: list[tuple[str, bytes]] = []
    with recorded(project, "blend", **facts) as run:
        with (
            _rows(project, asked, combined, form, threads, workers) as made,
            form.gathered(combined, made, say) as rows,
        ):
            tracked = track(_noted(rows, digests) if check else rows, len(combined.ids), "blend")
            images = sum(1 for _ in tracked) if output is None else write_submission(output, tracked, dialect, columns)
        if check and output is not None:
            checked = compare_submission(output, track(digests, images, "check"))
        run |= {"images": images}
    return Blended(output, images, combined.weights, threshold_text(combined.threshold), steps_text(steps), checked)


def _noted(rows: Iterable[tuple[str, bytes]], digests: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    for image_id, rle in rows:
        digests.append((image_id, row_digest(rle)))
        yield image_id, rle


@dataclass(frozen=True)
class _Asked:
    """Which masks: arguments of ``blend``, from which a worker opens the same."""

    weights: str
    threshold: str | None
    split: str
    postprocess: str

    def opened(self, project: Project, say: Say = unsaid) -> Blend | PostProcessed:
        steps = parse_steps(self.postprocess)
        plain = open_blend(project, self.weights, self.threshold, self.split, say)
        return post_processed(project, plain, steps, self.split) if steps else plain


@dataclass(frozen=True)
class _Form:
    """What becomes of a mask. masks: files of all masks. dialect: of its row. check: whether that is decoded again."""

    masks: MaskFiles | None
    dialect: str
    check: bool = False

    def row(self, combined: Blend | PostProcessed, image_id: str, bits: Bits) -> tuple[str, bytes, bytes]:
        """The row of the submission, and what the file of all masks gets; the mask's own file is written."""
        size = combined.size(image_id)
        record = b"" if self.masks is None else self.masks.record(image_id, bits_mask(bits, size))
        if self.dialect == CARVANA:
            rle = rle_encode_bits_bytes(bits, size.height * size.width)
        else:
            rle = find_dialect(self.dialect).encode(bits_mask(bits, size)).encode("ascii")
        if self.check:
            check_row(image_id, rle, bits, size, self.dialect)
        return image_id, rle, record

    @contextmanager
    def gathered(
        self, combined: Blend | PostProcessed, made: Iterable[tuple[str, bytes, bytes]], say: Say
    ) -> Iterator[Iterable[tuple[str, bytes]]]:
        """The rows alone; the file of all masks is written while they are taken."""
        if self.masks is None:
            yield ((image_id, rle) for image_id, rle, _ in made)
            return
        with self.masks.gathering(say) as gather:

            def rows() -> Iterator[tuple[str, bytes]]:
                for image_id, rle, record in made:
                    gather(image_id, combined.size(image_id), record)
                    yield image_id, rle

            yield rows()


@dataclass(frozen=True)
class _Order:
    """Images for a worker to blend. key: the same for all of one command. stamp: what must lie before it."""

    key: str
    root: Path
    asked: _Asked
    form: _Form
    stamp: str
    ids: tuple[str, ...]


@contextmanager
def _rows(
    project: Project,
    asked: _Asked,
    combined: Blend | PostProcessed,
    form: _Form,
    threads: int | None,
    workers: Workers | None,
) -> Iterator[Iterable[tuple[str, bytes, bytes]]]:
    """The rows of the submission in order, each with what ``_Form.row`` gives beside it."""
    if workers is None:
        if form == _Form(None, CARVANA):
            yield ((image_id, rle, b"") for image_id, rle in combined.rles(threads))
        else:
            yield combined.each(partial(form.row, combined), threads)
        return
    masks = None if form.masks is None else replace(form.masks, path=form.masks.path.absolute())
    there = replace(form, masks=masks)
    stamp = _stamp(project, asked, combined)
    job = partial(_Order, uuid.uuid4().hex, project.root.absolute(), asked, there, stamp)
    orders = (job(tuple(combined.ids[first : first + _TASK])) for first in range(0, len(combined.ids), _TASK))
    names = sorted({step.name for step in parse_steps(asked.postprocess)})
    with connected(workers, partial(installed, (), names)) as cluster:
        yield chain.from_iterable(ordered(cluster, _blend_order, orders))


def _blend_order(order: _Order) -> list[tuple[str, bytes, bytes]]:
    """On a worker: the rows of its images."""
    combined = kept(order.key, partial(_opened, order))
    rows = []
    for row in ordered_map(lambda i: order.form.row(combined, i, combined.bits(i)), order.ids, threads_here()):
        rows.append(row)
        alive()
    return rows


def _opened(order: _Order) -> Blend | PostProcessed:
    project = Project(order.root)
    combined = order.asked.opened(project)
    if _stamp(project, order.asked, combined) != order.stamp:
        raise StoreError(
            f"a worker on {socket.gethostname()} finds another project or other maps under {order.root} than this "
            f"process: workers need the same files under the same paths"
        )
    return combined


def _stamp(project: Project, asked: _Asked, combined: Blend | PostProcessed) -> str:
    """sha256 (hex) over all that decides the masks."""
    files = [path.read_text() for path in (project.file, project.tuning_file) if path.is_file()]
    names = combined.members if isinstance(combined, PostProcessed) else combined.stores
    maps = {name: store.fingerprint() for name, store in _open(project, names, asked.split).items()}
    return digest({"files": files, "maps": maps})
