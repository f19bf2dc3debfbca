"""install and uninstall, in an environment of the test that borrows the libraries of this one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from carvana_ens.errors import PluginError, UsageError
from carvana_ens.verbs import install as verb

BACKEND = '''
"""Builds the package of the folder without any other."""
import base64, hashlib, os, zipfile

INFO = "mine-{version}.dist-info"

def wheel(folder, files):
    files[f"{INFO}/METADATA"] = "Metadata-Version: 2.1\\nName: mine\\nVersion: {version}\\n"
    files[f"{INFO}/WHEEL"] = "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[f"{INFO}/entry_points.txt"] = open("entry_points.txt").read()
    lines = [f"{name},," for name in files] + [f"{INFO}/RECORD,,"]
    files[f"{INFO}/RECORD"] = "\\n".join(lines) + "\\n"
    with zipfile.ZipFile(os.path.join(folder, "mine-{version}-py3-none-any.whl"), "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "mine-{version}-py3-none-any.whl"

def build_wheel(folder, settings=None, metadata=None):
    return wheel(folder, {{"mine_model.py": open("mine_model.py").read()}})

def build_editable(folder, settings=None, metadata=None):
    return wheel(folder, {{"mine.pth": os.getcwd() + "\\n"}})
'''.replace("{INFO}", "{{INFO}}").replace("{name}", "{{name}}")
ENTRIES = "[carvana_ens.models]\nmine = mine_model:Mine\n[carvana_ens.postprocess]\nrim = mine_model:Rim\n"
MODULE = '''
from dataclasses import dataclass
from carvana_ens import Model, Step

class Mine(Model):
    """Mine."""

@dataclass(frozen=True)
class Rim(Step):
    """Mine too."""

    name = "rim"
'''


class Place:
    """An environment, and a folder with a package."""

    def __init__(self, root: Path, python: Path) -> None:
        self.command = python.with_name("carvana-ens")
        self.folder, self.root = root / "package", root
        self.folder.mkdir()
        self.write()

    def write(self, version: str = "1.0", module: str = MODULE) -> None:
        build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        (self.folder / "pyproject.toml").write_text(build)
        (self.folder / "backend.py").write_text(BACKEND.format(version=version))
        (self.folder / "entry_points.txt").write_text(ENTRIES)
        (self.folder / "mine_model.py").write_text(module)

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [str(self.command), *map(str, words)]
        caches = {"XDG_CACHE_HOME": str(self.root), "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
        plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**plain, **caches}, cwd=self.root
        )

    def changes(self, *words: object) -> dict:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory, environment):
    root = tmp_path_factory.mktemp("install")
    return Place(root, environment(root / "venv"))


def plugin(name, kind, version, reason=None):
    return {"name": name, "kind": kind, "distribution": "mine", "version": version, "reason": reason}


@pytest.mark.slow
def test_models_and_steps_come_and_go(place):
    new = [plugin("mine", "model", "1.0"), plugin("rim", "step", "1.0")]
    assert place.changes("install", place.folder) == {"packages": [str(place.folder)], "new": new, "gone": []}
    done = place.run("models", "mine")
    assert done.stdout.startswith("mine: mine 1.0\n")

    place.write("2.0", "raise RuntimeError('no licence')\n")
    done = place.run("install", "-U", place.folder)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "gone model mine (mine 1.0)",
        "gone step rim (mine 1.0)",
        "new model mine (mine 2.0): BROKEN: RuntimeError: no licence",
        "new step rim (mine 2.0): BROKEN: RuntimeError: no licence",
    ]
    assert "Successfully installed mine-2.0" in done.stderr

    place.write("2.0")
    assert place.changes("uninstall", "rim")["packages"] == ["mine"]
    assert "model 'mine' is unknown" in place.run("models", "mine").stderr

    changes = place.changes("install", "-e", place.folder)
    assert [one["reason"] for one in changes["new"]] == [None, None]
    (place.folder / "mine_model.py").write_text(MODULE.replace("Mine.", "Edited."))
    assert place.run("models", "mine").stdout.splitlines()[1] == "Edited."
    gone = [plugin("mine", "model", "2.0"), plugin("rim", "step", "2.0")]
    assert place.changes("uninstall", "mine") == {"packages": ["mine"], "new": [], "gone": gone}


@pytest.mark.slow
def test_pip_that_fails_says_why(place):
    done = place.run("install", "linknet17-of-nobody")
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: pip install linknet17-of-nobody failed with exit code 1: ")
    assert "No matching distribution found for linknet17-of-nobody" in error
    assert "Traceback" not in done.stderr


@pytest.fixture
def commands(monkeypatch):
    """What pip would be run with."""
    seen: list[list[str]] = []
    monkeypatch.setattr(verb, "_pip", lambda verb, packages, words, on_line: seen.append([verb, *words]))
    return seen


def test_a_model_stands_for_its_package(commands):
    told: list[str] = []
    assert verb.install(["linknet34", "roof-repair", "other>=2"], upgrade=True, on_line=told.append).packages == [
        "carvana-ens-linknet",
        "carvana-ens-postprocess",
        "other>=2",
    ]
    assert told == ["linknet34 comes with carvana-ens-linknet", "roof-repair comes with carvana-ens-postprocess"]
    assert commands == [["install", "--upgrade", "carvana-ens-linknet", "carvana-ens-postprocess", "other>=2"]]


def test_what_is_refused(commands, fake_site, tmp_path):
    for name in ("--index-url=http://x", "-r", ""):
        with pytest.raises(UsageError, match="is no package"):
            verb.install([name])
    with pytest.raises(UsageError, match="-e links a folder, and carvana-ens-linknet is none"):
        verb.install(["linknet34"], editable=True)
    with pytest.raises(UsageError, match="does not remove itself"):
        verb.uninstall(["carvana_ens"])
    for name in ("no-such-package-at-all", ""):
        with pytest.raises(UsageError, match="is neither an installed package nor"):
            verb.uninstall([name])
    assert commands == []


def test_an_environment_without_pip(monkeypatch):
    real = verb.importlib.util.find_spec
    monkeypatch.setattr(verb.importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
    with pytest.raises(PluginError, match=r"uv pip install --python .* carvana-ens-linknet, or once .* -m ensurepip"):
        verb.install(["linknet34"])
