"""The way in: exit codes, errors of click and of the system, and projects found from where one is."""

from __future__ import annotations

import pytest


def test_a_verb_that_does_not_exist(run):
    done = run("predcit")
    assert "did you mean 'predict'?" in done.error
    assert done.code == 2
    assert "carvana-ens --help" in run("zzz").error


def test_usage_lines_come_before_the_error(run):
    done = run("blend", "--threads", "many")
    lines = done.err.splitlines()
    assert lines[0].startswith("Usage: carvana-ens blend")
    assert done.error.startswith("Invalid value for '--threads'")
    assert "requires an argument" in run("blend", "--weights").error
    assert done.code == 2


def test_the_project_is_the_nearest_one_upward(project, monkeypatch):
    deep = project.cars / "some" / "where"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert str(project.cars) in project.run("status").out


def test_no_project(world, monkeypatch):
    monkeypatch.chdir(world.images)
    done = world.run("status")
    assert str(world.images) in done.error
    assert "carvana-ens init" in done.error
    assert done.code == 1
    told = world.run("--project", world.root / "nowhere", "status").error
    assert "nowhere" in told
    told = world.run("--project", world.images / "0a1_01.jpg", "status").error
    assert "0a1_01.jpg" in told


@pytest.mark.parametrize(
    "verb", ["train", "predict", "tune", "blend", "run", "show", "verify", "import", "remove-model"]
)
def test_every_verb_refuses_an_option_it_does_not_know(run, verb):
    done = run(verb, "--no-such-option")
    assert "--no-such-option" in done.error
    assert done.code == 2


def test_errors_of_the_system_are_one_line(run, monkeypatch):
    import carvana_ens.verbs.status

    def failing(project):
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr(carvana_ens.verbs.status, "status", failing)
    monkeypatch.setattr("carvana_ens.cli.status.open_project", lambda ctx: None)
    done = run("status")
    assert done.err == "error: /some/file: No space left on device\n"
    assert done.code == 1


def test_messages_of_several_lines_become_one(run, monkeypatch):
    from carvana_ens.errors import StoreError

    def failing(ctx):
        raise StoreError("one\n  two")

    monkeypatch.setattr("carvana_ens.cli.status.open_project", failing)
    assert run("status").err == "error: one two\n"


def test_a_process_of_its_own_ends_with_the_code(project):
    process = project.process("--project", project.cars, "remove-model", "nobody")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: member 'nobody' is unknown")
    assert err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_traceback(project):
    process = project.process("--project", project.cars, "status", "--json")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 1
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    process.stderr.close()
