from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

import carvana_ens_command
import numpy as np
import pytest
from carvana_ens_command import Command
from PIL import Image

from carvana_ens import Batch, MemberConfig, Size, TrainingError, UsageError, open_store
from carvana_ens.testing import declared_models, draw_photos

IMAGES, _ = draw_photos(3, Size(12, 20))
IDS = ("c0_01", "c1_01", "c2_01")
START = """
import sys, os, pathlib, time, numpy as np, PIL.Image
images, maps = map(pathlib.Path, sys.argv[1:3])
for file in sorted(images.iterdir()):
    levels = np.asarray(PIL.Image.open(file))
    target = str(maps / file.stem)
    red = levels[..., 0]
"""
"""The beginning of a program; the rest is run for each photo."""


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files, which is empty again after each test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def make(tmp_path):
    """A loaded model whose program does ``each`` with every photo, or is ``whole``."""

    def made(each="", *, whole=None, checkpoint=None, arguments="", **options):
        program = tmp_path / "a program.py"
        lines = "".join(f"    {line}\n" for line in each.splitlines())
        program.write_text(START + lines if whole is None else whole)
        command = f"{{python}} {{program}} {{images}} {{maps}} {arguments}"
        values = {"command": command, "program": str(program)} | options
        model = Command(MemberConfig("m", "command", options=values))
        model.load(checkpoint, "cpu")
        return model

    return made


def predict(model, images=IMAGES, ids=IDS):
    maps = model.predict(Batch(images, ids, ids))
    assert maps.dtype == np.float32
    assert maps.shape == images.shape[:3]
    return maps


RED = IMAGES[..., 0].astype(np.float64)


def test_the_entry_point_is_the_model():
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert declared_models(pyproject) == {"command": Command}
    assert not any("torch" in item for item in tomllib.loads(pyproject.read_text())["project"]["dependencies"])


