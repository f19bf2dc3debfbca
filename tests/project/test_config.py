"""ensemble.toml is read strictly: each fault is one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from carvana_ens import MemberConfig, Project, Size
from carvana_ens.errors import ProjectError, UsageError
from carvana_ens.project import FILE, IMPORTED, DataConfig, ExtraConfig, FoldsConfig, find_project

SMALL = """schema = 1

[members.a]
model = "linknet"

[members.b]
model = "linknet"
like = "a"
size = "64x96"
"""


def write(folder: Path, text: str) -> Path:
    (folder / FILE).write_bytes(text.encode())
    return folder


def refused(folder: Path, text: str) -> str:
    """The message of what reading this file raises."""
    with pytest.raises(ProjectError) as caught:
        Project(write(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder / FILE))
    return message.removeprefix(str(folder / FILE)).removeprefix(": ")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", "{root}/stores/m/test.zarr"),
        ('stores = "maps"', "{root}/maps/m/test.zarr"),
        ('stores = "../shelf/./cars/"', "{parent}/shelf/cars/m/test.zarr"),
        ('stores = "/abs"', "/abs/m/test.zarr"),
    ],
)
def test_stores_lie_in_a_folder_relative_to_the_file(tmp_path: Path, key: str, expected: str) -> None:
    project = Project(write(tmp_path, f"schema = 1\n{key}\n"))
    assert project.store_path("m", "test") == Path(expected.format(root=tmp_path, parent=tmp_path.parent))


@pytest.mark.parametrize("address", ["s3://bucket", "s3://bucket/", "s3://bucket/a/b-1.c", "gs://b/c", "az://b/c/"])
def test_stores_lie_at_an_address(tmp_path: Path, address: str) -> None:
    project = Project(write(tmp_path, f'schema = 1\nstores = "{address}"\n'))
    assert project.store_path("m", "test") == f"{address.rstrip('/')}/m/test.zarr"


def test_all_that_can_be_said(tmp_path: Path) -> None:
    text = """schema = 1
