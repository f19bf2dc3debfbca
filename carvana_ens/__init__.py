"""Ensembles of binary segmentation models on high-resolution pictures.

The public names below are loaded on first use: ``import carvana_ens`` pulls in neither torch nor zarr nor numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carvana_ens.core.blend import blend_mask as blend_mask
    from carvana_ens.core.coco_counts import coco_counts as coco_counts
    from carvana_ens.core.coco_counts import coco_decode as coco_decode
    from carvana_ens.core.coco_counts import coco_encode as coco_encode
    from carvana_ens.core.dice import dice as dice
    from carvana_ens.core.rle import rle_decode as rle_decode
    from carvana_ens.core.rle import rle_encode as rle_encode
    from carvana_ens.core.rle_batch import rle_decode_many as rle_decode_many
    from carvana_ens.core.rle_batch import rle_encode_many as rle_encode_many
    from carvana_ens.ensemble.blending import blend as blend
    from carvana_ens.ensemble.step_choice import choose_steps as choose_steps
    from carvana_ens.ensemble.steps import PostProcessed as PostProcessed
    from carvana_ens.ensemble.steps import parse_steps as parse_steps
    from carvana_ens.ensemble.tune import tune as tune
    from carvana_ens.errors import CarvanaEnsError as CarvanaEnsError
    from carvana_ens.errors import TrainingError as TrainingError
    from carvana_ens.errors import UsageError as UsageError
    from carvana_ens.learn.checkpoints import read_parameters as read_parameters
    from carvana_ens.learn.encoders import EncoderOptions as EncoderOptions
    from carvana_ens.learn.encoders import load_encoder as load_encoder
    from carvana_ens.learn.recipe import TorchOptions as TorchOptions
    from carvana_ens.learn.torch_model import TorchModel as TorchModel
    from carvana_ens.model import Batch as Batch
    from carvana_ens.model import FitResult as FitResult
    from carvana_ens.model import FitTask as FitTask
    from carvana_ens.model import MapWriter as MapWriter
    from carvana_ens.model import MemberConfig as MemberConfig
    from carvana_ens.model import Model as Model
    from carvana_ens.model import NoOptions as NoOptions
    from carvana_ens.model import Recipe as Recipe
    from carvana_ens.model import Samples as Samples
    from carvana_ens.model import option as option
    from carvana_ens.postprocess import BlendedImage as BlendedImage
    from carvana_ens.postprocess import Step as Step
    from carvana_ens.project import Project as Project
    from carvana_ens.store.packing import pack_store as pack_store
    from carvana_ens.store.store import ProbabilityStore as ProbabilityStore
    from carvana_ens.store.store import open_store as open_store
    from carvana_ens.store.writer import StoreWriter as StoreWriter
    from carvana_ens.types import Size as Size

__version__ = "0.1.0"

_HOMES = {
    "Batch": "model",
    "BlendedImage": "postprocess",
    "CarvanaEnsError": "errors",
    "EncoderOptions": "learn.encoders",
    "FitResult": "model",
    "FitTask": "model",
    "MapWriter": "model",
    "MemberConfig": "model",
    "Model": "model",
    "NoOptions": "model",
    "PostProcessed": "ensemble.steps",
    "ProbabilityStore": "store.store",
    "Project": "project",
    "Recipe": "model",
    "Samples": "model",
    "Size": "types",
    "Step": "postprocess",
    "StoreWriter": "store.writer",
    "TorchModel": "learn.torch_model",
    "TorchOptions": "learn.recipe",
    "TrainingError": "errors",
    "UsageError": "errors",
    "blend": "ensemble.blending",
    "blend_mask": "core.blend",
    "choose_steps": "ensemble.step_choice",
    "coco_counts": "core.coco_counts",
    "coco_decode": "core.coco_counts",
    "coco_encode": "core.coco_counts",
    "dice": "core.dice",
    "load_encoder": "learn.encoders",
    "open_store": "store.store",
    "option": "model",
    "parse_steps": "ensemble.steps",
    "read_parameters": "learn.checkpoints",
    "pack_store": "store.packing",
    "rle_decode": "core.rle",
    "rle_decode_many": "core.rle_batch",
    "rle_encode": "core.rle",
    "rle_encode_many": "core.rle_batch",
    "tune": "ensemble.tune",
}
"""Where each public name lives."""

__all__ = [  # noqa: PLE0604  (sorted and whole by construction)
    *sorted(_HOMES)
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'carvana_ens' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"carvana_ens.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
