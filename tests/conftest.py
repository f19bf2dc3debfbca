"""Plugins that exist for one test (folders of ``*.dist-info`` and modules in front of sys.path), and a drawn world."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import site as sites
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

GROUP = "carvana_ens.models"
GROUPS = (GROUP, "carvana_ens.postprocess")
WORLD = "carvana_ens_tests_world"

# The drawn photos, models without torch and slow twins of verbs/world.py serve several folders of tests.
spec = importlib.util.spec_from_file_location(WORLD, Path(__file__).parent / "verbs" / "world.py")
sys.modules[WORLD] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[WORLD])
here = sys.modules[WORLD]
drawn, site, run = here.drawn, here.site, here.run
world, project, oracle = here.world, here.project, here.oracle


@dataclass(frozen=True)
class FakeSite:
    """A folder of packages; those of ours that are really installed are hidden behind it.

    env: what a Python process needs to see the same, with a cache folder of its own.
    """

    folder: Path
    env: dict[str, str]

    def add(self, distribution: str, entries: Mapping[str, str] | bytes, version: str = "1.0", **modules: str) -> Path:
        """A package with these entry points (names and targets, or a whole file) and modules; returns the file."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        if not isinstance(entries, bytes):
            entries = "\n".join([f"[{GROUP}]", *(f"{name} = {entries[name]}" for name in entries)]).encode()
        (info / "entry_points.txt").write_bytes(entries)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        for name, source in modules.items():
            (self.folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return info / "entry_points.txt"

    def marking(self, source: str) -> tuple[Path, str]:
        """A file that gets one letter whenever the module is imported, and the module's source that does it."""
        mark = self.folder / f"mark-{uuid.uuid4().hex}"
        return mark, f"with open({str(mark)!r}, 'a') as mark: mark.write('x')\n{source}"


@pytest.fixture
def fake_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSite]:
    """An empty FakeSite that this process sees."""
    folder, home = tmp_path / "site", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    with_ours = [str(folder), os.environ.get("PYTHONPATH", "")]
    caches = {"XDG_CACHE_HOME": str(home), "HOME": str(home), "LOCALAPPDATA": str(home)}
    site = FakeSite(folder, {**os.environ, **caches, "PYTHONPATH": os.pathsep.join(filter(None, with_ours))})
    for distribution in importlib.metadata.distributions():
        if any(point.group in GROUPS for point in distribution.entry_points):
            site.add(distribution.metadata["Name"], b"", version="0")
    monkeypatch.syspath_prepend(str(folder))
    for name in ("PYTHONPATH", *caches):
        monkeypatch.setenv(name, site.env[name])
    yield site
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of an S3 server on loopback."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # it tells of every request that is cut
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def bucket(s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a bucket of the test's own, and the environment that leads there."""
    import boto3

    url = "http://{}:{}".format(*s3_server)
    for key, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(key, value)
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def environment() -> Callable[[Path], Path]:
    """Makes a virtual environment in a folder and gives its Python, and ``carvana-ens`` beside it.

    It borrows the libraries and plugins of this one, and pip installs into it alone.
    """

    def make(folder: Path) -> Path:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        python = folder / "bin" / "python"
        ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
        borrowed = [str(Path(__file__).parents[1]), *sites.getsitepackages()]
        (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
        command = folder / "bin" / "carvana-ens"
        command.write_text(f"#!{python}\nfrom carvana_ens.cli import main\nmain()\n")
        command.chmod(0o755)
        return python

    return make
