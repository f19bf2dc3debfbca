"""report: one HTML page of what was tuned, what to believe of it, and which photos to look at."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np

from carvana_ens.core.rle import bits_mask
from carvana_ens.data.images import ImageFolder
from carvana_ens.ensemble.agreement import error_agreement
from carvana_ens.ensemble.blending import check_alike
from carvana_ens.ensemble.bootstrap import Interval, gain
from carvana_ens.ensemble.curves import Curves, threshold_curves
from carvana_ens.ensemble.evaluation import Evaluation, evaluate_masks
from carvana_ens.ensemble.out_of_fold import OutOfFold
from carvana_ens.ensemble.pareto import Ensemble, MemberCost, front
from carvana_ens.ensemble.stack import MapStack
from carvana_ens.ensemble.steps import PostProcessed
from carvana_ens.ensemble.tuning import Tuning, check_fresh, check_members, read_tuning
from carvana_ens.ensemble.unlabelled import LEAST_IMAGES, Features, Odd, image_features, oddest
from carvana_ens.errors import ProjectError, StaleError
from carvana_ens.output.pictures import PictureRow, comparison
from carvana_ens.project import IMPORTED, Project
from carvana_ens.report.content import Candidate, Estimate, Fact, MemberRow, Picture, Report, TrainingFold, Tried
from carvana_ens.report.page import write_report
from carvana_ens.store.place import place_of
from carvana_ens.store.store import ProbabilityStore, open_store
from carvana_ens.types import Say, Size, Track, unsaid, untracked
from carvana_ens.verbs.blend import tuned_blend
from carvana_ens.verbs.costs import bytes_of_map, seconds_by_member
from carvana_ens.verbs.history import history
from carvana_ens.verbs.out_of_fold import out_of_fold
from carvana_ens.verbs.workspace import Workspace

FILE = "report.html"
TUNED = "tuned"


@dataclass(frozen=True)
class Reported:
    """path: of the page. worst: out-of-fold photos and their Dice, worst first. odd: photos without truth."""

    path: Path
    worst: list[tuple[str, float]]
    odd: list[Odd]


def report(
    project: Project,
    output: Path | None = None,
    *,
    worst: int = 6,
    odd: int = 6,
    threads: int | None = None,
    say: Say = unsaid,
    track: Track = untracked,
) -> Reported:
    """Writes ``output`` (default: ``report.html`` in the project), from ``tuning.json`` and the stores behind it.

    worst: so many out-of-fold photos of least Dice are shown. odd: so many test photos on which members disagree, or
    that are unlike the out-of-fold ones; 0: the test maps are not read.

    Raises:
        ProjectError: nothing was tuned yet.
        StaleError: what was tuned changed since.
        StoreError: maps are missing or damaged.
    """
    tuning = read_tuning(project.tuning_file)
    check_members(project.tuning_file, tuning, project.members)
    workspace = Workspace(project, say, track)
    maps = out_of_fold(workspace, list(tuning.weights), threads)
    check_fresh(project.tuning_file, tuning, maps.stores, {})
    if maps.source != tuning.masks:
        raise StaleError(f"{project.tuning_file} is stale: the masks changed since; run carvana-ens tune again")
    stack = _stack(list(maps.stores.values()), tuning)
    curves = _curves(project, stack, maps, tuning)
    pictures = _Pictures(workspace, tuning, say)
    lowest = _scores(maps, tuning).worst(worst)
    found = _odd(project, stack, maps, tuning, odd, say) if odd > 0 else []
    path = project.root / FILE if output is None else output
    page = Report(
        title=f"{project.root.resolve().name}: {len(tuning.weights)} members, blended",
        subtitle=f"{tuning.images} out-of-fold photos of {tuning.groups} groups; {_how(tuning)}",
        facts=_facts(tuning),
        remarks=_remarks(tuning),
        metric=tuning.metric,
        threshold=float(Fraction(tuning.threshold)),
        members=_members(project, tuning),
        curves={name: _points(values) for name, values in curves.mean.items() if name not in tuning.weights},
        agreement=_agreement(stack, maps, tuning),
        ensembles=_ensembles(project, tuning),
        tried=[Tried(one.name, _estimate(one.gain), one.reason is None, one.reason or "") for one in tuning.tried],
        tta=_tta(project, maps, curves),
        histories=_histories(project),
        worst=[pictures.of(image_id, "oof", f"Dice {dice:.4f}") for image_id, dice in lowest],
        odd=[pictures.of(one.image_id, "test", "; ".join(one.reasons)) for one in found],
        sources=_sources(maps, tuning),
    )
    write_report(page, path)
    return Reported(path, lowest, found)


def _weights(tuning: Tuning) -> list[int]:
    return list(tuning.weights.values())


def _stack(stores: Sequence[ProbabilityStore], tuning: Tuning) -> MapStack:
    """The members' maps in the blending space that was tuned."""
    return MapStack(stores, tuning.blending_space().tables(list(tuning.weights)))