[data]
images = "../photos"
masks = "/abs/masks.csv"
test = "test"
group = '(.*)_\\d+'
categories = ["car", "wheel"]
[[data.extra]]
images = "../more"
masks = "more.csv"
[[data.extra]]
images = "gta"
masks = "gta_masks"
share = 0.2
[folds.default]
folds = 3
seed = 4
rule = "histogram"
by_view = "05"
[folds.once]
folds = 1
holdout = 0.2
[members.a]
model = "some-dist:linknet"
size = "64x96"
tta = ["hflip", "vflip"]
folds = "once"
checkpoint = "c.safetensors"
sha256 = "00ff"
out_of_fold = true
seed = 7
options = {epochs = 3, name = "x", rate = 0.5, flag = false}
views = ["01", "09"]
pseudo = "sure"
pseudo_share = 0.25
[members.b]
model = "linknet"
[members.maps]
imported = true
"""
    project = Project(write(tmp_path, text))
    assert project.data == DataConfig(
        tmp_path.parent / "photos",
        Path("/abs/masks.csv"),
        tmp_path / "test",
        r"(.*)_\d+",
        ("car", "wheel"),
        (
            ExtraConfig(tmp_path.parent / "more", tmp_path / "more.csv"),
            ExtraConfig(tmp_path / "gta", tmp_path / "gta_masks", 0.2),
        ),
    )
    assert project.folds == {"default": FoldsConfig(3, None, 4, "histogram", "05"), "once": FoldsConfig(1, 0.2)}
    options = {"epochs": 3, "name": "x", "rate": 0.5, "flag": False}
    assert project.members["a"] == MemberConfig(
        "a",
        "some-dist:linknet",
        Size(64, 96),
        ("hflip", "vflip"),
        "once",
        "c.safetensors",
        "00ff",
        None,
        True,
        7,
        options,
        ("01", "09"),
        "sure",
        0.25,
    )
    assert project.members["b"] == MemberConfig("b", "linknet")
    assert project.members["maps"] == MemberConfig("maps", IMPORTED)
    assert list(project.members) == ["a", "b", "maps"]


def test_the_least_that_can_be_said(tmp_path: Path) -> None:
    project = Project(write(tmp_path, "schema = 1\n"))
    assert (project.data, project.members, project.folds) == (DataConfig(), {}, {"default": FoldsConfig()})


def test_where_things_lie(tmp_path: Path) -> None:
    project = Project(write(tmp_path, SMALL))
    a, b = project.members["a"], project.members["b"]
    assert project.fold_file("default") == tmp_path / "folds" / "default.json"
    assert project.checkpoint_folder(a, 2) == tmp_path / "checkpoints" / "a" / "fold2"
    assert project.checkpoint_folder(b, 2) == tmp_path / "checkpoints" / "a" / "fold2"
    assert project.store_path("b", "oof") == tmp_path / "stores" / "b" / "oof.zarr"
    assert project.tuning_file == tmp_path / "tuning.json"


MEMBER = "schema = 1\n[members.a]\nmodel = 'm'\n"
FOLDS = "schema = 1\n[folds.x]\n"
EXTRA = "schema = 1\n[[data.extra]]\nimages = 'x'\nmasks = 'y'\n"
BAD = {
    "no schema": ("[data]\n", "schema is None"),
    "newer schema": ("schema = 2\n", "schema is 2"),
    "schema as text": ('schema = "1"\n', "schema is '1'"),
    "unknown key": ("schema = 1\nmember = 1\n", "key member is unknown: did you mean 'members'?"),
    "unknown key, nothing near": ("schema = 1\nxyz = 1\n", "key xyz is unknown: it may hold: schema, stores, data,"),
    "stores": ("schema = 1\nstores = 3\n", "stores takes a text, got 3"),
    "stores, empty": ("schema = 1\nstores = ''\n", "stores takes a text, got ''"),
    "stores of no bucket": ("schema = 1\nstores = 's3://'\n", "stores takes a folder or an address such as"),
    "stores at a web page": ("schema = 1\nstores = 'http://h:9000/b'\n", "stores takes a folder or an address such as"),
    "stores with a question": ("schema = 1\nstores = 's3://b/c?d=1'\n", "stores takes a folder or an address such as"),
    "stores with a gap": ("schema = 1\nstores = 's3://b/my cars'\n", "stores takes a folder or an address such as"),
    "stores with nothing between": (
        "schema = 1\nstores = 's3://b//c'\n",
        "stores takes a folder or an address such as",
    ),
    "stores above": ("schema = 1\nstores = 's3://b/../c'\n", "stores takes a folder or an address such as"),
    "data": ("schema = 1\ndata = 3\n", "data takes a table, got 3"),
    "data key": ("schema = 1\n[data]\nimage = 'x'\n", "key data.image is unknown: did you mean 'images'?"),
    "data.images": ("schema = 1\n[data]\nimages = 3\n", "data.images takes a text, got 3"),
    "data.masks": ("schema = 1\n[data]\nmasks = ''\n", "data.masks takes a text, got ''"),
    "data.test": ("schema = 1\n[data]\ntest = ['x']\n", "data.test takes a text, got ['x']"),
    "data.group": ("schema = 1\n[data]\ngroup = true\n", "data.group takes a text, got True"),
    "data.categories": ("schema = 1\n[data]\ncategories = 'car'\n", "data.categories takes a list of texts, got 'car'"),
    "a category": ("schema = 1\n[data]\ncategories = [1]\n", "data.categories takes a text, got 1"),
    "folds": ("schema = 1\nfolds = 5\n", "folds takes a table, got 5"),
    "a fold table": ("schema = 1\n[folds]\ndefault = 5\n", "folds.default takes a table, got 5"),
    "fold table name": ("schema = 1\n[folds.'../x']\nfolds = 2\n", "'../x' cannot name a fold table"),
    "folds key": (FOLDS + "fold = 2\n", "key folds.x.fold is unknown: did you mean 'folds'?"),
    "folds.folds": (FOLDS + "folds = 0\n", "folds.x.folds takes a whole number from 1, got 0"),
    "folds.folds true": (FOLDS + "folds = true\n", "folds.x.folds takes a whole number from 1, got True"),
    "holdout": (FOLDS + "folds = 1\nholdout = 1.0\n", "folds.x.holdout takes a number between 0 and 1"),
    "holdout nan": (FOLDS + "folds = 1\nholdout = nan\n", "folds.x.holdout takes a number between 0"),
    "holdout of five folds": (FOLDS + "folds = 5\nholdout = 0.2\n", "folds.x has folds 5 and holdout 0.2"),
    "holdout of none": (FOLDS + "holdout = 0.2\n", "folds.x has folds None and holdout 0.2"),
    "one fold": (FOLDS + "folds = 1\n", "folds.x has folds 1 and holdout None"),
    "folds.seed": (FOLDS + "seed = -1\n", "folds.x.seed takes a whole number from 0, got -1"),
    "folds.seed true": (FOLDS + "seed = true\n", "folds.x.seed takes a whole number from 0, got True"),
    "folds.rule": (FOLDS + "rule = 'area'\n", "folds.x.rule: 'area' is no rule to make folds by: take one of rank, "),
    "folds.rule as number": (FOLDS + "rule = 1\n", "folds.x.rule: 1 is no rule"),
    "folds.rule of a hold-out": (FOLDS + "folds = 1\nholdout = 0.2\nrule = 'histogram'\n", "folds.x.rule: rule hist"),
    "folds.by_view": (FOLDS + "by_view = 5\n", "folds.x.by_view takes a text, got 5"),
    "extra": ("schema = 1\n[data]\nextra = 'x'\n", "data.extra takes tables, each begun with [[data.extra]], got 'x'"),
    "an extra": ("schema = 1\n[data]\nextra = ['x']\n", "data.extra takes tables"),
    "extra as table": ("schema = 1\n[data.extra]\nimages = 'x'\n", "data.extra takes tables"),
    "extra key": (EXTRA + "photos = 'x'\n", "key data.extra 1.photos is unknown"),
    "extra without masks": ("schema = 1\n[[data.extra]]\nimages = 'x'\n", "data.extra 1 has no masks"),
    "extra images": (EXTRA.replace("'x'", "3"), "data.extra 1.images takes a text, got 3"),
    "extra share": (EXTRA + "share = 1.0\n", "data.extra 1.share takes a number between 0 and 1, got 1.0"),
    "extra share nan": (EXTRA + "share = nan\n", "data.extra 1.share takes a number between 0 and 1, got nan"),
    "extra shares": (
        EXTRA + "share = 0.4\n[[data.extra]]\nimages = 'x'\nmasks = 'y'\nshare = 0.6\n",
        "data.extra: the shares come to 1.0",
    ),
    "views": (MEMBER + "views = '01'\n", 'members.a.views takes a list of views such as ["01", "09"], each once'),
    "no views": (MEMBER + "views = []\n", "members.a.views takes a list"),
    "a view as number": (MEMBER + "views = [1]\n", "members.a.views takes a list"),
    "a view twice": (MEMBER + "views = ['1', '1']\n", "members.a.views takes a list"),
    "pseudo": (MEMBER + "pseudo = 3\n", "members.a.pseudo takes a text, got 3"),
    "pseudo elsewhere": (MEMBER + "pseudo = '../x'\n", "members.a.pseudo: '../x' cannot name pseudo-labels"),
    "pseudo_share": (MEMBER + "pseudo = 'p'\npseudo_share = 1\n", "members.a.pseudo_share takes a number between"),
    "pseudo_share of none": (MEMBER + "pseudo_share = 0.2\n", "members.a has a pseudo_share and no pseudo"),
    "shares together": (
        EXTRA + "share = 0.7\n[members.a]\nmodel = 'm'\npseudo = 'p'\n",
        "members.a.pseudo_share with those of data.extra: the shares come to 1.0",
    ),
    "like with views": (
        SMALL + "[members.c]\nmodel = 'linknet'\nlike = 'a'\nviews = ['1']\n",
        "members.c.like is",
    ),
    "members": ("schema = 1\nmembers = ['a']\n", "members takes a table, got ['a']"),
    "a member": ("schema = 1\n[members]\na = 'linknet'\n", "members.a takes a table, got 'linknet'"),
    "no model": ("schema = 1\n[members.a]\nseed = 1\n", "members.a has no model"),
    "empty model": ("schema = 1\n[members.a]\nmodel = ''\n", "members.a.model takes a text, got ''"),
    "member key": (MEMBER + "fold = 'x'\n", "key members.a.fold is unknown"),
    "name in a member": (MEMBER + "name = 'b'\n", "key members.a.name is unknown"),
    "size": (MEMBER + "size = '12'\n", "members.a.size: size '12' is not HxW"),
    "size as number": (MEMBER + "size = 12\n", "members.a.size takes a text, got 12"),
    "tta": (MEMBER + "tta = 'hflip'\n", "members.a.tta takes a list of hflip, vflip, transpose and scales"),
    "a tta": (MEMBER + "tta = ['flip']\n", "members.a.tta: 'flip' is unknown: use hflip, vflip, transpose, or a scale"),
    "tta twice": (MEMBER + "tta = ['hflip', 'hflip']\n", "members.a.tta: 'hflip' is there twice"),
    "a scale of tta": (MEMBER + "tta = ['x1.0']\n", "members.a.tta: 'x1.0' is unknown"),
    "a tile": (MEMBER + "tile = '5'\n", "members.a.tile: size '5' is not HxW"),
    "an overlap": (MEMBER + "overlap = -1\n", "members.a.overlap takes a whole number from 0, got -1"),
    "an overlap alone": (MEMBER + "overlap = 3\n", "members.a.overlap is 3: it goes with a tile"),
    "an overlap as wide as its tile": (
        MEMBER + "tile = '8x4'\noverlap = 4\n",
        "members.a.overlap is 4: it goes with a tile, and is less than its sides",
    ),
    "tta nested": (MEMBER + "tta = [['hflip']]\n", "members.a.tta takes a list"),
    "tta table": (MEMBER + "tta = [{}]\n", "members.a.tta takes a list"),
    "member folds": (MEMBER + "folds = 5\n", "members.a.folds takes a text, got 5"),
    "no such folds": (MEMBER + "folds = 'k7'\n", "members.a.folds is 'k7', but there is no"),
    "checkpoint": (MEMBER + "checkpoint = 1\n", "members.a.checkpoint takes a text, got 1"),
    "sha256": (MEMBER + "sha256 = 1\n", "members.a.sha256 takes a text, got 1"),
    "out_of_fold": (MEMBER + "out_of_fold = 1\n", "members.a.out_of_fold takes true or"),
    "seed": (MEMBER + "seed = 1.5\n", "members.a.seed takes a whole number from 0, got 1.5"),
    "negative seed": (MEMBER + "seed = -2\n", "members.a.seed takes a whole number from 0"),
    "options": (MEMBER + "options = 1\n", "members.a.options takes a table, got 1"),
    "imported and more": ("schema = 1\n[members.a]\nimported = true\nseed = 1\n", "key members.a.seed is unknown"),
    "like none": (MEMBER + "like = 'b'\n", "members.a.like is 'b': it must name another"),
    "like itself": (MEMBER + "like = 'a'\n", "members.a.like is 'a': it must name another"),
    "like another model": (SMALL + "[members.c]\nmodel = 'm'\nlike = 'a'\n", "members.c.like is 'a': it must name"),
    "like one that is like": (SMALL + "[members.c]\nmodel = 'linknet'\nlike = 'b'\n", "members.c.like is 'b': it"),
    "like with options": (
        SMALL + "[members.c]\nmodel = 'linknet'\nlike = 'a'\noptions = {x = 1}\n",
        "members.c.like is",
    ),
    "not TOML": ("schema = \n", " is not valid TOML: "),
    "a key twice": ("schema = 1\nschema = 1\n", " is not valid TOML: "),
    "a table twice": (SMALL + "[members.a]\nmodel = 'm'\n", " is not valid TOML: "),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_refused(tmp_path: Path, fault: str) -> None:
    text, expected = BAD[fault]
    assert refused(tmp_path, text).startswith(expected)


@pytest.mark.parametrize("name", ["equal", "tuned", "a b", "a/b", "..", ".a", "-a", "a=1", "a,b", "ü", "x" * 65, ""])
def test_names_that_no_member_can_have(tmp_path: Path, name: str) -> None:
    key = tomlkit.key(name).as_string()
    message = refused(tmp_path, f"schema = 1\n[members.{key}]\nmodel = 'm'\n")
    assert message.startswith(f"{name!r} cannot name a member")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"ensemble\.toml is not there: make a project with carvana-ens init"):
        Project(tmp_path)
    (tmp_path / FILE).write_bytes(b"schema = 1 # \xff\n")
    with pytest.raises(ProjectError, match=r"ensemble\.toml cannot be read: .*utf-8"):
        Project(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(ProjectError, match=r"ensemble\.toml cannot be read: .*Is a directory"):
        Project(tmp_path)


def test_the_nearest_project_upward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "outer" / "inner" / "stores" / "a"
    deep.mkdir(parents=True)
    write(tmp_path / "outer", SMALL)
    write(tmp_path / "outer" / "inner", "schema = 1\n")
    assert find_project(deep).root == tmp_path / "outer" / "inner"
    assert find_project(tmp_path / "outer").root == tmp_path / "outer"
    monkeypatch.chdir(deep)
    assert find_project().root == tmp_path / "outer" / "inner"
    (tmp_path / "outer" / "inner" / FILE).unlink()
    (tmp_path / "outer" / "inner" / FILE).mkdir()  # a folder of that name is no project
    assert find_project().root == tmp_path / "outer"
    (tmp_path / "outer" / FILE).unlink()
    with pytest.raises(ProjectError, match="nor has a folder above it: make a project with carvana-ens init"):
        find_project()


def test_a_member_like_another(tmp_path: Path) -> None:
    text = """schema = 1