@pytest.mark.parametrize(
    ("each", "options", "truth"),
    [
        ("PIL.Image.fromarray(red).save(target + '.png')", {}, RED / 255),
        ("PIL.Image.fromarray(red // 128).save(target + '.png')", {"full": 1}, RED // 128),
        ("PIL.Image.fromarray(red > 90).save(target + '.png')", {}, RED > 90),
        ("PIL.Image.fromarray(red.astype(np.uint16) * 200).save(target + '.png')", {}, RED * 200 / 65535),
        ("np.save(target, red / 255)", {}, RED / 255),
        ("np.save(target, (red / 255).astype(np.float16))", {}, (RED / 255).astype(np.float16)),
        ("np.save(target, red)", {}, RED / 255),
        ("np.save(target, (red > 90).astype(np.int64))", {"full": 1}, RED > 90),
        ("np.save(target, red[None, ..., None] / 255)", {}, None),
        ("np.save(target, (red / 255)[..., None])", {}, RED / 255),
        ("np.save(target, red - 100.0)", {"values": "logits"}, RED - 100),
        ("np.savez(target, red / 255)", {}, RED / 255),
        ("np.savez_compressed(target, p=red / 255, q=red)", {"key": "p"}, RED / 255),
        ("np.savez(target, probabilities=np.stack([1 - red / 255, red / 255])[:, None])", {}, RED / 255),
        ("np.save(target, levels.transpose(2, 0, 1) / 255)", {"channel": 2}, IMAGES[..., 2] / 255),
        ("np.save(target, levels / 255)", {"channel": 1}, IMAGES[..., 1] / 255),
        ("np.save(target, red / 255)\nPIL.Image.fromarray(red).save(target + '.png')", {"form": "npy"}, RED / 255),
    ],
)
def test_maps_are_read_as_they_were_written(make, each, options, truth):
    model = make(each, **options)
    if truth is None:
        with pytest.raises(TrainingError, match=r"map c0_01\.npy is float64 of shape \(1, 12, 20, 1\), and its"):
            predict(model)
        return
    assert model.output == options.get("values", "probabilities")
    np.testing.assert_allclose(predict(model), truth, rtol=1e-6)


def test_names_and_arguments_reach_the_program_without_a_shell(make, tmp_path):
    checkpoint = tmp_path / "weights $HOME.bin"
    checkpoint.write_bytes(b"42")
    whole = START + (
        "    assert file.name.endswith('_0000.png'), file\n"
        "    assert sys.argv[3:8] == ['$HOME;echo', 'two words', '*', 'cpu', 'a b'], sys.argv\n"
        "    assert os.environ['GIVEN'] == 'a b' and os.environ['PATH']\n"
        "    assert sys.stdin.read() == '' and open(sys.argv[8]).read() == '42'\n"
        "    np.save(maps / file.name.removesuffix('_0000.png'), red / 255)\n"
    )
    model = make(
        whole=whole,
        checkpoint=checkpoint,
        arguments="'$HOME;echo' \"two words\" * {device} 'a b' {checkpoint}",
        environment="GIVEN='a b' OTHER=",
        photo="{id}_0000.png",
    )
    np.testing.assert_allclose(predict(model), RED / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("each", "options", "words"),
    [
        (
            "if file.stem != 'c1_01': np.save(target, red / 255)",
            {},
            r"no map for 1 of 3 photos, the first c1_01 .*c0_01\.npy",
        ),
        ("print('nothing to do')", {}, r"no map for 3 of 3 .*nothing; it said last: nothing to do \| nothing to do"),
        (
            "np.save(target, red / 255)",
            {"form": "png"},
            r"as ID\.png\); its folder has c0_01\.npy, c1_01\.npy, c2_01\.npy",
        ),
        ("np.save(target, red)\nnp.savez(target, red)", {}, r"wrote c0_01\.npy and c0_01\.npz: set form"),
        ("np.save(target, red[1:])", {}, r"map c0_01\.npy is uint8 of shape \(11, 20\), and its photo is 12x20"),
        ("np.save(target, red.T)", {}, r"shape \(20, 12\)"),
        ("np.save(target, red.astype(str))", {}, r"is <U3 of shape"),
        ("np.save(target, red.astype(object))", {}, r"map c0_01\.npy .* cannot be read: .*allow_pickle"),
        ("PIL.Image.fromarray(levels).save(target + '.png')", {}, "cannot be read: it is a picture of mode RGB"),
        ("PIL.Image.fromarray(red).save(target + '.png', 'JPEG')", {}, r"map c0_01\.png .* cannot be read"),
        ("open(target + '.npz', 'wb').write(b'PK')", {}, r"map c0_01\.npz .* cannot be read"),
        ("open(target + '.npy', 'wb')", {}, r"map c0_01\.npy .* cannot be read"),
    ],
)
def test_what_the_program_did_wrong_is_named(make, each, options, words):
    with pytest.raises(TrainingError, match=words):
        predict(make(each, **options))


@pytest.mark.parametrize(
    ("each", "options", "words"),
    [
        ("np.savez(target, a=red, b=red)", {}, r"map c0_01\.npz has the arrays a, b, and option key is ''"),
        ("np.savez(target, a=red)", {"key": "b"}, r"has the arrays a, and option key is 'b'"),
        ("np.save(target, levels)", {}, r"has 3 channels: set option channel"),
        ("np.save(target, red)", {"channel": 1}, r"has 1 channels: set option channel"),
        ("np.save(target, red.astype(int))", {}, "maps are int64: set option full"),
        ("np.save(target, red)", {"values": "logits"}, "option values is logits, and the maps are uint8"),
        (
            "PIL.Image.fromarray(red // 128).save(target + '.png')",
            {},
            "the greatest value in the maps of 3 photos.*set full=1",
        ),
    ],
)
def test_what_files_mean_is_asked_for(make, each, options, words):
    with pytest.raises(UsageError, match=words):
        predict(make(each, **options))


def test_maps_of_levels_0_and_1_are_taken_where_that_is_said(make):
    each = "PIL.Image.fromarray(red // 128).save(target + '.png')"
    np.testing.assert_allclose(predict(make(each, full=255)), RED // 128 / 255, rtol=1e-6)


def test_last_words_of_a_program_that_fails(make):
    whole = "import sys\nprint('x' * 9999)\nprint('loading', flush=True)\nsys.exit('no GPU:\\n  try another')"
    with pytest.raises(TrainingError) as caught:
        predict(make(whole=whole))
    assert str(caught.value).startswith(f"program {sys.executable} ended with exit code 1; it said last: xxx")
    assert str(caught.value).endswith("x | loading | no GPU: | try another")
    assert len(str(caught.value)) < 700


def test_a_program_that_is_killed(make):
    with pytest.raises(TrainingError, match=r"was ended by signal 9$"):
        predict(make(whole="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))


STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
file = pathlib.Path(sys.argv[3])
file.with_suffix(".new").write_text(f"{os.getpid()} {child.pid} {sys.argv[1]}")
file.with_suffix(".new").rename(file)
print("working", flush=True)
time.sleep(600)
"""
"""Does not end when it is asked to, and has a child of its own."""


def gone(pid):
    """Whether a process has ended; one that nobody has waited for yet has too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def check_nothing_is_left(told):
    program, child, images = told.read_text().split(" ", 2)
    assert not Path(images).exists()
    end = time.monotonic() + 60
    while not (gone(program) and gone(child)):
        assert time.monotonic() < end, "the program still runs"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_program_that_takes_too_long_leaves_nothing(make, tmp_path, monkeypatch):
    monkeypatch.setattr(carvana_ens_command, "GRACE", 0.2)
    told = tmp_path / "told.txt"
    model = make(whole=STUBBORN, arguments=str(told), timeout=20.0)
    process = subprocess.Popen

    def hurried(*given, **named):
        """Waits for the program's child before the timeout counts, however busy the machine is."""
        made = process(*given, **named)
        if named.get("start_new_session"):
            end = time.monotonic() + 300
            while not told.exists() and time.monotonic() < end:
                time.sleep(0.05)
            waited = made.wait
            made.wait = lambda timeout=None: waited(min(timeout, 0.2) if timeout else timeout)
        return made

    monkeypatch.setattr(subprocess, "Popen", hurried)
    with pytest.raises(TrainingError, match=r"took more than 20 s for 3 photos and was ended.*set a longer timeout"):
        predict(model)
    check_nothing_is_left(told)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_stop_leaves_nothing(make, tmp_path, monkeypatch):
    import _thread

    monkeypatch.setattr(carvana_ens_command, "GRACE", 0.2)
    told = tmp_path / "told.txt"
    model = make(whole=STUBBORN, arguments=str(told))

    def interrupt():
        end = time.monotonic() + 300
        while not told.exists() and time.monotonic() < end:
            time.sleep(0.05)
        _thread.interrupt_main()

    stopper = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    try:
        stopper.start()
        with pytest.raises(KeyboardInterrupt):
            predict(model)
    finally:
        signal.signal(signal.SIGINT, before)
    stopper.join()
    check_nothing_is_left(told)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": "run {images}"}, r"option command is 'run \{images\}', without \{maps\}"),
        ({"command": "run"}, r"without \{images\} and \{maps\}"),
        ({"command": "run '{images} {maps}"}, "cannot be read .*see to its quotes"),
        ({"environment": "GPU"}, "option environment is 'GPU': write NAME=VALUE"),
        ({"environment": "=1"}, "option environment"),
        ({"photo": "photo.png"}, "option photo is 'photo.png'"),
        ({"photo": "{id}.jpg"}, "option photo"),
        ({"photo": "../{id}.png"}, "option photo"),
        ({"batch": 0}, "option batch is 0"),
        ({"channel": -2}, "option channel is -2"),
        ({"full": -1}, "option full is -1"),
        ({"timeout": 0.0}, r"option timeout is 0\.0"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(UsageError, match=words):
        Command(MemberConfig("m", "command", options=options))


@pytest.mark.parametrize(
    ("options", "checkpoint", "words"),
    [
        ({}, None, 'model command needs a program: --set "command='),
        ({"command": "run {images} {maps}"}, "net.bin", r"add-model --checkpoint FILE go together.*\{checkpoint\}"),
        ({"command": "run {images} {maps} {checkpoint}"}, None, "go together"),
        ({"command": "run {images} {maps} {program}"}, None, "--set program=FILE go together"),
        ({"command": "run {images} {maps}", "program": "a.py"}, None, "--set program=FILE go together"),
        (
            {"command": "run {images} {maps} {program}", "program": "/none/a.py"},
            None,
            "is /none/a.py, which is no file",
        ),
        ({"command": "no-such-program {images} {maps}"}, None, "program no-such-program is not found"),
    ],
)
def test_members_that_cannot_run(options, checkpoint, words):
    with pytest.raises(UsageError, match=words):
        Command(MemberConfig("m", "command", options=options)).load(checkpoint and Path(checkpoint), "cpu")


def test_a_program_that_cannot_be_started(tmp_path):
    program = tmp_path / "tool"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    model = Command(MemberConfig("m", "command", options={"command": f"{program} {{images}} {{maps}}"}))
    model.load(None, "cpu")
    with pytest.raises(TrainingError, match="tool cannot be started: No such file"):
        predict(model)


def test_photos_that_cannot_be_written(make, monkeypatch):
    def full(*given, **named):
        raise OSError(28, "No space left on device")

    model = make("np.save(target, red / 255)")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(TrainingError, match=r"cannot be written into .*: No space left on device; set TMPDIR"):
        predict(model)


def test_from_add_model_to_the_store(tmp_path):
    """Two photos a start, a program and a checkpoint relative to the project."""
    (tmp_path / "photos").mkdir()
    for image_id, image in zip(IDS, IMAGES, strict=True):
        Image.fromarray(image).save(tmp_path / "photos" / f"{image_id}.png")
    project = tmp_path / "cars"
    run("init", project, "--test", tmp_path / "photos")
    script = project / "gray.py"
    script.write_text(
        START.replace("for file", "(pathlib.Path(sys.argv[3]).parent / 'starts').open('a').write('x')\nfor file")
        + "    PIL.Image.fromarray(red).save(target + '.png')\n"
    )
    weights = project / "weights.bin"
    weights.write_bytes(b"weights")
    command = f"{sys.executable} {{program}} {{images}} {{maps}} {{checkpoint}}"
    given = ["--checkpoint", weights, "--set", f"command={command}", "--set", f"program={script}", "--set", "batch=2"]
    run("--project", project, "add-model", "command", "--name", "red", *given)
    written = (project / "ensemble.toml").read_text()
    assert 'program = "gray.py"' in written
    assert 'checkpoint = "weights.bin"' in written
    run("--project", project, "predict")
    store = open_store(project / "stores" / "red" / "test.zarr")
    for image_id, red in zip(IDS, IMAGES[..., 0], strict=True):
        np.testing.assert_array_equal(store.read(image_id), red)
    assert hashlib.sha256(b"weights").hexdigest() in json.dumps(dict(store.provenance.checkpoints))
    assert (project / "starts").read_text() == "xx"


def run(*words):
    command = [sys.executable, "-c", "from carvana_ens.cli import main; main()", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)
