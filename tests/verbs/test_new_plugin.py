"""new-plugin: what it writes can be installed, passes its own tests, and is listed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from carvana_ens.errors import UsageError
from carvana_ens.verbs.new_plugin import new_plugin

KINDS = {"plain": "dark-car", "torch": "size"}  # the second has the name of a class that its module needs


def did(fake_site, cwd: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=cwd, env=fake_site.env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_its_own_tests_as_it_is(fake_site, tmp_path, kind):
    name = KINDS[kind]
    made = new_plugin(name, kind, tmp_path / "made")
    # as test_third_party: pip fetches what builds the wheel
    did(fake_site, tmp_path, "-m", "pip", "install", "-q", "--no-deps", "--target", str(fake_site.folder), made.folder)
    installed = sorted(path.name for path in fake_site.folder.glob("*.py"))
    assert installed == [f"carvana_ens_{name.replace('-', '_')}.py"]
    listed = json.loads(did(fake_site, tmp_path, "-c", "from carvana_ens.cli import main; main()", "models", "--json"))
    assert listed["models"] == [
        {"name": name, "distribution": f"carvana-ens-{name}", "version": "0.1.0", "reason": None}
    ]
    told = did(fake_site, tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", made.folder)
    passed = re.search(r"(\d+) passed(, 1 skipped)? in", told)
    assert passed, told
    assert int(passed[1]) >= 14


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_whole(tmp_path, kind):
    made = new_plugin("dark-car", kind, tmp_path / "deep" / "made")
    assert made.files == [
        ".gitignore",
        "README.md",
        "carvana_ens_dark_car.py",
        "pyproject.toml",
        "tests/test_dark_car.py",
    ]
    folder = Path(made.folder)
    assert [path.name for path in folder.parent.iterdir()] == ["made"]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == made.files
    for file in made.files:
        text = (folder / file).read_text()
        assert "$" not in text
        assert text.endswith("\n")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == made.package == "carvana-ens-dark-car"
    assert project["entry-points"] == {"carvana_ens.models": {"dark-car": "carvana_ens_dark_car:DarkCar"}}
    assert any("torch" in dependency for dependency in project["dependencies"]) == (kind == "torch")
    assert "license" not in project


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Dark", "lower-case words joined by -"),
        ("dark_car", "lower-case words joined by -"),
        ("../dark", "lower-case words joined by -"),
        ("2d", "a letter first"),
        ("", "cannot be"),
        ("linknet34", "a model 'linknet34' already, in carvana-ens-linknet"),
        ("linknet", "a package carvana-ens-linknet already"),
        ("théa", "cannot be"),
    ],
)
def test_names_that_cannot_be(tmp_path, name, words):
    with pytest.raises(UsageError, match=words):
        new_plugin(name, "plain", tmp_path / "made")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "carvana-ens-mine").mkdir()
    with pytest.raises(UsageError, match="carvana-ens-mine is there already"):
        new_plugin("mine")
    assert not list((tmp_path / "carvana-ens-mine").iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        new_plugin("mine", folder=tmp_path / "mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("mine", "Mine"),
        ("my-net2", "MyNet2"),
        ("none", "NoneModel"),
        ("model", "ModelModel"),
        ("network", "NetworkModel"),
    ],
)
def test_classes_have_names_of_their_own(tmp_path, name, cls):
    made = new_plugin(name, "torch", tmp_path / "made")
    source = Path(made.folder, f"carvana_ens_{name.replace('-', '_')}.py").read_text()
    assert f"class {cls}(TorchModel):" in source
    compile(source, name, "exec")