def _how(tuning: Tuning) -> str:
    """How photos become masks, in words."""
    space = tuning.blending_space().kind
    words = [f"threshold {tuning.threshold}" if tuning.cut == "threshold" else "cut by expected Dice"]
    words += [f"blending space {space}"] if space != "probability" else []
    return ", ".join([*words, *([f"then {tuning.steps}"] if tuning.steps else [])])


def _scores(maps: OutOfFold, tuning: Tuning) -> Evaluation:
    """Of the masks as they are blended, by cut and steps."""
    combined = tuned_blend(tuning, maps.stores)
    track, known = maps.track, maps.own_groups
    pairs = (
        (image_id, mask, bits_mask(maps.truth(image_id, combined.size(image_id)), combined.size(image_id)))
        for image_id, mask in track(combined.masks(maps.threads), len(combined.ids), "masks")
        if image_id in known
    )
    return evaluate_masks(pairs, known)


def _curves(project: Project, stack: MapStack, maps: OutOfFold, tuning: Tuning) -> Curves:
    """Of the tuned blend, of equal weights and of the best single member; and by name of each that is in a pair."""
    names, threshold = list(tuning.weights), Fraction(tuning.threshold)
    alone = {
        name: ([int(other == name) for other in names], Fraction(tuning.single_thresholds[name])) for name in names
    }
    blends = {TUNED: (_weights(tuning), threshold)}
    if len(names) > 1:
        single = max(names, key=lambda name: tuning.singles[name])
        blends |= {"equal weights": ([1] * len(names), threshold), f"{single} alone": alone[single]}
    paired = {name for pair in _pairs(project, names) for name in pair}
    blends |= {name: alone[name] for name in names if name in paired}
    return threshold_curves(stack, maps.sizes, maps.truth, blends, threads=maps.threads, track=maps.track)


def _pairs(project: Project, names: Sequence[str]) -> list[tuple[str, str]]:
    """Members of the same checkpoints and size that differ in test-time augmentation: the one with more of it first."""
    configs = [project.member(name) for name in names]
    return [
        (more.name, less.name)
        for more, less in product(configs, configs)
        if set(more.tta) > set(less.tta)
        and (more.like or more.name) == (less.like or less.name)
        and more.size == less.size
    ]


def _tta(project: Project, maps: OutOfFold, curves: Curves) -> list[Tried]:
    found = []
    for more, less in _pairs(project, list(maps.stores)):
        added = ", ".join(sorted(set(project.member(more).tta) - set(project.member(less).tta)))
        interval = gain(curves.by_image[more], curves.by_image[less], maps.own_groups)
        found.append(Tried(f"{added}: {more} over {less}", _estimate(interval), kept=True))
    return found


def _agreement(stack: MapStack, maps: OutOfFold, tuning: Tuning) -> list[list[float]]:
    if len(tuning.weights) < 2:
        return []
    cuts = [Fraction(tuning.single_thresholds[name]) for name in tuning.weights]
    found = error_agreement(stack, maps.sizes, maps.truth, cuts, threads=maps.threads, track=maps.track)
    matrix: list[list[float]] = found.jaccard().tolist()
    return matrix


