from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("onnx_nets", Path(__file__).with_name("nets.py"))
sys.modules["onnx_nets"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sys.modules["onnx_nets"])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.onnx"
