from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

from carvana_ens.testing import ModelTests

PROGRAM = """
import sys, pathlib, numpy, PIL.Image
for file in pathlib.Path(sys.argv[1]).iterdir():
    levels = numpy.asarray(PIL.Image.open(file)).astype(numpy.float64)
    p = (40 + 0.5 * levels[..., 0] + 0.2 * levels[..., 2]) / 255
    target = pathlib.Path(sys.argv[2], file.stem)
    if sys.argv[3] == "npy":
        numpy.save(f"{target}.npy", numpy.log(p / (1 - p)))
    else:
        PIL.Image.fromarray((p * 65535).round().astype(numpy.uint16)).save(f"{target}.png")
"""


class CommandTests(ModelTests):
    model = "command"
    form: ClassVar = ""

    @classmethod
    def setup_class(cls):
        super().setup_class()
        cls._files = tempfile.TemporaryDirectory()
        program = Path(cls._files.name) / "program.py"
        program.write_text(PROGRAM)
        command = f"{{python}} {{program}} {{images}} {{maps}} {cls.form}"
        cls.options = {"command": command, "program": str(program), "batch": 2, **cls.more}

    @classmethod
    def teardown_class(cls):
        super().teardown_class()
        cls._files.cleanup()


class TestLogits(CommandTests):
    form = "npy"
    more: ClassVar = {"values": "logits"}


class TestProbabilities(CommandTests):
    form = "png"
    more: ClassVar = {}
