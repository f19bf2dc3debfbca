"""What the tests of the plugins share."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from carvana_ens import Batch


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch = sys.modules.get("torch")
    if torch is None:  # a plugin without it
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def empty_hub(monkeypatch, tmp_path):
    """Timm's hub, out of reach, with nothing in its cache."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def check_training_step():
    """One step of training lowers the loss, and reaches every parameter: a function of model, network and photos."""
    import torch
    from torch.nn import functional

    def check(model, network, images, masks):
        photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        truth = torch.from_numpy(masks)[:, None].float()

        def loss():
            return functional.binary_cross_entropy_with_logits(model.forward(network.train(), photos), truth)

        before = loss()
        before.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
        torch.optim.SGD(network.parameters(), lr=0.1).step()
        with torch.no_grad():
            assert loss() < 0.99 * before

    return check


@pytest.fixture
def check_round_trip(tmp_path):
    """Writes a model's network, reads it back, and checks tensors and maps: a function of model, network and images."""
    import torch
    from safetensors.torch import load_file, save_file

    def check(model, network, images):
        path = tmp_path / "net.safetensors"
        state = network.state_dict()
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
        read = load_file(path)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], tensor) for key, tensor in state.items())
        photos = torch.from_numpy(images).permute(0, 3, 1, 2)
        with torch.inference_mode():
            expected = model.forward(network.eval().to(memory_format=torch.channels_last), photos)[:, 0].numpy()
        model.load(path, "cpu")
        ids = tuple(f"c{number}_01" for number in range(len(images)))
        maps = model.predict(Batch(images, ids, tuple(i.split("_")[0] for i in ids)))
        assert maps.shape == images.shape[:3]
        assert maps.std() > 0
        np.testing.assert_array_equal(maps, expected)

    return check
