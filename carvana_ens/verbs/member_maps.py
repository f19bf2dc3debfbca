"""A member ready to predict: its models loaded, and the maps that they make of photos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carvana_ens.data.images import ImageFolder
from carvana_ens.errors import TrainingError
from carvana_ens.learn.inference import predict_codes
from carvana_ens.learn.regions import CroppedImages
from carvana_ens.learn.units import Batches, Meter
from carvana_ens.model import MemberConfig, Model
from carvana_ens.project import Project
from carvana_ens.store.schema import DType
from carvana_ens.types import Codes, Say, unsaid
from carvana_ens.verbs.plugin_calls import calling, configured
from carvana_ens.verbs.regions import Regions


@dataclass(frozen=True)
class How:
    """device: where networks run. dtype: of the codes. batch: photos that a network is given; None: chosen."""

    device: str
    dtype: DType
    batch: int | None = None


class MemberMaps:
    """The fold models of a member, loaded."""

    def __init__(
        self,
        project: Project,
        config: MemberConfig,
        model: type[Model],
        photos: ImageFolder,
        regions: Regions | None,
        checkpoints: Sequence[Path | None],
        how: How,
        meter: Meter,
        say: Say = unsaid,
    ) -> None:
        """Loads each checkpoint; regions: where the member looks, None for whole photos. meter: counts.

        Raises:
            PluginError: the model cannot load its checkpoint.
            TrainingError: there is not enough memory.
        """
        self._config, self._model, self._photos, self._regions = config, model, photos, regions
        self._how, self._meter, self._say = how, meter, say
        self._batches = Batches(how.batch)
        self._models = [configured(model, config, project.root) for _ in checkpoints]
        with _enough_memory(config), calling(model, config, "load its checkpoint"):
            for instance, checkpoint in zip(self._models, checkpoints, strict=True):
                instance.load(checkpoint, how.device)

    def maps(
        self, ids: Sequence[str], groups: Mapping[str, str], all_ids: Sequence[str]
    ) -> Iterator[tuple[str, Codes]]:
        """(id, codes) of the photos in ``ids``; arguments, order and errors as for ``predict_maps``.

        Raises:
            PluginError: also where the model raises something else than our errors.
            TrainingError: also where there is not enough memory.
        """
        config, photos, regions = self._config, self._photos, self._regions
        how = self._how
        source = photos if regions is None else CroppedImages(photos, regions.box)
        with _enough_memory(config), calling(self._model, config, "predict"):
            maps = predict_codes(
                self._models,
                source,
                ids,
                groups,
                config.tta,
                all_ids,
                dtype=how.dtype,
                batches=self._batches,
                meter=self._meter,
                say=self._say,
            )
            for image_id, codes in maps:
                whole = codes if regions is None else regions.box(image_id).pasted(codes, photos.size(image_id))
                yield image_id, whole


@contextmanager
def _enough_memory(config: MemberConfig) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise TrainingError(
            f"{config.name}: not enough memory for one photo at this size: use a smaller --size, or predict in tiles "
            f"(add-model --tile)"
        ) from error
