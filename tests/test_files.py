"""Files that a stop cannot tear."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from carvana_ens.errors import CarvanaEnsError
from carvana_ens.files import digest, left_behind, remove_left_behind, replacing, sha256_file, write_json, write_text


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["new", "there already"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file to write, which is there already in one of two cases."""
    path = tmp_path / "result.csv"
    if request.param == "there already":
        path.write_text("old")
    return path


def test_the_new_file_takes_the_place(target: Path) -> None:
    before = listed(target.parent)
    with replacing(target) as temporary:
        assert temporary.parent == target.parent  # a rename across disks is a copy
        assert not temporary.exists()
        temporary.write_text("new")
        assert target.exists() == ("result.csv" in before)  # untouched so far
    assert target.read_text() == "new"
    assert listed(target.parent) == ["result.csv"]


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), GeneratorExit(), OSError(errno.ENOSPC, "disk full")]
)
@pytest.mark.parametrize("written", [True, False])
def test_an_error_leaves_what_was_there(target: Path, error: BaseException, written: bool) -> None:
    before = {name: (target.parent / name).read_text() for name in listed(target.parent)}

    def write() -> None:
        with replacing(target) as temporary:
            if written:
                temporary.write_text("half")
            raise error

    with pytest.raises((type(error), CarvanaEnsError)) as caught:
        write()
    assert {name: (target.parent / name).read_text() for name in listed(target.parent)} == before
    if isinstance(error, OSError):
        assert type(caught.value) is CarvanaEnsError
        assert str(caught.value) == f"{target} cannot be written: disk full"
    else:
        assert caught.value is error


def test_a_block_that_writes_nothing_is_an_error(target: Path) -> None:
    before = listed(target.parent)
    with pytest.raises(CarvanaEnsError, match="cannot be written: No such file"), replacing(target):
        pass
    assert listed(target.parent) == before


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.csv"
    path.write_text("old")
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom carvana_ens.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"
    leftovers = [name for name in listed(tmp_path) if name != "result.csv"]
    assert len(leftovers) == 1  # hidden, and named as no result is
    assert leftovers[0].startswith(".result.csv.")
    assert leftovers[0].endswith(".partial")
    write_text(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "x")
        (tmp_path / "plain").write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


def test_two_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert listed(tmp_path) == ["a"]


def test_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("below", ["x.csv", "deep/er/x.csv"])
def test_a_folder_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / below
    with pytest.raises(CarvanaEnsError) as caught:
        write_text(path, "x")
    assert one_line(caught.value) == f"{path} cannot be written: {tmp_path / 'file'} is a file, not a folder"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(CarvanaEnsError) as caught:
        write_text(tmp_path / "x.csv", "x")
    assert one_line(caught.value) == f"{tmp_path / 'x.csv'} cannot be written: Is a directory"
    assert listed(tmp_path) == ["x.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o500)
    with pytest.raises(CarvanaEnsError) as caught:
        write_text(folder / "x.csv", "x")
    assert one_line(caught.value) == f"{folder / 'x.csv'} cannot be written: Permission denied"


def test_a_full_disk(tmp_path: Path) -> None:
    """/dev/full is the disk: the temporary file is a link to it."""
    path = tmp_path / "x.csv"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("x" * 100)

    with pytest.raises(CarvanaEnsError) as caught:
        write()
    assert one_line(caught.value) == f"{path} cannot be written: No space left on device"
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["x.csv"]


def test_another_file_that_fails_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source\.png"), replacing(tmp_path / "x.csv") as temporary:
        temporary.write_text((tmp_path / "source.png").read_text())
    assert listed(tmp_path) == []


def test_text_and_json_are_bytes_as_given(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\r\n\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\r\n\n".encode()
    document = {"z": [1, 2.5, None, True], "a": {"é": "\n"}}
    write_json(tmp_path / "a.json", document)
    text = (tmp_path / "a.json").read_bytes().decode()
    assert json.loads(text) == document
    assert list(json.loads(text)) == ["z", "a"]
    assert "é" in text
    assert text.endswith("}\n")


def test_digests(tmp_path: Path) -> None:
    assert digest({"b": [1, "é"], "a": None}) == hashlib.sha256('{"a":null,"b":[1,"é"]}'.encode()).hexdigest()
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest([1, 2]) != digest([2, 1])
    content = os.urandom(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


WRITING = """
import os, sys
from pathlib import Path
from carvana_ens.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("there", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_was_writing_is_known_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result[1].csv"
    command = [sys.executable, "-c", WRITING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (temporary,) = tmp_path.iterdir()
        with replacing(tmp_path / "other.csv") as own:
            own.write_text("x")
            assert left_behind(tmp_path.iterdir()) == []
        process.kill()
    assert left_behind(tmp_path.iterdir()) == [temporary]
    foreign = temporary.with_name(temporary.name.replace(temporary.name.split(".")[3], "00000000"))
    foreign.write_text("of a process of another machine")
    others = [tmp_path / ".x.partial", tmp_path / f"x.{'0' * 32}.partial"]
    earlier = tmp_path / f".tuning.json.{'0' * 32}.partial"
    for file in (*others, earlier):
        file.write_text("x")
    assert sorted(left_behind(tmp_path.iterdir())) == sorted([temporary, earlier])
    remove_left_behind(path)
    assert not temporary.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*others, earlier, foreign, tmp_path / "other.csv"])
