"""Any ONNX segmentation file as a model: onnx."""

from __future__ import annotations

from carvana_ens_onnx.model import Onnx

__all__ = ["Onnx"]
