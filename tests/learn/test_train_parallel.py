"""Two processes under torchrun train what one would with mini-batches of twice the size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from carvana_ens.errors import UsageError
from carvana_ens.learn.ahead import made_ahead
from carvana_ens.learn.parallel import Team, team_here

ROOT = Path(__file__).parents[2]
TRAININGS = {
    "plain": (7, {"epochs": 2, "batch_size": 2}),
    "uneven": (5, {"epochs": 1, "batch_size": 2, "optimiser": "sgd", "rate": 0.5}),
    "collected": (7, {"epochs": 2, "batch_size": 1, "accumulate": 2, "replay": 2, "ema": 0.5, "clip_norm": 0.5}),
    "summed": (6, {"epochs": 1, "batch_size": 1, "accumulate": 2, "accumulate_as": "sum", "optimiser": "sgd"}),
    "stages": (7, {"stages": "16x16 epochs=1; 24x32 epochs=1", "batch_size": 2, "best_by": "loss"}),
}
"""Photos and options of each training."""

SCRIPT = """
import hashlib, os, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
import test_train_parallel as here
from carvana_ens.learn import train
from carvana_ens.learn.steps import Stepper

torch.set_num_threads(1)
rank = os.environ["RANK"]
networks = []
init = Stepper.__init__
Stepper.__init__ = lambda self, model, network, *rest: (networks.append(network), init(self, model, network, *rest))[1]
if rank == "1":
    def forbidden(*_):
        raise AssertionError("rank 1 writes")
    Path.replace = Path.unlink = Path.mkdir = forbidden
reports = []
for name in here.TRAININGS:
    result = here.trained(name, Path(sys.argv[2]) / name, reports.append)
    values = torch.cat([p.detach().flatten() for p in networks[-1].parameters()])
    own = hashlib.sha256(values.numpy().tobytes()).hexdigest()
    line = f"{rank} {name} {own} {result.dice!r} {len(reports)}\\n"
    os.write(1, line.encode())
"""


def trained(name, folder, report=lambda numbers: None, scale=1):
    """One of TRAININGS; scale: how many times larger the mini-batches are."""
    import tiny

    class Plain(tiny.TinyModel):
        def build(self):
            return nn.Sequential(nn.Conv2d(self.channels, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 1, 3, 1, 1))

    photos, options = TRAININGS[name]
    model = Plain(tiny.config(**{**options, "batch_size": options["batch_size"] * scale}))
    return model.fit(tiny.task(folder, report, train=tiny.Memory(0, photos)))


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, monkeypatch):
    here = str(Path(__file__).parent)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    free = ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*torchrun, *free, str(script), here, str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = sorted(line.split() for line in done.stdout.splitlines())
    assert len(lines) == 2 * len(TRAININGS)
    first, second = lines[: len(TRAININGS)], lines[len(TRAININGS) :]
    assert [line[1:4] for line in first] == [line[1:4] for line in second]  # the same parameters and Dice in both
    assert {line[4] for line in second} == {"0"}  # the first alone reports
    assert {line[4] for line in first} != {"0"}
    monkeypatch.syspath_prepend(here)
    for name in TRAININGS:
        result = trained(name, tmp_path / "one" / name, scale=2)
        one, two = load_file(result.checkpoint), load_file(tmp_path / "two" / name / "best.safetensors")
        assert one.keys() == two.keys()
        for key in one:
            torch.testing.assert_close(
                two[key], one[key], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )
        assert not list((tmp_path / "two" / name).glob(".*.partial"))


@pytest.mark.parametrize(("count", "size"), [(7, 2), (8, 3), (2, 3), (0, 2), (5, 1)])
def test_shares_are_all_in_order_and_nearly_equal(count, size):
    items = list(range(count))
    shares = [Team(rank, size).share(items) for rank in range(size)]
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    alone = team_here()
    assert alone == Team(0, 1, 0)
    assert alone.first
    assert alone.gathered("x") == ["x"]
    assert alone.of_first(lambda: 3) == 3
    assert alone.device("cuda") == "cuda"
    alone.meet("no such device")  # nobody to meet


def test_torchruns_variables_name_the_process(monkeypatch):
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert team_here() == Team(3, 4, 1)
    assert not team_here().first
    assert team_here().device("cuda") == "cuda:1"
    assert team_here().device("cpu") == "cpu"
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(UsageError, match="torchrun"):
        team_here()


@pytest.mark.parametrize("count", [1, 3])
def test_items_are_made_ahead_in_order(count):
    made = []

    def items():
        for number in range(6):
            made.append(number)
            yield number

    seen = []
    for item in made_ahead(items(), count):
        seen.append(item)
        assert len(made) <= item + 1 + count + 1
    assert seen == made == list(range(6))


def test_what_making_an_item_raises_comes_in_its_turn():
    def items():
        yield 1
        raise KeyError("second")

    coming = made_ahead(items(), 3)
    assert next(coming) == 1
    with pytest.raises(KeyError, match="second"):
        next(coming)
