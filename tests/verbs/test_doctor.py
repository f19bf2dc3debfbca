"""doctor: what is broken is named with its reason, and nothing that is broken stops it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
import sys

import pytest

from carvana_ens.project import Project
from carvana_ens.verbs import doctor as verb
from carvana_ens.verbs.doctor import doctor
from carvana_ens.verbs.doctor_probe import probe
from carvana_ens.verbs.doctor_project import examine_project

GOOD = "from carvana_ens import Model\nclass Good(Model):\n    '''A good model.'''\n"
TORCH = """
__version__ = "2.99"
class version: cuda = {built}
class cuda:
    is_available = staticmethod(lambda: {there})
    device_count = staticmethod(lambda: 1)
    class get_device_properties:
        def __init__(self, number): self.name, self.total_memory = "Some GPU", 8 * 2**30
class mps: is_available = staticmethod(lambda: False)
class backends: mps = mps
get_num_threads = lambda: 3
class ones:
    def __init__(self, count, device): assert device == "cuda:0"
    sum = lambda self: {total}
"""


def of(found, area):
    return {finding.name: (finding.state, finding.text) for finding in found.findings if finding.area == area}


@pytest.fixture
def quick(monkeypatch):
    """Processes of their own are left out; what they are asked for is kept."""
    asked = []
    monkeypatch.setattr(verb, "probe", lambda names, seconds: asked.append(names) or [(n, "ok", "") for n in names[:1]])
    return asked


def test_libraries_and_kernels_really_work():
    found = probe(["numpy", "zarr", "kernels"], 300)
    assert [state for _, state, _ in found if state == "broken"] == []
    names = [name for name, _, _ in found]
    assert names == ["numpy", "zarr", "kernel cache", "kernels", "checksums", "lz4"]


def test_a_cache_folder_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CARVANA_ENS_CACHE", str(tmp_path / "file" / "below"))
    name, state, text = probe(["kernels"], 300)[0]
    assert (name, state) == ("kernel cache", "note")
    assert "below cannot be used: every run compiles anew; set CARVANA_ENS_CACHE" in text


def test_libraries_that_raise_print_and_end_python(fake_site):
    fake_site.add("liars", {}, pandas="raise ValueError('two\\nlines')", lz4="print('hello'); import os; os._exit(3)")
    found = probe(["numpy", "pandas", "lz4", "zarr"], 300)
    assert [name for name, _, _ in found] == ["numpy", "pandas", "lz4"]
    assert found[1] == ("pandas", "broken", "ValueError: two lines")
    assert found[2] == ("lz4", "broken", "it ended Python with exit code 3: hello")


def test_a_torch_that_hangs(fake_site):
    fake_site.add("slow", {}, torch="import time; time.sleep(600)")
    assert probe(["torch"], 2) == [("torch", "broken", "it did not end within 2 s")]


@pytest.mark.parametrize(
    ("built", "there", "total", "expected"),
    [
        ("None", "False", 0, []),
        ("'13.2'", "False", 0, [("cuda", "note", "torch is built for CUDA 13.2, but finds no device that it can use")]),
        ("'13.2'", "True", 1000, [("cuda:0", "ok", "Some GPU, 8 GiB")]),
        ("'13.2'", "True", 999, [("cuda:0", "broken", "Some GPU, 8 GiB")]),
    ],
)
def test_devices_and_a_torchvision_of_another_build(fake_site, built, there, total, expected):
    source = TORCH.format(built=built, there=there, total=total)
    vision = "raise RuntimeError('operator torchvision::nms does not exist')"
    fake_site.add("torch", {}, torch=source, torchvision=vision)
    first, second, *devices, last = probe(["torch"], 300)
    assert first == ("torch", "ok", "2.99")
    assert second[:2] == ("torchvision", "broken")
    assert second[2].startswith("RuntimeError: operator torchvision::nms does not exist; it is of another build")
    assert devices == expected
    assert last == ("cpu", "ok", "3 threads")


def test_what_is_missing_or_too_old(quick, fake_site, monkeypatch):
    asked = ["no-such-thing>=1", "numpy>=99", "pandas>=2", "torch>=99; extra == 'torch'", "pandas; extra == 'x'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    found = doctor()
    libraries = of(found, "libraries")
    assert libraries["no-such-thing"] == ("broken", "not installed: pip install 'no-such-thing>=1'")
    state, text = libraries["numpy"]
    assert state == "broken"
    assert text.endswith("is installed, which is not >=99: pip install 'numpy>=99'")
    assert "pandas" not in libraries
    assert "numpy" not in quick[0]
    assert "zarr" in quick[0]
    state, text = of(found, "extras")["torch"]
    assert state == "note"
    assert text.startswith("torch (")
    assert text.endswith("pip install 'carvana-ens[torch]'")
    assert not {"dev", "bench"} & set(of(found, "extras"))
    assert not found.sound


def test_plugins(quick, fake_site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_site.add("good-plugin", {"good": "good_plugin:Good"}, version="1.5", good_plugin=GOOD)
    found = doctor()
    assert found.sound
    assert of(found, "plugins") == {"good-plugin 1.5": ("ok", "models good")}
    assert of(found, "project")["project"][0] == "note"
    fake_site.add("bad-plugin", {"bad": "bad_plugin:Bad"}, bad_plugin="raise RuntimeError('no licence')")
    fake_site.add("foreign", b"no section\n")
    found = doctor()
    assert not found.sound
    plugins = of(found, "plugins")
    assert plugins["model bad"] == ("broken", "RuntimeError: no licence (bad-plugin 1.0)")
    assert plugins["entry points"][0] == "note"
    assert "foreign" in plugins["entry points"][1]


def test_it_raises_for_nothing(quick, fake_site, monkeypatch, tmp_path):
    def fails():
        raise KeyError("uname")
        yield

    monkeypatch.setattr(verb, "_system", fails)
    monkeypatch.setattr(verb, "models", fails)
    (tmp_path / "ensemble.toml").write_text("schema = 99\n")
    found = doctor(tmp_path)
    assert of(found, "system")["system"] == ("broken", "this could not be examined: KeyError: 'uname'")
    assert of(found, "plugins")["plugins"][0] == "broken"
    state, text = of(found, "project")["project"]
    assert (state, "schema is 99" in text) == ("broken", True)
    monkeypatch.chdir(tmp_path)
    assert of(doctor(), "project")["project"] == (state, text)


# ---- projects


def test_a_project_with_its_stores(world):
    world.init()
    world.imported(("a", 2, 0, 0))
    found = {name: (state, text) for name, state, text in examine_project(Project(world.cars))}
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["member a"][1].startswith("oof 8/8, test 6/6; 0.00 GB")
    assert "are free" in found["disk"][1]
    (world.store("a", "oof") / "zarr.json").write_text("{")
    world.test.rename(world.root / "elsewhere")
    found = {name: (state, text) for name, state, text in examine_project(Project(world.cars))}
    assert found["member a"][0] == "broken"
    assert "oof" in found["member a"][1]
    assert found["data test"][0] == "broken"
    assert str(world.test) in found["data test"][1]


def test_locks_that_were_left_and_locks_that_are_held(world):
    world.init()
    world.imported(("a", 2, 0, 0))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = {"host": socket.gethostname(), "time": "2026-01-01T00:00:00+00:00"}
    for split, pid in (("oof", ended.pid), ("test", os.getpid())):
        note = world.store("a", split).with_name(f"{split}.zarr.writer.json")
        note.write_text(json.dumps({**here, "pid": pid}))
    found = {name: (state, text) for name, state, text in examine_project(Project(world.cars))}
    left, held = found["lock stores/a/oof.zarr.writer.json"], found["lock stores/a/test.zarr.writer.json"]
    assert left[0] == held[0] == "note"
    assert left[1].startswith(f"left by process {ended.pid} on ")
    assert held[1].startswith(f"held by process {os.getpid()} on ")
