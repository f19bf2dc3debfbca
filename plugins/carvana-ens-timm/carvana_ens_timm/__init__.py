"""Three decoders on any timm backbone that gives a pyramid of features: timm-unet, timm-fpn and timm-linknet."""

from __future__ import annotations

from carvana_ens_timm.models import TimmFpnModel, TimmLinknetModel, TimmUnetModel

__all__ = ["TimmFpnModel", "TimmLinknetModel", "TimmUnetModel"]
