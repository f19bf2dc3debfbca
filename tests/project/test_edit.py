"""ensemble.toml is edited so that every other byte stays, and never so that it would be refused."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ens import MemberConfig, Project, Size
from carvana_ens.errors import CarvanaEnsError, ProjectError, UsageError
from carvana_ens.project import (
    FILE,
    IMPORTED,
    DataConfig,
    ExtraConfig,
    FoldsConfig,
    add_member,
    create_project,
    drop_member,
    table_name,
)

SMALL = """schema = 1

[members.a]
model = "linknet"

[members.b]
model = "linknet"
like = "a"
size = "64x96"
"""
COMMENTED = """# mine: ünïcode, a tab\tand  odd   spacing
schema=1   # one

[data]  # where it lies
images = 'photos'
group = '(.*)_.*'

# --- members ---
[members.a]   # the first
model = "linknet"   # trailing
tta = [
    "hflip",  # left and right
]
[members.a.options]
epochs = 3
# note at the end of a

# about b
[members."b.2"]
model = "unet-256"
size = "256x384"

# about the folds
[folds.five]
folds = 5


[ members . c ]
model = 'linknet'
checkpoint = "x.pth"

# the very end
"""


def write(folder: Path, text: str) -> Path:
    (folder / FILE).write_bytes(text.encode())
    return folder


def test_what_is_created_says_what_was_asked(tmp_path: Path) -> None:
    root = tmp_path / "cars"
    data = DataConfig(tmp_path / "train", root / "masks.csv", tmp_path / "test", "it's (.*)_\\d+", ("car", 'a "b"'))
    extra = (ExtraConfig(tmp_path / "more", root / "more.csv", 0.25), ExtraConfig(tmp_path / "gta", tmp_path / "masks"))
    data = dataclasses.replace(data, extra=extra)
    folds = FoldsConfig(1, 0.25, 3, by_view="05")
    project = create_project(root, data, folds)
    again = Project(root)
    for found in (project, again):
        assert (found.data.group, found.data.categories) == (data.group, data.categories)
        for key in ("images", "masks", "test"):
            assert getattr(found.data, key).resolve() == getattr(data, key).resolve()
        assert found.data.extra == extra
        assert (found.folds, found.members) == ({"default": folds}, {})
    assert tomllib.loads((root / FILE).read_text())["data"]["images"] == "../train"  # the project can be moved
    with pytest.raises(ProjectError, match="is there already"):
        create_project(root, data, folds)


def test_a_project_without_data_has_hints(tmp_path: Path) -> None:
    project = create_project(tmp_path / "cars", DataConfig(), FoldsConfig())
    assert (project.data, project.folds) == (DataConfig(), {"default": FoldsConfig()})
    text = (tmp_path / "cars" / FILE).read_text()
    for line in text.splitlines():  # each hint is valid when its mark is taken away
        if line.startswith("# ") and " = " in line:
            tomllib.loads(line.removeprefix("# "))
    assert text.count("# ") >= 3


@pytest.mark.parametrize("folds", [FoldsConfig(None, 0.2), FoldsConfig(1), FoldsConfig(5, 0.2), FoldsConfig(1, 1.5)])
def test_a_project_that_would_be_refused_is_not_written(tmp_path: Path, folds: FoldsConfig) -> None:
    with pytest.raises(ProjectError, match=r"folds\.default has|folds\.default\.holdout"):
        create_project(tmp_path / "cars", DataConfig(), folds)
    assert not (tmp_path / "cars").exists()


@pytest.mark.parametrize("name", ["equal", "tuned", "a b", "a/b", "..", ".a", "-a", "a=1", "a,b", "ü", "x" * 65, ""])
def test_names_that_cannot_be_added(tmp_path: Path, name: str) -> None:
    project = Project(write(tmp_path, SMALL))
    with pytest.raises(UsageError, match="cannot name a member"):
        add_member(project, MemberConfig(name, "m"))
    assert (tmp_path / FILE).read_text() == SMALL


@pytest.mark.parametrize("name", ["a", "7", "A.b_c-d", "x" * 64, "unet-256", "equal2"])
def test_names_that_a_member_can_have(tmp_path: Path, name: str) -> None:
    project = add_member(Project(write(tmp_path, "schema = 1\n")), MemberConfig(name, "m"))
    assert list(project.members) == [name]
    assert drop_member(project, name).members == {}
    assert (tmp_path / FILE).read_text() == "schema = 1\n"


EVERYTHING = MemberConfig(
    "new.one",
    "dist:linknet",
    Size(64, 96),
    ("vflip", "hflip"),
    "k3",
    "../c \"quoted\" 'x'.pth",
    "00ff",
    None,
    True,
    7,
    {"epochs": 3, "rate": 0.5, "flag": False, "text": 'line\nbreak "and" \\ more', "none-of it": 0},
    ("01", "front left"),
    "sure",
    0.125,
)


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("tail", ["\n", "", "\n\n"], ids=["end", "no end", "blank"])
def test_adding_changes_no_other_byte(tmp_path: Path, ends: str, tail: str) -> None:
    before = (COMMENTED.rstrip("\n") + tail).replace("\n", ends)
    project = Project(write(tmp_path, before))
    added = add_member(project, EVERYTHING, FoldsConfig(3, seed=5))
    after = (tmp_path / FILE).read_bytes().decode()
    assert after.startswith(before)
    assert after.count("\n") == after.count(ends)
    for found in (added, Project(tmp_path)):
        assert found.members == {**project.members, "new.one": EVERYTHING}
        assert found.folds == {**project.folds, "k3": FoldsConfig(3, seed=5)}
        assert found.data == project.data
    if tail == "\n":
        block = after[len(before) :].replace("\r\n", "\n")
        assert block.startswith("\n[folds.k3]\nfolds = 3\nseed = 5\n\n[members")  # a blank line sets a table off


def test_only_what_differs_from_the_defaults_is_written(tmp_path: Path) -> None:
    project = add_member(Project(write(tmp_path, "schema = 1\n")), MemberConfig("a", "linknet"))
    add_member(project, MemberConfig("maps", IMPORTED))
    assert (tmp_path / FILE).read_text() == (
        'schema = 1\n\n[members.a]\nmodel = "linknet"\n\n[members.maps]\nimported = true\n'
    )


def test_a_fold_table_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    project = Project(write(tmp_path, COMMENTED))
    assert table_name(project, FoldsConfig(5)) == "five"
    add_member(project, MemberConfig("n", "m", folds="five"), FoldsConfig(5))
    assert (tmp_path / FILE).read_text() == COMMENTED + '\n[members.n]\nmodel = "m"\nfolds = "five"\n'


def test_names_of_fold_tables(tmp_path: Path) -> None:
    text = "schema = 1\n[folds.k3]\nfolds = 4\n[folds.holdout20]\nfolds = 1\nholdout = 0.2\nseed = 1\n"
    project = Project(write(tmp_path, text))
    assert table_name(project, FoldsConfig()) == "default"
    assert table_name(project, FoldsConfig(4)) == "k3"
    assert table_name(project, FoldsConfig(3)) == "k3-2"
    assert table_name(project, FoldsConfig(7)) == "k7"
    assert table_name(project, FoldsConfig(7, rule="histogram")) == "k7-histogram"
    assert table_name(project, FoldsConfig(1, 0.2)) == "holdout20-2"
    assert table_name(project, FoldsConfig(1, 0.2, 1)) == "holdout20"


REFUSED_MEMBERS = {
    "taken": (MemberConfig("a", "m"), "member 'a' is there already"),
    "like one that is like": (MemberConfig("c", "linknet", like="b"), "members.c.like is 'b'"),
    "like none": (MemberConfig("c", "linknet", like="zzz"), "members.c.like is 'zzz'"),
    "no such folds": (MemberConfig("c", "m", folds="k9"), "members.c.folds is 'k9'"),
    "negative seed": (MemberConfig("c", "m", seed=-1), "members.c.seed takes"),
}


@pytest.mark.parametrize("fault", REFUSED_MEMBERS)
def test_a_member_that_would_be_refused_is_not_written(tmp_path: Path, fault: str) -> None:
    config, message = REFUSED_MEMBERS[fault]
    project = Project(write(tmp_path, SMALL))
    with pytest.raises(CarvanaEnsError) as caught:
        add_member(project, config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / FILE).read_text() == SMALL


def test_an_inline_table_of_members_is_not_added_to(tmp_path: Path) -> None:
    text = "schema = 1\nmembers = {a = {model = 'm'}, b = {model = 'n'}}  # mine\n"
    project = Project(write(tmp_path, text))
    with pytest.raises(ProjectError, match="member c cannot be added, nothing was written: "):
        add_member(project, MemberConfig("c", "m"))
    assert (tmp_path / FILE).read_text() == text
    assert list(drop_member(project, "a").members) == ["b"]
    assert (tmp_path / FILE).read_text().endswith("  # mine\n")


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    ("name", "gone"),
    [
        (
            "a",
            '[members.a]   # the first\nmodel = "linknet"   # trailing\ntta = [\n    "hflip",  # left and right\n]\n'
            "[members.a.options]\nepochs = 3\n",
        ),
        ("b.2", '[members."b.2"]\nmodel = "unet-256"\nsize = "256x384"\n'),
        ("c", "[ members . c ]\nmodel = 'linknet'\ncheckpoint = \"x.pth\"\n\n"),
    ],
)
def test_dropping_changes_no_other_byte(tmp_path: Path, name: str, gone: str, ends: str) -> None:
    assert gone in COMMENTED
    project = Project(write(tmp_path, COMMENTED.replace("\n", ends)))
    dropped = drop_member(project, name)
    assert (tmp_path / FILE).read_bytes().decode() == COMMENTED.replace(gone, "").replace("\n", ends)
    for found in (dropped, Project(tmp_path)):
        assert found.members == {key: value for key, value in project.members.items() if key != name}
        assert (found.folds, found.data) == (project.folds, project.data)


def test_added_and_dropped_again_is_the_same_file(tmp_path: Path) -> None:
    start = add_member(Project(write(tmp_path, COMMENTED)), MemberConfig("x", "m", options={"a": 1}))
    first = (tmp_path / FILE).read_bytes()
    second = add_member(start, MemberConfig("y", "m", options={"b": "[members.x]"}))
    drop_member(second, "y")
    assert (tmp_path / FILE).read_bytes() == first
    drop_member(Project(tmp_path), "x")
    assert (tmp_path / FILE).read_bytes() == COMMENTED.encode()


UNUSUAL = {
    "inline in a table": ("[members]\n# about a\na = {model = 'm'}\nb = {model = 'n'} # b\n", "} # b\n"),
    "dotted": ("members.a.model = 'm'\nmembers.b.model = 'n' # b\n", "'n' # b\n"),
    "subtable first": (
        "[members.a.options]\nx = 1\n[members.b]\nmodel = 'n' # b\n[members.a]\nmodel = 'm'\n",
        "'n' # b\n",
    ),
    "header in a text": (
        "[members.b]\nmodel = '''n\n[members.a]\nmodel\n'''\n[members.a]\nmodel = 'm'\n",
        "[members.a]\nmodel\n'''\n",
    ),
    "quoted members": ("['members'.a]\nmodel = 'm'\n[members.b]\nmodel = 'n' # b\n", "'n' # b\n"),
    "prefix of another": (
        "[members.a]\nmodel = 'm'\n[members.ab]\nmodel = 'n' # b\n[members.'a.b']\nmodel = 'n'\n",
        "[members.ab]\nmodel = 'n' # b\n[members.'a.b']\nmodel = 'n'\n",
    ),
}
"""Ways to write members, and what must be left of them without a."""


@pytest.mark.parametrize("layout", UNUSUAL)
def test_dropping_from_an_unusual_layout(tmp_path: Path, layout: str) -> None:
    text, kept = UNUSUAL[layout]
    project = Project(write(tmp_path, f"schema = 1\n{text}"))
    dropped = drop_member(project, "a")
    after = (tmp_path / FILE).read_text()
    assert after.endswith(kept)
    assert dropped.members == {key: value for key, value in project.members.items() if key != "a"}
    assert Project(tmp_path).members == dropped.members


def test_dropping_one_that_is_none_or_needed(tmp_path: Path) -> None:
    project = Project(write(tmp_path, SMALL))
    with pytest.raises(UsageError, match="member 'b' is like 'a': remove 'b' first"):
        drop_member(project, "a")
    with pytest.raises(UsageError, match="member 'c' is unknown"):
        drop_member(project, "c")
    assert (tmp_path / FILE).read_text() == SMALL


comment = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=8).map(lambda text: f"#{text}")
gap = st.lists(st.one_of(st.just(""), comment), max_size=3)


@settings(deadline=None, max_examples=60)
@given(gaps=st.lists(gap, min_size=5, max_size=5), order=st.permutations("abf"), drop=st.sampled_from("ab"))
def test_no_comment_is_ever_lost(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[list[str]], order: list[str], drop: str
) -> None:
    """Dropping one of three tables takes its own lines, and at most blank ones beside it."""
    tables = {"a": "[members.a]\nmodel = 'm'", "b": "[members.b]\nmodel = 'n'\nseed = 3", "f": "[folds.x]\nfolds = 3"}
    lines = ["schema = 1", *gaps[0]]
    for name, around in zip(order, gaps[1:], strict=False):
        lines += [tables[name], *around]
    text = "\n".join(lines) + "\n"
    folder = tmp_path_factory.mktemp("project")
    dropped = drop_member(Project(write(folder, text)), drop)
    after = (folder / FILE).read_bytes().decode()
    assert [line for line in after.split("\n") if line] == [
        line for line in text.replace(tables[drop] + "\n", "").split("\n") if line
    ]
    assert list(dropped.members) == ["b" if drop == "a" else "a"]
    added = add_member(dropped, MemberConfig("new", "m"))
    assert (folder / FILE).read_bytes().decode() == after + '\n[members.new]\nmodel = "m"\n'
    assert list(added.members)[-1] == "new"


def test_where_stores_lie_is_written(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf" / "cars"
    assert create_project(tmp_path / "cars", DataConfig(), FoldsConfig(), str(shelf)).stores == shelf
    assert tomllib.loads((tmp_path / "cars" / FILE).read_text())["stores"] == "../shelf/cars"
    assert (
        create_project(tmp_path / "far", DataConfig(), FoldsConfig(), "s3://bucket/cars/").stores == "s3://bucket/cars"
    )
    with pytest.raises(ProjectError, match="stores takes a folder or an address such as"):
        create_project(tmp_path / "web", DataConfig(), FoldsConfig(), "http://bucket/cars")
    assert not (tmp_path / "web").exists()
