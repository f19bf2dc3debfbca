"""A member ready to predict: its models loaded, and the maps that they make of photos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from carvana_ens.data.images import ImageFolder
from carvana_ens.errors import TrainingError
from carvana_ens.learn.inference import predict_maps
from carvana_ens.learn.regions import CroppedImages
from carvana_ens.model import MemberConfig, Model
from carvana_ens.project import Project
from carvana_ens.types import ProbabilityMap
from carvana_ens.verbs.plugin_calls import calling, configured
from carvana_ens.verbs.regions import Regions


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
        device: str,
    ) -> None:
        """Loads each checkpoint; regions: where the member looks, None for whole photos.

        Raises:
            PluginError: the model cannot load its checkpoint.
            TrainingError: there is not enough memory.
        """
        self._config, self._model, self._photos, self._regions = config, model, photos, regions
        self._models = [configured(model, config, project.root) for _ in checkpoints]
        with _enough_memory(config), calling(model, config, "load its checkpoint"):
            for instance, checkpoint in zip(self._models, checkpoints, strict=True):
                instance.load(checkpoint, device)

    def maps(
        self, ids: Sequence[str], groups: Mapping[str, str], all_ids: Sequence[str]
    ) -> Iterator[tuple[str, ProbabilityMap]]:
        """(id, map) of the photos in ``ids``; arguments, order and errors as for ``predict_maps``.

        Raises:
            PluginError: also where the model raises something else than our errors.
            TrainingError: also where there is not enough memory.
        """
        config, photos, regions = self._config, self._photos, self._regions
        with _enough_memory(config), calling(self._model, config, "predict"):
            if regions is None:
                yield from predict_maps(self._models, photos, ids, groups, config.tta, all_ids)
                return
            cropped = CroppedImages(photos, regions.box)
            for image_id, values in predict_maps(self._models, cropped, ids, groups, config.tta, all_ids):
                yield image_id, regions.box(image_id).pasted(values, photos.size(image_id))


@contextmanager
def _enough_memory(config: MemberConfig) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise TrainingError(f"{config.name}: not enough memory at this size: use a smaller --size") from error