def _odd(project: Project, stack: MapStack, maps: OutOfFold, tuning: Tuning, count: int, say: Say) -> list[Odd]:
    track, threads = maps.track, maps.threads
    stores = _test_stores(project, tuning, say)
    if not stores:
        return []
    if len(maps.ids) < LEAST_IMAGES:
        say(f"{len(maps.ids)} out-of-fold photos say too little of what is usual: no test photos are picked out")
        return []
    weights, threshold = _weights(tuning), Fraction(tuning.threshold)

    def features(stack: MapStack, sizes: Mapping[str, Size]) -> dict[str, Features]:
        return image_features(stack, sizes, weights, threshold, threads=threads, track=track)

    known = features(stack, maps.sizes)
    test = features(_stack(stores, tuning), dict(zip(stores[0].ids, stores[0].sizes, strict=True)))
    return oddest(test, known, count)


def _test_stores(project: Project, tuning: Tuning, say: Say) -> list[ProbabilityStore]:
    """The test maps of all members; none where one lacks them."""
    paths = [project.store_path(name, "test") for name in tuning.weights]
    if not all(place_of(path).exists() for path in paths):
        say("not every member has test maps: no test photos are picked out")
        return []
    stores = [open_store(path) for path in paths]
    check_alike(stores)
    if any(store.missing() for store in stores):
        say("not all test maps are there yet: no test photos are picked out")
        return []
    return stores


def _facts(tuning: Tuning) -> list[Fact]:
    tuned = tuning.scores["tuned"]
    of = f"{tuning.metric} on the photos that were tuned on"
    if tuning.honest is None:
        return [Fact("tuned", f"{tuned:.6f}", of)]
    honest = tuning.honest
    return [
        Fact("honest Dice", f"{honest.score.mean:.6f}", _between(honest.score)),
        Fact("tuned", f"{tuned:.6f}", of),
        Fact("optimism", f"{honest.optimism:+.6f}", "tuned minus honest Dice"),
        Fact("over equal weights", f"{honest.over_equal.mean:+.6f}", _between(honest.over_equal, "+")),
        Fact("over the best single member", f"{honest.over_single.mean:+.6f}", _between(honest.over_single, "+")),
    ]


def _between(interval: Interval, sign: str = "") -> str:
    if interval.low is None or interval.high is None:
        return str(interval.reason)
    return f"{100 * interval.level:g} %: {interval.low:{sign}.6f} to {interval.high:{sign}.6f}"


def _remarks(tuning: Tuning) -> list[str]:
    if tuning.honest is None:
        return [f"There is no honest score: {tuning.reason}. Expect less on new photos than what was tuned."]
    remarks = ["Honest scores are of photos that were held out, with their group, while weights were searched."]
    if tuning.honest.score.low is None:
        remarks.append("With so few groups nobody can say how sure these numbers are, nor which members could go.")
    elif not tuning.honest.over_equal.excludes(0):
        remarks.append("The gain over equal weights may be chance: its interval covers 0.")
    if tuning.honest.could_go:
        gone = ", ".join(tuning.honest.could_go)
        again = " ".join(name for name in tuning.weights if name not in tuning.honest.could_go)
        remarks.append(f"{gone} could go: carvana-ens tune {again} tunes the others alone.")
    return remarks


def _members(project: Project, tuning: Tuning) -> list[MemberRow]:
    seconds, total = seconds_by_member(project), sum(tuning.weights.values())
    rows = []
    for name, weight in tuning.weights.items():
        config = project.member(name)
        words = [] if config.model == IMPORTED else [config.model, *([str(config.size)] if config.size else [])]
        honest = tuning.honest
        folds = [] if honest is None else [choice.weights for choice in honest.folds.values()]
        rows.append(
            MemberRow(
                name=name,
                model=" ".join([*words, *config.tta]) or "imported",
                weight=weight,
                share=weight / total,
                alone=tuning.singles[name],
                fold_shares=[weights[name] / sum(weights.values()) for weights in folds],
                buys=None if honest is None or name not in honest.buys else _estimate(honest.buys[name]),
                could_go=honest is not None and name in honest.could_go,
                seconds=seconds.get(name),
                megabytes=bytes_of_map(project, name) / 1e6,
            )
        )
    return rows


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.mean, interval.low, interval.high, interval.level)


