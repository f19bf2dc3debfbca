"""Completion as a shell asks for it: in a process of its own, through the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from carvana_ens.cli import main
from carvana_ens.cli.completion import INSTALLING

SCRIPT = """
import sys
from carvana_ens.cli import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
HEAVY = {"torch", "zarr", "numba", "pandas", "PIL", "tqdm"}
HEAVIER = HEAVY | {"numpy", "entrypoints"}


def ask(line: str, env: dict[str, str], cwd: Path) -> tuple[list[str], set[str]]:
    """What completes the last word of a line, and the libraries that were loaded for it."""
    words = line.split(" ")
    asked = {"_CARVANA_ENS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, cwd=cwd, env={**env, **asked}
    )
    assert done.stderr == ""
    *answers, loaded = done.stdout.splitlines()
    return [answer.removeprefix("plain,") for answer in answers if answer], set(loaded.split())


@pytest.fixture
def complete(fake_site, tmp_path):
    """Asks in a folder below a project with two members, beside a package with two models and one with a step."""
    fake_site.add("mine", {"mine-fast": "mine:Fast", "mine-good": "mine:Good"}, mine="raise RuntimeError('imported')")
    fake_site.add("mend", b"[carvana_ens.postprocess]\nmine-rim = mend:Rim\n")
    cars, other = tmp_path / "cars", tmp_path / "other"
    (cars / "stores").mkdir(parents=True)
    other.mkdir()
    (cars / "ensemble.toml").write_text('schema = 1\n[members.rn4_a]\nmodel = "x"\n[members.rn4_b]\n[members.unet]\n')
    (other / "ensemble.toml").write_text("[members.link]\nmodel = 'x'\n")
    return lambda line, cwd=cars / "stores": ask(line, fake_site.env, cwd)


def test_verbs(complete):
    found, loaded = complete("carvana-ens re")
    assert found == ["remove-model", "report", "replay"]
    assert not loaded & HEAVIER
    assert "--device" in complete("carvana-ens predict --d")[0]


def test_members_of_the_project(complete, tmp_path):
    found, loaded = complete("carvana-ens verify rn4")
    assert found == ["rn4_a", "rn4_b"]
    assert not loaded & HEAVIER
    for verb in ("train", "predict", "tune", "remove-model", "export", "history", "pack", "add-model --like"):
        assert complete(f"carvana-ens {verb} u")[0] == ["unet"], verb
    assert complete("carvana-ens verify unet rn4_b ")[0] == ["rn4_a", "rn4_b", "unet"]
    assert complete(f"carvana-ens --project {tmp_path / 'other'} verify ")[0] == ["link"]
    assert complete("carvana-ens verify ", tmp_path)[0] == []


@pytest.mark.parametrize("text", ["[members", "members = 3\n", "[[members]]\nname = 'a'\n"])
def test_a_project_that_cannot_be_read_has_no_members(complete, tmp_path, text):
    (tmp_path / "cars" / "ensemble.toml").write_text(text)
    assert complete("carvana-ens verify ")[0] == []


def test_models_and_steps(complete):
    found, loaded = complete("carvana-ens add-model mi")
    assert found == ["mine-fast", "mine-good"]
    assert not loaded & HEAVY
    for verb in ("models", "check-plugin", "uninstall"):
        assert complete(f"carvana-ens {verb} mine")[0] == ["mine-fast", "mine-good", "mine-rim"], verb
    assert complete("carvana-ens install linknet")[0] == ["linknet18", "linknet34", "linknet50"]
    assert complete("carvana-ens add-model linknet")[0] == []


@pytest.mark.parametrize("shell", INSTALLING)
def test_the_script_is_printed_with_its_place(shell, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["completion", shell])
    script = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"_CARVANA_ENS_COMPLETE={shell}_complete" in script
    assert f"carvana-ens completion {shell}" in script.splitlines()[-1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_script(complete, fake_site, tmp_path):
    """The function that bash calls, called as bash does."""
    script = subprocess.run(
        [sys.executable, "-c", "from carvana_ens.cli import main; main()", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
        env=fake_site.env,
    ).stdout
    program = tmp_path / "bin" / "carvana-ens"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom carvana_ens.cli import main\nmain()\n")
    program.chmod(0o755)
    call = (
        'COMP_WORDS=(carvana-ens verify rn4); COMP_CWORD=2; _carvana_ens_completion carvana-ens; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{call}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path / "cars",
        env={**fake_site.env, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.stdout == "rn4_a rn4_b\n", done.stderr
