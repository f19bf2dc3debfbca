"""The tutorial, the second half of the README of the smallest plugin, run as it stands in an empty folder."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "plugins" / "carvana-ens-difference" / "README.md"
BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```$",
    README.read_text(encoding="utf-8").partition("## Write your own")[2],
    re.DOTALL | re.MULTILINE,
)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]


@pytest.fixture
def shell(tmp_path, environment):
    """Runs a command in a new environment and an empty folder."""
    scripts = environment(tmp_path / "venv").parent
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env = {**plain, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "work").mkdir()

    def run(command):
        words = ["bash", "-ec", command]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path / "work", env=env)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.mark.slow
def test_the_tutorial_works_as_it_stands(shell, tmp_path):
    told = {command: shell(command) for command in COMMANDS}
    assert len(told) == len(COMMANDS) == 12
    work = tmp_path / "work"
    for kind, text in BLOCKS:
        if kind:
            module = "tests/test_mine.py" if "ModelTests" in text else "carvana_ens_mine.py"
            file = work / "carvana-ens-mine" / {"toml": "pyproject.toml"}.get(kind, module)
            assert text in file.read_text(encoding="utf-8")
    assert "calibration   held" in told["carvana-ens check-plugin mine"]
    assert "contrast  0.05  how steeply darkness becomes probability" in told["carvana-ens models mine"]
    assert told["carvana-ens uninstall mine"] == "gone model mine (carvana-ens-mine 0.1.0)\n"
    submission = next(work.rglob("submission.csv.gz"))
    assert len(gzip.decompress(submission.read_bytes()).splitlines()) == 1 + 4  # a third of three cars, four views each
