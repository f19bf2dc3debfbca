from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carvana_ens.model import MemberConfig, Model, option
from carvana_ens.project import DataConfig, FoldsConfig, Project, create_project
from carvana_ens.verbs import members, regions
from carvana_ens.verbs.plugin_calls import configured


@dataclass(frozen=True)
class StartOptions:
    start: str = option("", "a file to start from, or hub", path=True)


class Starting(Model):
    Options = StartOptions


def test_an_option_that_names_a_file_is_kept_relative_to_the_project_and_handed_over_absolute(tmp_path, monkeypatch):
    weights = tmp_path / "weights" / "start.bin"
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    project = create_project(tmp_path / "cars", DataConfig(), FoldsConfig())
    for module in (members, regions):
        monkeypatch.setattr(module, "load_model", lambda _: (Starting, None))
    monkeypatch.chdir(tmp_path / "weights")
    members.add_model(project, "starting", name="a", options={"start": "start.bin"})
    members.add_model(Project(project.root), "starting", name="b", options={"start": "hub"})
    monkeypatch.chdir("/")
    project = Project(project.root)
    assert project.members["a"].options == {"start": "../weights/start.bin"}
    given = Path(configured(Starting, project.member("a"), project.root).options.start)
    assert given.is_absolute()
    assert given.samefile(weights)
    assert configured(Starting, project.member("b"), project.root).options.start == "hub"
    assert configured(Starting, MemberConfig("c", "starting"), project.root).options.start == ""