def _ensembles(project: Project, tuning: Tuning) -> list[Candidate]:
    """Smaller ensembles with what they take, where that is known of all members."""
    seconds = seconds_by_member(project)
    if tuning.honest is None or not all(name in seconds for name in tuning.weights):
        return []
    costs = {name: MemberCost(seconds[name], 0) for name in tuning.weights}
    found = [
        Ensemble(tuple(one.members), one.dice, sum(costs[name].seconds for name in one.members), 0)
        for one in tuning.honest.subsets
    ]
    best = front(found)
    return [Candidate(one.members, one.score, one.seconds, one in best) for one in found]


def _histories(project: Project) -> dict[str, list[TrainingFold]]:
    try:
        folds = history(project)
    except ProjectError:  # nothing was trained here
        return {}
    found: dict[str, list[TrainingFold]] = {}
    for fold in folds:
        columns = [
            [(float(row["epoch"]), float(row[name])) for row in fold.rows if row[name] is not None]
            for name in ("loss", "valid_loss", "dice")
        ]
        found.setdefault(fold.member, []).append(TrainingFold(fold.fold, *columns))
    return found


def _points(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[tuple[float, float]]:
    """Points of a curve by threshold; of very many, as many as can be seen."""
    step = max(1, len(values) // 512)
    return [((place + 1) / len(values), float(values[place])) for place in range(0, len(values), step)]


def _sources(maps: OutOfFold, tuning: Tuning) -> dict[str, str]:
    sources = {f"out-of-fold maps of {name}": digest for name, digest in tuning.fingerprints.items()}
    for name, store in maps.stores.items():
        plugin = store.provenance.plugin
        if plugin:
            sources[f"plugin of {name}"] = " ".join(str(value) for value in plugin.values())
    return {**sources, "masks": maps.source}


class _Pictures:
    """Draws photos with what members say of them; without the photos, on gray."""

    def __init__(self, workspace: Workspace, tuning: Tuning, say: Say) -> None:
        self._workspace, self._tuning, self._say = workspace, tuning, say
        self._stores: dict[str, dict[str, ProbabilityStore]] = {}
        self._blends: dict[str, PostProcessed] = {}

    def of(self, image_id: str, split: str, caption: str) -> Picture:
        project = self._workspace.project
        if split not in self._stores:
            self._stores[split] = {name: open_store(project.store_path(name, split)) for name in self._tuning.weights}
            self._blends[split] = tuned_blend(self._tuning, self._stores[split])
        stores = self._stores[split]
        first = next(iter(stores.values()))
        size = first.sizes[first.index[image_id]]
        photos = self._photos(split)
        codes = {name: store.read(image_id) for name, store in stores.items()}
        row = PictureRow(
            image_id=image_id,
            photo=np.full((*size, 3), 128, np.uint8) if photos is None else photos.read(image_id),
            truth=self._workspace.masks.read(image_id, size) if split == "oof" else None,
            members=[
                (name, (values / np.float32(stores[name].full_scale)).astype(np.float32))
                for name, values in codes.items()
            ],
            blend=self._blends[split].mask(image_id),
            blend_title=f"blend, {_how(self._tuning)}",
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.jpg"
            comparison([row], path, height=200)
            return Picture(image_id, caption, path.read_bytes())

    def _photos(self, split: str) -> ImageFolder | None:
        data = self._workspace.project.data
        if (data.images if split == "oof" else data.test) is None:
            return None
        return self._workspace.images if split == "oof" else self._workspace.test
