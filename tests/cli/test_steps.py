"""carvana-ens models --steps."""

from __future__ import annotations

import json

import pytest

STEP = """from dataclasses import dataclass
from carvana_ens import Step, option
@dataclass(frozen=True)
class Blur(Step):
    '''Blurs the edge.

    Slowly.
    '''
    name = 'blur'
    tried = {'radius': (1, 3)}
    radius: int = option(2, 'how far')
"""


@pytest.fixture
def steps(fake_site):
    """A package with a good and a broken step; nothing else is installed."""
    lines = "[carvana_ens.postprocess]\nblur = some_steps:Blur\nbroken = bad_steps:Broken\n"
    return fake_site.add("some-plugin", lines.encode(), "1.2", some_steps=STEP, bad_steps="raise ValueError('no')")


def test_the_steps_with_the_reason_of_a_broken_one(steps, run):
    done = run("models", "--steps")
    assert done.code == 0
    assert [line.split(maxsplit=3) for line in done.out.splitlines()] == [
        ["NAME", "PACKAGE", "VERSION"],
        ["blur", "some-plugin", "1.2"],
        ["broken", "some-plugin", "1.2", "BROKEN: ValueError: no"],
    ]
    document = json.loads(run("models", "--steps", "--json").out)
    assert [(step["name"], step["reason"]) for step in document["steps"]] == [
        ("blur", None),
        ("broken", "ValueError: no"),
    ]
    assert run("models").out.startswith("no models are installed")


def test_what_loaded_is_remembered_apart_from_models(fake_site, run):
    mark, source = fake_site.marking(STEP)
    fake_site.add("some-plugin", b"[carvana_ens.postprocess]\nblur = some_steps:Blur\n", some_steps=source)
    run("models", "--steps")
    run("models")
    run("models", "--steps")
    assert mark.read_text() == "x"
    run("models", "--steps", "--check")
    assert mark.read_text() == "xx"


def test_one_step(steps, run):
    assert run("models", "--steps", "blur").out.splitlines() == [
        "blur: some-plugin 1.2",
        "Blurs the edge.",
        "options (blur:name=value):",
        "  radius  2  how far",
        "tuning tries radius 1, 3",
    ]
    document = json.loads(run("models", "--steps", "blur", "--json").out)
    assert document["options"] == [{"name": "radius", "type": "int", "default": 2, "help": "how far"}]
    assert document["tried"] == {"radius": [1, 3]}
    assert "did you mean 'blur'?" in run("models", "--steps", "blurr").error
    assert "ValueError: no" in run("models", "--steps", "broken").error
    assert "leave one out" in run("models", "--steps", "blur", "--recipe", "modern").error


def test_none_are_installed(fake_site, run):
    assert run("models", "--steps").out == (
        "no post-processing steps are installed: pip install carvana-ens-postprocess\n"
    )