[folds.k3]
folds = 3
[members.a]
model = "linknet"
size = "32x48"
tta = ["hflip"]
folds = "k3"
checkpoint = "c.pth"
sha256 = "00"
out_of_fold = true
seed = 3
options = {epochs = 5}
[members.b]
model = "linknet"
like = "a"
size = "64x96"
"""
    project = Project(write(tmp_path, text))
    expected = MemberConfig("b", "linknet", Size(64, 96), (), "k3", "c.pth", "00", "a", True, 0, {"epochs": 5})
    assert project.member("b") == expected
    assert project.member("a") == project.members["a"]


def test_selecting_members(tmp_path: Path) -> None:
    project = Project(write(tmp_path, SMALL + "[members.maps]\nimported = true\n"))
    assert [m.name for m in project.select([])] == ["a", "b", "maps"]
    assert [m.name for m in project.select(["maps", "a", "maps"])] == ["a", "maps"]
    assert project.select(["b"])[0] == project.member("b")
    with pytest.raises(UsageError, match=r"member 'map' is unknown to .*: did you mean 'maps'\?"):
        project.select(["a", "map"])
    with pytest.raises(UsageError, match=r"member 'zzz' is unknown to .*: there are: a, b, maps"):
        project.member("zzz")
    with pytest.raises(UsageError, match="has no members: add one with carvana-ens add-model or carvana-ens import"):
        Project(write(tmp_path, "schema = 1\n")).select([])
