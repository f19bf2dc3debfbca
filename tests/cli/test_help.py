"""--help of everything, and the command line beside a plugin that is slow and broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

import click
import pytest
from click.testing import CliRunner

from carvana_ens.cli.app import COMMANDS, app

SLOW_AND_BROKEN = "import time\ntime.sleep(5)\nraise RuntimeError('no licence found')\n"


def call(fake_site, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from carvana_ens.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=fake_site.env, check=False)


def test_help_names_every_verb_with_what_it_does() -> None:
    text = CliRunner().invoke(app, ["--help"], prog_name="carvana-ens").output
    for verb in COMMANDS:
        assert re.search(rf"^  {verb} +\S", text, re.MULTILINE), verb
    assert "--project" in text
    assert CliRunner().invoke(app, ["-h"], prog_name="carvana-ens").output == text


@pytest.mark.parametrize("verb", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_verb_has_an_example_that_parses(verb: str, flag: str) -> None:
    result = CliRunner().invoke(app, [verb, flag], prog_name="carvana-ens")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: carvana-ens {verb} ")
    _, _, examples = result.output.partition("Example:\n")
    lines = examples.partition("\n\n")[0].splitlines()
    assert lines
    for line in lines:
        words = line.split()
        assert words[0] == "carvana-ens"
        check_call(words[1:])


def check_call(words: Sequence[str]) -> None:
    """The command line parses this call; nothing is run."""
    command = app.get_command(click.Context(app), words[0])
    assert command is not None, words
    command.make_context(words[0], list(words[1:]))


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_is_explained(verb: str) -> None:
    command = app.get_command(click.Context(app), verb)
    assert command is not None
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{verb} {parameter.name}"


def test_help_imports_no_plugin(fake_site) -> None:
    mark, source = fake_site.marking(SLOW_AND_BROKEN)
    fake_site.add("slow-plugin", {"slow": "slow_plugin:Slow"}, version="2.3", slow_plugin=source)
    for arguments in (["--help"], ["models", "--help"], ["--version"], ["add-model", "--help"]):
        done = call(fake_site, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert not mark.exists()

    done = call(fake_site, "models")
    assert mark.read_text() == "x"  # the mark works: listing the reasons imports it, once
    assert (done.returncode, done.stderr) == (0, "")
    header, line = done.stdout.splitlines()
    assert header.split() == ["NAME", "PACKAGE", "VERSION"]
    assert line.split(maxsplit=3) == ["slow", "slow-plugin", "2.3", "BROKEN: RuntimeError: no licence found"]


def test_models_as_json(fake_site) -> None:
    good = "print('hello')\nfrom carvana_ens import Model\nclass Good(Model):\n    '''A good model.'''\n"
    fake_site.add("slow-plugin", {"slow": "slow_plugin:Slow"}, version="2.3", slow_plugin=SLOW_AND_BROKEN)
    fake_site.add("some-plugin", {"good": "some_plugin:Good"}, some_plugin=good)
    bad = fake_site.add("foreign", b"no section\n")
    done = call(fake_site, "models", "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["models"] == [
        {"name": "good", "distribution": "some-plugin", "version": "1.0", "reason": None},
        {"name": "slow", "distribution": "slow-plugin", "version": "2.3", "reason": "RuntimeError: no licence found"},
    ]
    assert len(document["problems"]) == 1
    assert str(bad) in document["problems"][0]
    assert done.stderr == f"warning: {document['problems'][0]}\n"

    done = call(fake_site, "models", "good", "--json")
    assert json.loads(done.stdout)["help"] == "A good model."
    done = call(fake_site, "models", "good")
    assert done.stdout.splitlines()[:2] == ["good: some-plugin 1.0", "A good model."]


def test_models_without_any(fake_site) -> None:
    done = call(fake_site, "models")
    assert done.returncode == 0
    assert done.stdout.startswith("no models are installed: pip install")
    assert json.loads(call(fake_site, "models", "--json").stdout) == {"models": [], "problems": []}


def test_a_verb_that_is_none(fake_site) -> None:
    done = call(fake_site, "blnd")
    assert done.returncode == 2
    assert "verb 'blnd' is unknown: did you mean 'blend'?" in done.stderr
    assert "Traceback" not in done.stderr
