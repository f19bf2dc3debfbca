"""Who may import whom, and what stays unloaded until it is needed."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import carvana_ens

HERE = Path(__file__).parents[1]
PACKAGE = HERE / "carvana_ens"
PLUGINS = HERE / "plugins"
STEPS = (
    {"errors", "types", "files"},
    {"core", "model", "postprocess", "engine"},
    {"store", "data", "registry"},
    {"report", "output", "ensemble", "learn", "project"},
    {"verbs"},
    {"cli", "testing"},
)
"""From the ground up: a room sees the steps under its own, and itself."""
GROUND = {"errors": set(), "types": {"errors"}, "files": {"errors", "types"}}
"""The ground has an order of its own."""
ONLY = {
    "torch": "learn",
    "torchvision": "learn",
    "timm": "learn",
    "safetensors": "learn",
    "zarr": "store",
    "numcodecs": "store",
    "google_crc32c": "store",
    "entrypoints": "registry",
    "dask": "engine",
    "distributed": "engine",
    "jinja2": "report",
    "matplotlib": "report",
    "pymatting": "output",
}
"""Libraries that one room alone may import."""
SOURCES = sorted(PACKAGE.rglob("*.py"))
PLUGIN_FILES = sorted([*PLUGINS.glob("*/*.py"), *PLUGINS.glob("*/carvana_ens_*/*.py")])
PLUGIN_TESTS = sorted(PLUGINS.glob("*/tests/**/*.py"))


def named(path: Path) -> str:
    return path.relative_to(HERE).as_posix()


def room_of(module: str) -> str:
    """The room of a module: ``carvana_ens.data.images`` -> ``data``; the package itself: empty."""
    return [*module.split("."), ""][1]


def module_of(path: Path) -> str:
    parts = path.relative_to(HERE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, package: str) -> Iterator[tuple[int, str, str | None]]:
    """(line, module, name) of every import anywhere in a file: in functions and TYPE_CHECKING blocks too.

    package: what a relative import starts from. name: of ``from module import name``, None for ``import module``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, module, alias.name
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value), None


def imports_of(path: Path) -> list[tuple[int, str, str | None]]:
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return list(imports(path.read_text(encoding="utf-8"), package))


