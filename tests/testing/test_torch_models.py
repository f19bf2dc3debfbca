from __future__ import annotations

import pytest
import torch

from carvana_ens import TorchModel
from carvana_ens.errors import PluginError
from carvana_ens.testing.checks import CHECKS, check_fit, check_import, check_independence, fit_drawn
from carvana_ens.types import Size


class Normed(TorchModel):
    size = Size(24, 40)
    divisor = 4

    def build(self):
        return torch.nn.Sequential(
            torch.nn.Conv2d(self.channels, 4, 3, padding=1),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
            torch.nn.Conv2d(4, 1, 1),
        )


class Training(Normed):
    def load(self, checkpoint, device):
        super().load(checkpoint, device)
        self._network.train()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    check_fit(Normed, {"epochs": 2}, folder)
    return fit_drawn(Normed, {"epochs": 2}, folder).checkpoint


@pytest.mark.parametrize("check", [c for c in CHECKS if c not in (check_fit, check_import)], ids=lambda c: c.__name__)
def test_a_torch_model_of_a_few_lines_passes(check, checkpoint):
    predicts = check.__module__.endswith(("predicted", "calibrated"))
    check(Normed, {"epochs": 2}, *([checkpoint] if predicts else []))


def test_batch_normalisation_in_training_mode_is_seen(checkpoint):
    with pytest.raises(PluginError, match=r"alone in its batch: .*normalisation in training mode"):
        check_independence(Training, {}, checkpoint)
