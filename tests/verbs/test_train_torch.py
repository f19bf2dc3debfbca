"""Verbs that train, with a torch network: under torchrun, watched, and what they tell of it afterwards."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import carvana_ens

EPOCHS = 3
SCRIPT = """
import os, sys
from pathlib import Path
import torch

torch.set_num_threads(1)
rank, folder = os.environ["RANK"], Path(sys.argv.pop(1))
with open(folder / f"renamed.{rank}", "w", buffering=1) as log:
    def hook(event, arguments):
        if event == "os.rename":
            log.write(str(arguments[1]) + "\\n")

    sys.addaudithook(hook)  # every file of ours is written under another name first
    from carvana_ens.cli import main

    code = "none"
    try:
        main()
    except SystemExit as end:
        code = end.code
    (folder / f"code.{rank}").write_text(str(code))
    sys.exit(code)
"""


@pytest.fixture
def net(project, oracle, site):
    """A project with one torch member, of two folds."""
    shutil.copy(Path(__file__).with_name("torch_models.py"), site)
    if not list(site.glob("torch_models-*")):
        oracle.package(site, "torch_models", "[carvana_ens.models]\ntiny-net = torch_models:TinyNet\n")
    project.did("add-model", "tiny-net", "--set", f"epochs={EPOCHS}", "--set", "batch_size=1", "--set", "rate=0.03")
    return project


def folder(world, fold):
    return world.cars / "checkpoints" / "tiny-net" / f"fold{fold}"


def table(place):
    return list(csv.DictReader((place / "history.csv").read_text().splitlines()))


def pixels(path):
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.slow
def test_the_verb_under_torchrun_trains_each_fold_once(net, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    free = ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    source = Path(carvana_ens.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(net.site), str(source)]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    verb = ["--project", str(net.cars), "train", "--device", "cpu"]
    command = [*torchrun, *free, str(script), str(tmp_path), *verb]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"code.{rank}").read_text() for rank in (0, 1)] == ["0", "0"]
    assert done.stdout.count(f": trained, {EPOCHS} epochs") == 2  # the first process alone speaks
    assert done.stderr.count("tiny-net fold 1 epoch ") == EPOCHS
    written = [Path(line) for line in (tmp_path / "renamed.0").read_text().splitlines()]
    assert (tmp_path / "renamed.1").read_text() == ""  # and writes
    for fold in (0, 1):
        names = [path.name for path in written if path.parent == folder(net, fold)]
        assert names.count("history.csv") == names.count("last.safetensors") == EPOCHS
        assert names.count("done.json") == 1
        assert sorted(p.name for p in folder(net, fold).glob("*.safetensors")) == [
            "best.safetensors",
            "last.safetensors",
        ]
        rows = table(folder(net, fold))
        assert [row["epoch"] for row in rows] == [str(1 + epoch) for epoch in range(EPOCHS)]
    again = net.did("train")
    assert again.out.count(f"was trained before, {EPOCHS} epochs") == 2
    # what two processes made together is what one makes with mini-batches of twice the size
    net.did("add-model", "tiny-net", "--name", "alone", "--set", f"epochs={EPOCHS}", "--set", "batch_size=2",
            "--set", "rate=0.03")  # fmt: skip
    net.did("train", "alone", "--device", "cpu")
    for fold in (0, 1):
        one = json.loads((net.cars / "checkpoints" / "alone" / f"fold{fold}" / "done.json").read_text())
        two = json.loads((folder(net, fold) / "done.json").read_text())
        assert two["dice"] == pytest.approx(one["dice"], abs=1e-3)
        assert two["dice"] > 0


def test_a_run_shows_a_live_line_while_it_trains(net, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("carvana_ens.cli.train.PAUSE", 0)
    monkeypatch.setenv("COLUMNS", "200")
    told = net.did("run", "-o", net.root / "out.csv", "--device", "cpu").err
    shown = [line.strip() for line in told.split("\r") if " step " in line]
    steps = 4  # photos of the other car, one a step
    assert [line.partition(":")[0] for line in shown] == [
        f"tiny-net fold {fold} epoch {epoch}/{EPOCHS} step {step}/{steps}"
        for fold in (0, 1)
        for epoch in range(1, EPOCHS + 1)
        for step in range(1, steps + 1)
    ]
    assert all("loss " in line and "images/s, 0:00:0" in line and line.endswith("left") for line in shown)
    assert ["dice " in line for line in shown] == ([False] * steps + [True] * steps * (EPOCHS - 1)) * 2


def test_history_tells_what_training_wrote(net):
    assert "no history of training" not in net.did("train", "--device", "cpu").err
    picture = net.root / "history.png"
    done = net.did("history", "-o", picture)
    lines = done.out.splitlines()
    assert lines[0].split()[:3] == ["MEMBER", "FOLD", "EPOCHS"]
    assert lines[-1] == f"wrote {picture}"
    documents = json.loads(net.did("history", "tiny-net", "--json").out)
    assert [(d["member"], d["fold"]) for d in documents] == [("tiny-net", 0), ("tiny-net", 1)]
    for fold, document in enumerate(documents):
        rows = table(folder(net, fold))
        assert [{name: str(value) for name, value in row.items()} for row in document["epochs"]] == rows
        record = json.loads((folder(net, fold) / "done.json").read_text())
        highest = max(document["epochs"], key=lambda row: row["dice"])
        assert highest["dice"] == record["dice"]
        words = lines[1 + fold].split()
        assert words[:3] == ["tiny-net", str(fold), str(EPOCHS)]
        assert words[4:6] == [f"{record['dice']:.4f}", str(highest["epoch"])]
    drawn = (net.cars / "checkpoints" / "tiny-net" / "history.png").read_bytes()
    assert picture.read_bytes() == drawn  # train draws the same


def test_history_of_a_training_that_was_stopped(net):
    net.did("train", "--device", "cpu")
    text = (folder(net, 1) / "history.csv").read_text().splitlines()
    header, first = text[0], text[1].split(",")
    first[2] = first[6] = ""  # not validated
    (folder(net, 1) / "history.csv").write_text("\n".join([header, ",".join(first)]) + "\n")
    shutil.rmtree(folder(net, 0))
    picture = net.root / "history.png"
    lines = net.did("history", "-o", picture).out.splitlines()
    assert lines[1].split()[:3] == ["tiny-net", "1", "1"]
    assert lines[1].split()[4:6] == ["-", "-"]
    with PIL.Image.open(picture) as drawn:
        assert drawn.width > 600


def test_members_are_drawn_beside_one_another_in_colours_of_their_folds(net):
    net.did("add-model", "tiny-net", "--name", "other", "--set", "epochs=1")
    net.did("train", "--device", "cpu")
    net.did("history", "tiny-net", "-o", net.root / "one.png")
    net.did("history", "-o", net.root / "two.png")
    one, two = (pixels(net.root / f"{name}.png")[..., :3] for name in ("one", "two"))
    assert two.shape == (one.shape[0], 2 * one.shape[1], 3)
    for half in np.split(two.astype(int), 2, axis=1):
        for colour in ((0, 114, 178), (213, 94, 0)):  # of the first fold and of the second
            assert (np.abs(half - colour).max(axis=-1) < 40).any()


def test_what_history_refuses(net, world):
    assert "carvana-ens train makes one" in net.do("history").error
    assert "carvana-ens train tiny-net makes one" in net.do("history", "tiny-net").error
    assert "'nobody'" in net.do("history", "nobody").error
    assert "neither .png nor .jpg" in net.do("history", "-o", net.root / "h.gif").error
    folder(net, 0).mkdir(parents=True)
    path = folder(net, 0) / "history.csv"
    for text in ("", "a,b\n1,2\n", "epoch,loss,dice,rate,seconds,images_per_second,valid_loss,stage,size\n1,x\n"):
        path.write_text(text)
        assert str(path) in net.do("history").error


def test_a_table_in_another_form_does_not_stop_training(project):
    project.did("add-model", "learned-cut")
    path = project.cars / "checkpoints" / "learned-cut" / "fold0" / "history.csv"
    path.parent.mkdir(parents=True)
    path.write_text("epoch,score\n1,2\n")
    done = project.did("train")
    assert done.out.count(": trained") == 2
    assert f"learned-cut: its history is not drawn ({path}" in done.err
