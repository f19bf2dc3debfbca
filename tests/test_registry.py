"""Entry points: listed without importing, one bad package stops no other, every error says whose it is."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from carvana_ens import Model, Step
from carvana_ens.errors import PluginError
from carvana_ens.registry import (
    GROUP,
    KNOWN_PACKAGES,
    KNOWN_STEPS,
    NAME,
    STEPS,
    Entry,
    check_models,
    check_steps,
    find_model,
    find_step,
    list_models,
    list_steps,
    load_model,
    load_step,
)
from carvana_ens.verbs.models import describe, models

GOOD = "from carvana_ens import Model\nclass Good(Model):\n    '''A good model.'''\n"
MALFORMED = {
    "a key twice": b"[console_scripts]\nrun = a:b\nrun = a:c\n",
    "a section twice": b"[console_scripts]\nrun = a:b\n[console_scripts]\ngo = a:c\n",
    "no section": b"run = a:b\n",
    "no value": b"[console_scripts]\nrun\n",
    "% in our group": b"[carvana_ens.models]\nfifty = half%s:Model\n",
    "not UTF-8": "[carvana_ens.models]\nétoile = a:B\n".encode("latin-1"),
    "no target": b"[carvana_ens.models]\nfirst = no such thing!\n",
}


def names() -> list[str]:
    return [entry.name for entry in list_models().entries]


def test_listing_imports_nothing(fake_site) -> None:
    mark, source = fake_site.marking(GOOD)
    fake_site.add("some-plugin", {"good": "some_plugin:Good"}, version="2.3", some_plugin=source)
    listing = list_models()
    assert listing.entries == (Entry("good", "some-plugin", "2.3", "some_plugin:Good"),)
    assert listing.problems == ()
    assert not mark.exists()
    assert "some_plugin" not in sys.modules
    assert find_model("good").source == "some-plugin 2.3"
    assert not mark.exists()
    load_model("good")
    assert mark.exists()  # so the mark works


def test_listing_is_what_importlib_finds(fake_site) -> None:
    fake_site.add("one", {"b-model": "one:B", "a-model": "one:A.Inner"}, version="1.0.post1")
    fake_site.add("two", {"c3": "two.sub:C", "whole": "two"}, version="0.2")
    expected = sorted(
        (point.name, point.dist.name, point.dist.version, point.value)
        for point in importlib.metadata.entry_points(group=GROUP)
    )
    assert len(expected) == 4
    got = [(e.name, e.distribution, e.version, e.target.removesuffix(":None")) for e in list_models().entries]
    assert got == expected


def test_a_path_of_its_own(fake_site, tmp_path: Path) -> None:
    fake_site.add("some-plugin", {"good": "some_plugin:Good"})
    assert [entry.name for entry in list_models([str(fake_site.folder)]).entries] == ["good"]
    assert list_models([str(tmp_path / "nowhere")]).entries == ()


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_file_stops_no_other_package(fake_site, fault: str) -> None:
    bad = fake_site.add("foreign", MALFORMED[fault])
    fake_site.add("some-plugin", {"good": "some_plugin:Good"}, some_plugin=GOOD)
    listing = list_models()
    assert [entry.name for entry in listing.entries] == ["good"]
    assert len(listing.problems) == 1
    assert str(bad) in listing.problems[0]
    assert "\n" not in listing.problems[0]
    assert load_model("good")[1].distribution == "some-plugin"
    with pytest.raises(PluginError, match="foreign"):
        find_model("fifty-fifty")  # what could not be read may be what is missing


def test_every_malformed_file_is_named_once(fake_site) -> None:
    files = [fake_site.add(f"foreign{number}", text) for number, text in enumerate(MALFORMED.values())]
    fake_site.add("some-plugin", {"good": "some_plugin:Good"})
    listing = list_models()
    assert [entry.name for entry in listing.entries] == ["good"]
    assert len(listing.problems) == len(files)
    for file in files:
        assert sum(str(file) in problem for problem in listing.problems) == 1


def test_a_malformed_entry_leaves_the_package_its_others(fake_site) -> None:
    file = fake_site.add("some-plugin", {"bad": "no target!", "good": "some_plugin:Good"})
    listing = list_models()
    assert [entry.name for entry in listing.entries] == ["good"]
    assert listing.problems == (f"{file}: model 'bad' is left out: Couldn't parse entry point spec: 'no target!'",)


@pytest.mark.parametrize("foreign", [b"", MALFORMED["no section"]], ids=["alone", "beside a malformed file"])
def test_one_name_from_two_packages(fake_site, foreign: bytes) -> None:
    fake_site.add("first-plugin", {"linknet": "first:Good"}, version="1.5", first=GOOD)
    fake_site.add("second-plugin", {"linknet": "second:Good"}, version="0.7", second=GOOD)
    fake_site.add("foreign", foreign)
    assert names() == ["linknet", "linknet"]
    with pytest.raises(PluginError) as caught:
        load_model("linknet")
    assert str(caught.value) == (
        "model 'linknet' is given by first-plugin 1.5 and second-plugin 0.7: "
        "write first-plugin:linknet or second-plugin:linknet"
    )
    model, entry = load_model("second-plugin:linknet")
    assert (model.__module__, entry.distribution) == ("second", "second-plugin")
    assert load_model("first-plugin:linknet")[0].__module__ == "first"


def test_a_package_seen_twice_counts_once(fake_site, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_site.add("some-plugin", {"good": "some_plugin:Good"})
    monkeypatch.syspath_prepend(str(fake_site.folder))
    assert names() == ["good"]


@pytest.mark.parametrize("name", ["Upper", "under_score", "a--b", "-a", "a-", "dist:name", "sp ace", "ünet"])
def test_a_name_that_breaks_the_rule(fake_site, name: str) -> None:
    fake_site.add("some-plugin", {name: "some_plugin:Good", "good-2": "some_plugin:Good"})
    listing = list_models()
    assert [entry.name for entry in listing.entries] == ["good-2"]
    assert listing.problems == (
        f"model {name!r} of some-plugin 1.0 is ignored: a name is lower-case words joined by -",
    )


def test_an_unknown_name(fake_site) -> None:
    fake_site.add("some-plugin", {"linknet34": "some_plugin:Good"})
    with pytest.raises(PluginError, match=r"^model 'linknet-34' is unknown: did you mean 'linknet34'\?$"):
        find_model("linknet-34")
    with pytest.raises(PluginError, match=r"^model 'xyz' is unknown: carvana-ens models lists what is installed$"):
        find_model("xyz")
    with pytest.raises(PluginError, match=r"^model 'other:linknet34' is unknown: did you mean 'linknet34'\?$"):
        find_model("other:linknet34")


@pytest.mark.parametrize("name", KNOWN_PACKAGES)
def test_a_model_of_ours_that_is_not_installed(fake_site, name: str) -> None:
    with pytest.raises(PluginError) as caught:
        load_model(name)
    assert str(caught.value) == f"model {name!r} is not installed: pip install {KNOWN_PACKAGES[name]}"


def test_known_packages_are_the_plugins_of_this_repository() -> None:
    found = {}
    for file in (Path(__file__).parents[1] / "plugins").glob("*/pyproject.toml"):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        for group, entries in project["entry-points"].items():
            found.setdefault(group, {}).update(dict.fromkeys(entries, project["name"]))
    assert found == {GROUP: KNOWN_PACKAGES, STEPS: KNOWN_STEPS}
    assert all(NAME.fullmatch(name) for entries in found.values() for name in entries)


BROKEN = {
    "raises": ("raise RuntimeError('no licence\\n  found')", "RuntimeError: no licence found"),
    "lacks": ("import there_is_no_such_library", "ModuleNotFoundError: No module named 'there_is_no_such_library'"),
    "exits": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "empty": ("", "AttributeError: module 'empty' has no attribute 'Good'"),
    "function": ("def Good(): pass", "function:Good is function, not a class derived from carvana_ens.Model"),
    "foreign": ("class Good: pass", "foreign:Good is type, not a class derived from carvana_ens.Model"),
}
"""Modules by name, with the reason that is to be given."""
DEADLY = {
    "dies": ("import os; os._exit(0)", "its import ended Python with exit code 0"),
    "aborts": ("import os; os.abort()", "its import ended Python with exit code -6"),
}
HARMLESS = {
    "prints": f"import sys\nprint('hello')\nsys.stdout.buffer.write(b'\\xff\\n{{')\n{GOOD}",
    "complains": f"import os\nos.write(2, b'\\xff')\nos.write(1, b'\\xff')\n{GOOD}",
    "closes": f"import sys\nsys.stdout.write('no line end')\n{GOOD}",
    "reads": f"import sys\nassert sys.stdin.read() == ''\n{GOOD}",
    "good": GOOD,
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin(fake_site, fault: str) -> None:
    source, reason = BROKEN[fault]
    fake_site.add("bad-plugin", {fault: f"{fault}:Good"}, version="3.1", **{fault: source})
    fake_site.add("some-plugin", {"good": "some_plugin:Good"}, some_plugin=GOOD)
    with pytest.raises(PluginError) as caught:
        load_model(fault)
    assert str(caught.value) == f"model {fault!r} of bad-plugin 3.1 cannot be loaded: {reason}"
    error = caught.value
    assert (error.name, error.distribution, error.version, error.reason) == (fault, "bad-plugin", "3.1", reason)
    assert issubclass(load_model("good")[0], Model)


def test_a_module_is_no_model(fake_site) -> None:
    fake_site.add("bad-plugin", {"whole": "whole"}, whole=GOOD)
    with pytest.raises(PluginError, match="is module, not a class"):
        load_model("whole")


def test_what_a_plugin_prints_spoils_no_output(fake_site, capsys: pytest.CaptureFixture[str]) -> None:
    fake_site.add("noisy", {"noisy": "noisy:Good"}, noisy=f"print('hello')\n{GOOD}")
    load_model("noisy")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")


def test_checking_imports_each_in_a_process_of_its_own(fake_site) -> None:
    faults = {**BROKEN, **DEADLY}
    sources = {**{name: source for name, (source, _) in faults.items()}, **HARMLESS}
    for name, source in sources.items():
        fake_site.add(f"plugin-{name}", {name: f"{name}:Good"}, **{name: source})
    entries = list_models().entries
    reasons = dict(zip([entry.name for entry in entries], check_models(entries), strict=True))
    assert reasons == {**{name: reason for name, (_, reason) in faults.items()}, **dict.fromkeys(HARMLESS)}
    assert not any(name in sys.modules for name in ("raises", "dies", "prints", "good"))


def test_checking_does_not_wait_for_ever(fake_site) -> None:
    fake_site.add("slow", {"sleeps": "sleeps:Good"}, sleeps=f"import time\ntime.sleep(600)\n{GOOD}")
    assert check_models(list_models().entries, seconds=1.5) == ["its import took more than 1.5 s"]


def test_models_of_one_package_share_a_process_while_none_ends_it(fake_site) -> None:
    mark, common = fake_site.marking("")
    fake_site.add(
        "family",
        {"a-good": "family_a:Good", "b-dies": "family_b:Good", "c-good": "family_c:Good", "d-raises": "family_d:Good"},
        common=common,
        family_a=f"import common\n{GOOD}",
        family_b="import common, os\nos._exit(3)",
        family_c=f"import common\n{GOOD}",
        family_d="import common\nraise ValueError('no')",
    )
    entries = list_models().entries
    broken = {"b-dies": "its import ended Python with exit code 3", "d-raises": "ValueError: no"}
    assert check_models(entries) == [broken.get(entry.name) for entry in entries]
    assert len(mark.read_text()) == 4  # together, then each that had not answered
    assert check_models([entry for entry in entries if entry.name != "b-dies"]) == [None, None, "ValueError: no"]
    assert len(mark.read_text()) == 5


def test_checking_one_name_of_two_packages(fake_site) -> None:
    fake_site.add("first-plugin", {"linknet": "first:Good"}, first=GOOD)
    fake_site.add("second-plugin", {"linknet": "second:Good"}, second="raise ValueError('no')")
    assert check_models(list_models().entries) == [None, "ValueError: no"]


def test_models_that_loaded_are_remembered_until_their_files_change(fake_site) -> None:
    mark, source = fake_site.marking(GOOD)
    bad_mark, bad = fake_site.marking("raise ValueError('no')")
    fake_site.add("some-plugin", {"good": "some_plugin:Good"}, version="1.2", some_plugin=source)
    fake_site.add("bad-plugin", {"bad": "bad_plugin:Good"}, version="0.1", bad_plugin=bad)
    module = fake_site.folder / "some_plugin.py"

    def imported() -> tuple[int, int]:
        found = models(check=check).models
        assert [(m.name, m.distribution, m.version, m.reason) for m in found] == expected
        return len(mark.read_text()), len(bad_mark.read_text())

    check = False
    expected = [("bad", "bad-plugin", "0.1", "ValueError: no"), ("good", "some-plugin", "1.2", None)]
    assert imported() == (1, 1)
    assert imported() == (1, 2)  # a broken one may have been mended by anything
    check = True
    assert imported() == (2, 3)
    check = False
    module.write_text(source.replace("Good", "Another"))
    expected[1] = (*expected[1][:3], "AttributeError: module 'some_plugin' has no attribute 'Good'")
    assert imported() == (3, 4)
    module.write_text(source)
    expected[1] = (*expected[1][:3], None)
    assert imported() == (4, 5)
    assert imported() == (4, 6)


def test_a_memory_that_cannot_be_used_costs_time_only(fake_site, tmp_path: Path) -> None:
    fake_site.add("some-plugin", {"good": "some_plugin:Good"}, some_plugin=GOOD)
    assert models().models[0].reason is None
    memory = next(path for path in (tmp_path / "home").rglob("*.json"))
    for text in ("{", "[[1]]", "3"):
        memory.write_text(text)
        assert models().models[0].reason is None
    memory.unlink()
    memory.mkdir()
    assert models().models[0].reason is None


def test_describing_a_model(fake_site) -> None:
    source = (
        "from dataclasses import dataclass\nfrom typing import Literal\nfrom carvana_ens import Model, Size, option\n"
        "@dataclass(frozen=True)\nclass Base:\n    blur: float = option(1.5, 'of the edges')\n"
        "@dataclass(frozen=True)\nclass Options(Base):\n    mode: Literal['a', 'b'] = option('a', 'which way')\n"
        "class Good(Model):\n    '''One line.\n\n    Another.\n    '''\n    Options = Options\n    size = Size(3, 4)\n"
        "    def count_parameters(self): return 7\n"
    )
    fake_site.add("some-plugin", {"good": "some_plugin:Good"}, version="1.2", some_plugin=source)
    found = describe("good")
    assert (found.name, found.distribution, found.version, found.help) == ("good", "some-plugin", "1.2", "One line.")
    assert (found.parameters, found.trainable, found.size, found.context) == (7, False, "3x4", "image")
    assert [(o.name, o.default, o.help) for o in found.options] == [
        ("blur", 1.5, "of the edges"),
        ("mode", "a", "which way"),
    ]


def test_the_check_answers_a_line_of_json(fake_site) -> None:
    """The protocol between the two processes, seen from outside."""
    fake_site.add("noisy", {"noisy": "noisy:Good"}, noisy=f"print('hello', end='')\n{GOOD}")
    command = [sys.executable, "-m", "carvana_ens.registry", GROUP, "noisy:noisy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=fake_site.env)
    assert json.loads(done.stdout.splitlines()[-1]) == {"carvana_ens_check": {"noisy:noisy": None}}
    assert done.stderr == "hello"


STEP = "from carvana_ens import Step\nclass Blur(Step):\n    name = 'blur'\n"


def with_steps(fake_site, distribution, steps, models=(), **modules):
    """A package of steps, and of models, given as lines of its entry points."""
    lines = [f"[{STEPS}]", *steps, f"[{GROUP}]", *models]
    return fake_site.add(distribution, "\n".join(lines).encode(), **modules)


def test_steps_and_models_are_kept_apart(fake_site) -> None:
    mark, source = fake_site.marking(STEP)
    both = f"{GOOD}{STEP}"
    with_steps(fake_site, "some-plugin", ["blur = some_steps:Blur"], ["good = both:Good"], some_steps=source, both=both)
    assert names() == ["good"]
    assert list_steps().entries == (Entry("blur", "some-plugin", "1.0", "some_steps:Blur"),)
    assert not mark.exists()
    step, entry = load_step("some-plugin:blur")
    assert issubclass(step, Step)
    assert (entry.distribution, step().name, mark.read_text()) == ("some-plugin", "blur", "x")
    with pytest.raises(PluginError, match=r"^model 'blur' is unknown: carvana-ens models lists what is installed$"):
        load_model("blur")
    with pytest.raises(PluginError, match=r"^step 'good' is unknown: carvana-ens models --steps lists"):
        load_step("good")


def test_steps_that_are_not_there(fake_site) -> None:
    with_steps(fake_site, "some-plugin", ["blur = some_steps:Blur"])
    with pytest.raises(PluginError, match=r"^step 'blurr' is unknown: did you mean 'blur'\?$"):
        find_step("blurr")
    with pytest.raises(PluginError, match=r"^step 'fill-holes' is not installed: pip install carvana-ens-postprocess$"):
        find_step("fill-holes")
    with pytest.raises(PluginError, match=r"^step 'fillholes' is unknown: did you mean 'fill-holes'\?$"):
        find_step("fillholes")


def test_broken_steps(fake_site) -> None:
    steps = {
        "raises": ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        "foreign": (f"{GOOD}Blur = Good", "foreign:Blur is type, not a class derived from carvana_ens.Step"),
        "other": (STEP, "other:Blur has the name 'blur', not that of its entry point"),
        "nameless": (
            "from carvana_ens import Step\nclass Blur(Step): pass",
            "nameless:Blur has the name None, not that of its entry point",
        ),
    }
    for name, (source, _) in steps.items():
        with_steps(fake_site, f"bad-{name}", [f"{name} = {name}:Blur"], **{name: source})
    with_steps(fake_site, "some-plugin", ["blur = some_steps:Blur"], some_steps=STEP)
    for name, (_, reason) in steps.items():
        with pytest.raises(PluginError) as caught:
            load_step(name)
        assert str(caught.value) == f"step {name!r} of bad-{name} 1.0 cannot be loaded: {reason}"
    entries = list_steps().entries
    found = dict(zip([entry.name for entry in entries], check_steps(entries), strict=True))
    assert found == {**{name: reason for name, (_, reason) in steps.items()}, "blur": None}


def test_a_malformed_file_stops_no_step(fake_site) -> None:
    bad = fake_site.add("foreign", f"[{STEPS}]\nblur\n".encode())
    with_steps(fake_site, "some-plugin", ["blur = some_steps:Blur", "bad = no target!"], some_steps=STEP)
    listing = list_steps()
    assert [entry.name for entry in listing.entries] == ["blur"]
    assert len(listing.problems) == 2
    assert str(bad) in listing.problems[0]
    assert "step 'bad' is left out" in listing.problems[1]