def rooms_seen(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of ours; the package itself counts as a room of name ''."""
    rooms = set().union(*STEPS)
    for line, module, name in imports_of(path):
        if module == "carvana_ens":
            yield line, name if name in rooms else ""
        elif module.startswith("carvana_ens."):
            yield line, room_of(module)


def allowed(room: str) -> set[str]:
    if room in GROUND:
        return GROUND[room] | {room}
    step = next(number for number, rooms in enumerate(STEPS) if room in rooms)
    below = set().union(*STEPS[:step])
    return (below - {"files"} if room == "core" else below) | {room}


def test_the_reader_of_imports_sees_all_kinds() -> None:
    source = """
import a.b
from c import d as e, f
if TYPE_CHECKING:
    from g import h
def lazily():
    import i
    importlib.import_module("j.k")
    from . import near
    from ..up import other
"""
    seen = sorted((module, name) for _, module, name in imports(source, "carvana_ens.room"))
    assert seen == [
        ("a.b", None),
        ("c", "d"),
        ("c", "f"),
        ("carvana_ens.room", "near"),
        ("carvana_ens.up", "other"),
        ("g", "h"),
        ("i", None),
        ("j.k", None),
    ]


def test_every_module_belongs_to_a_room() -> None:
    rooms = {room_of(module_of(path)) for path in SOURCES if path != PACKAGE / "__init__.py"}
    assert rooms - set().union(*STEPS) == set()
    assert {"core", "store", "learn", "verbs", "cli", "project", "registry"} <= rooms  # the walk found them


def test_imports_run_one_way() -> None:
    wrong = []
    for path in SOURCES:
        if path == PACKAGE / "__init__.py":
            continue
        room = room_of(module_of(path))
        for line, other in rooms_seen(path):
            if other == "":
                continue  # the next test's
            if other not in allowed(room):
                wrong.append(f"{named(path)}:{line}: {room} imports {other}")
    assert wrong == []


def test_rooms_take_nothing_but_the_version_from_the_package_itself() -> None:
    """A public name taken from the package would be a way around the steps."""
    wrong = [
        f"{named(path)}:{line}: {name}"
        for path in SOURCES
        for line, module, name in imports_of(path)
        if module == "carvana_ens" and name not in {"__version__"} | set().union(*STEPS)
    ]
    assert wrong == []


def test_each_heavy_library_has_one_room() -> None:
    wrong = []
    users = set()
    for path in SOURCES:
        for line, module, _ in imports_of(path):
            library = module.partition(".")[0]
            if library in ONLY:
                users.add(library)
                if room_of(module_of(path)) != ONLY[library]:
                    wrong.append(f"{named(path)}:{line}: {library}")
    assert wrong == []
    assert {"torch", "zarr", "entrypoints"} <= users  # the walk saw them where they belong


def plugin_modules() -> set[str]:
    modules = {path.stem for path in PLUGINS.glob("*/*.py")}
    for file in PLUGINS.glob("*/pyproject.toml"):
        for entries in tomllib.loads(file.read_text(encoding="utf-8"))["project"]["entry-points"].values():
            modules |= {target.partition(":")[0].partition(".")[0] for target in entries.values()}
    return modules


def test_nothing_imports_a_plugin() -> None:
    modules = plugin_modules()
    assert "carvana_ens_unet" in modules
    wrong = [
        f"{named(path)}:{line}: {module}"
        for path in SOURCES
        for line, module, _ in imports_of(path)
        if module.partition(".")[0] in modules
    ]
    assert wrong == []


@pytest.mark.parametrize("path", [*PLUGIN_FILES, *PLUGIN_TESTS], ids=named)
def test_plugins_use_public_names_only(path: Path) -> None:
    wrong = []
    for line, module, name in imports(path.read_text(encoding="utf-8"), ""):
        if module.partition(".")[0] != "carvana_ens":
            continue
        public = module == "carvana_ens" and (name is None or name in carvana_ens.__all__)
        checks = (
            path in PLUGIN_TESTS and (module, name) != ("carvana_ens", None) and "testing" in (room_of(module), name)
        )
        if not (public or checks):
            wrong.append(f"{named(path)}:{line}: {module} {name or ''}")
    assert wrong == []


HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "zarr",
    "numba",
    "pandas",
    "numpy",
    "PIL",
    "tqdm",
    "entrypoints",
    "dask",
    "distributed",
    "jinja2",
    "matplotlib",
)
NETWORKS = ("torch", "torchvision", "timm")
HELP = "from carvana_ens.cli import main\ntry: main({})\nexcept SystemExit as end: assert end.code == 0"


@pytest.mark.parametrize(
    ("statement", "unloaded"),
    [
        ("import carvana_ens", HEAVY),
        ("import carvana_ens; carvana_ens.__version__, dir(carvana_ens)", HEAVY),
        ("import carvana_ens.cli", HEAVY),
        (HELP.format(["--help"]), HEAVY),
        (HELP.format(["blend", "-h"]), HEAVY),
        ("import carvana_ens.learn", NETWORKS),
        ("import carvana_ens.learn.inference", NETWORKS),
        ("import carvana_ens.learn.recipe", NETWORKS),
        ("import carvana_ens.ensemble.blending", NETWORKS),
        ("import carvana_ens.verbs.blend, carvana_ens.verbs.tune, carvana_ens.verbs.import_maps", NETWORKS),
        ("import carvana_ens.verbs.train, carvana_ens.verbs.predict, carvana_ens.verbs.run", NETWORKS),
        ("from carvana_ens import Model, TorchOptions, blend_mask, open_store, rle_decode", NETWORKS),
    ],
)
def test_what_stays_unloaded(statement: str, unloaded: tuple[str, ...]) -> None:
    probe = f"{statement}\nimport sys\nprint()\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=HERE)
    loaded = done.stdout.splitlines()[-1].split()
    assert "carvana_ens" in loaded
    assert [name for name in unloaded if name in loaded] == []


def test_public_names() -> None:
    names = carvana_ens.__all__
    assert list(names) == sorted(set(names))
    for name in names:
        assert getattr(carvana_ens, name).__name__ == name
        assert name in dir(carvana_ens)
    declared = {name for _, module, name in imports_of(PACKAGE / "__init__.py") if module.startswith("carvana_ens.")}
    assert declared == set(names)  # what type checkers see is what there is


def test_public_names_come_from_where_type_checkers_look() -> None:
    for _, module, name in imports_of(PACKAGE / "__init__.py"):
        if module.startswith("carvana_ens."):
            assert getattr(importlib.import_module(module), str(name)) is getattr(carvana_ens, str(name))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'carvana_ens' has no attribute 'blend_masks'"):
        carvana_ens.blend_masks  # noqa: B018
    with pytest.raises(ImportError):
        from carvana_ens import nothing_like_it  # noqa: F401
