from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from carvana_ens_refinenet.encoder import ENCODERS, Encoder
from carvana_ens_refinenet.models import RefineNetV1, RefineNetV2, RefineNetV3, RefineNetV4, RefineNetV5, RefineNetV6
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from carvana_ens import Batch, MemberConfig, Size, TrainingError, UsageError, load_encoder
from carvana_ens.testing import declared_models, draw_photos

MODELS = {
    "refinenet-v1": RefineNetV1,
    "refinenet-v2": RefineNetV2,
    "refinenet-v3": RefineNetV3,
    "refinenet-v4": RefineNetV4,
    "refinenet-v5": RefineNetV5,
    "refinenet-v6": RefineNetV6,
}

README = Path(__file__).parents[1] / "README.md"


def make(name, **options):
    return MODELS[name](MemberConfig(name=name, model=name, options=options))


def scatter(network):
    """Draws what a new network has as zeros and ones, so that it counts."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    return network.eval()


def test_every_entry_point_is_a_model_here():
    assert declared_models(Path(__file__).parents[1] / "pyproject.toml") == MODELS


@pytest.mark.parametrize(
    ("name", "millions", "exact"),
    [
        ("refinenet-v1", 58.28, 58_278_705),
        ("refinenet-v2", 43.52, 43_518_641),
        ("refinenet-v3", 49.81, 49_814_585),
        ("refinenet-v4", 65.91, 65_910_457),
        ("refinenet-v5", 31.76, 31_760_945),
        ("refinenet-v6", 31.23, 31_228_529),
    ],
)
def test_trainable_parameters_are_those_of_the_author(name, millions, exact):
    count = make(name).count_parameters()
    assert round(count / 1e6, 2) == millions
    assert count == exact
    (row,) = [line for line in README.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert f"| {count:,} / {millions} | {MODELS[name].divisor} |" in row


@pytest.mark.parametrize("name", MODELS)
def test_sides_that_cannot_be_halved_are_refused_with_those_that_can(name):
    divisor = 32 if name in ("refinenet-v1", "refinenet-v2", "refinenet-v3") else 64
    assert MODELS[name].divisor == divisor
    assert MODELS[name].size.height % divisor == MODELS[name].size.width % divisor == 0
    with torch.device("meta"):
        network = make(name).build().eval()
        assert network(torch.zeros(1, 3, 3 * divisor, 2 * divisor)).shape == (1, 1, 3 * divisor, 2 * divisor)
        for height in (divisor + divisor // 2, 2 * divisor - 1):
            fits = f"{2 * divisor}x{divisor}"
            with pytest.raises(UsageError, match=f"multiples of {divisor}, not {height}x{divisor}: use size {fits}"):
                network(torch.zeros(1, 3, height, divisor))


def vision(name):
    """torchvision's network, with weights drawn anew; of VGG, whose classifier is large, the features alone."""
    if name == "vgg16_bn":
        with torch.device("meta"):
            network = torchvision.models.vgg16_bn()
        network.classifier = nn.Identity()
        network.to_empty(device="cpu")
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.05)
        for buffer in network.buffers():
            buffer.zero_()
    else:
        network = getattr(torchvision.models, name)()
    return scatter(network)


def taps_of(network, x):
    if hasattr(network, "features"):
        for layer in network.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                yield x
        return
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    yield x
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        yield x


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ENCODERS)
def test_taps_are_those_of_torchvisions_network_with_the_same_weights(name, suffix, tmp_path):
    torch.manual_seed(0)
    theirs = vision(name)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        # As the first files were: no counters, and inside a wrapper.
        old = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
        torch.save({"state_dict": old}, path)
    else:
        save_file(theirs.state_dict(), path)
    ours = Encoder(name, 3, 32)
    load_encoder(ours.body, str(path), name, 3)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = list(taps_of(theirs, images))
        got = ours.eval()(images)
        assert len(got) == len(expected) == 5
        for mine, their in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, their)
    assert [tap.shape[1] for tap in got] == list(ours.channels)


class Twin:
    """The decoders written out once more from their description, on the parameters of a network."""

    def __init__(self, network):
        self.p = {key: value for key, value in network.state_dict().items() if not key.startswith("encoder.")}
        self.used = set()

    def take(self, name):
        self.used.add(name)
        return self.p[name]

    def norm(self, x, name):
        mean, var, scale, shift = (
            self.take(f"{name}.{part}")[:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def cbr(self, x, name):
        return self.norm(functional.conv2d(x, self.take(f"{name}.0.weight"), padding="same"), f"{name}.1").clamp(min=0)

    def rcu(self, x, name):
        way = self.cbr(self.cbr(x, f"{name}.convs.0"), f"{name}.convs.1")
        direct = functional.conv2d(x, self.take(f"{name}.projection.0.weight"))
        return (way + self.norm(direct, f"{name}.projection.1")).clamp(min=0)

    def up(self, x):
        """Bilinear, with the corner pixels of both grids on one another."""

        def weights(side):
            points = np.linspace(0, side - 1, 2 * side)
            rows = np.stack([np.interp(points, np.arange(side), unit) for unit in np.eye(side)], 1)
            return torch.from_numpy(rows)

        return weights(x.shape[2]) @ x @ weights(x.shape[3]).T

    def end(self, x, name):
        return functional.conv2d(x, self.take(f"{name}.weight"), self.take(f"{name}.bias"), padding="same")

    def head(self, x, first):
        x = self.cbr(self.cbr(x, f"last.{first}"), f"last.{first + 1}")
        return self.end(self.up(x), f"last.{first + 3}")

    def v1(self, x, x1, x2, x3, x4):
        o = self.cbr(x4, "middle.0")
        o = self.up(self.rcu(o, "joins.0.units.0")) + self.cbr(x3, "joins.0.skip")
        o = self.up(self.rcu(o, "joins.1.units.0")) + self.cbr(x2, "joins.1.skip")
        o = self.up(self.rcu(o, "joins.2.units.0")) + self.cbr(x1, "joins.2.skip")
        o = self.rcu(o, "joins.3.units.0") + self.cbr(x, "joins.3.skip")
        return self.head(self.up(o), 2)

    def v2(self, x, x1, x2, x3, x4, units=1):
        def refined(o, name):
            for number in range(units):
                o = self.rcu(o, f"{name}.{number}")
            return o

        o = self.up(self.cbr(x4, "middle.0"))
        o = refined(torch.cat([self.cbr(x3, "joins.0.skip"), o], 1), "joins.1.units")
        o = refined(torch.cat([self.cbr(x2, "joins.1.skip"), self.up(o)], 1), "joins.2.units")
        o = refined(torch.cat([self.cbr(x1, "joins.2.skip"), self.up(o)], 1), "joins.3.units")
        o = self.rcu(self.cbr(x, "joins.3.skip") + o, "last.0.0")
        return self.head(self.up(o), 2)

    def v3(self, *taps):
        return self.v2(*taps, units=2)

    def v4(self, x, x1, x2, x3, x4):
        def refined(o, name):
            return self.rcu(self.rcu(o, f"{name}.0"), f"{name}.1")

        o = functional.max_pool2d(self.cbr(x4, "middle.0"), 2)
        o = refined(torch.cat([self.cbr(x4, "joins.0.skip"), self.up(o)], 1), "joins.1.units")
        o = refined(torch.cat([self.cbr(x3, "joins.1.skip"), self.up(o)], 1), "joins.2.units")
        o = refined(torch.cat([self.cbr(x2, "joins.2.skip"), self.up(o)], 1), "joins.3.units")
        o = refined(torch.cat([self.cbr(x1, "joins.3.skip"), self.up(o)], 1), "joins.4.units")
        o = refined(torch.cat([self.cbr(x, "joins.4.skip"), o], 1), "last.0")
        return self.head(self.up(o), 2)

    def v5(self, x1, x2, x3, x4, x5):
        o = functional.max_pool2d(self.cbr(x5, "middle.0"), 2)
        for number, feature in enumerate([x5, x4, x3, x2, x1]):
            o = torch.cat([self.up(self.rcu(o, f"joins.{number}.units.0")), feature], 1)
        return self.end(self.up(self.cbr(o, "last.1")), "last.3")

    def v6(self, x1, x2, x3, x4, x5):
        gated = functional.max_pool2d(self.cbr(x5, "coarsest.0"), 2)
        maps = [self.up(self.cbr(self.cbr(gated, "first.0"), "first.1"))]
        for number, feature in enumerate([x5, x4, x3, x2, x1]):
            small = self.up(self.cbr(gated, f"gates.{number}.coarse.0"))
            gated = small * self.cbr(feature, f"gates.{number}.fine")
            seen = self.cbr(gated, f"refinements.{number}.look")
            maps.append(self.up(self.cbr(torch.cat([seen, maps[-1]], 1), f"refinements.{number}.join.0")))
        return [self.end(self.cbr(maps[-1], "last.0"), "last.1"), *reversed(maps)]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_published_network(name):
    torch.manual_seed(0)
    network = scatter(make(name).build().double())
    images = torch.rand(1, 3, 128, 64, dtype=torch.float64)
    twin = Twin(network)
    with torch.no_grad():
        expected = getattr(twin, name.removeprefix("refinenet-"))(*network.encoder(images))
        maps = expected if isinstance(expected, list) else [expected]
        got = network(images)
        torch.testing.assert_close(got, maps[0])
        assert got.shape == (1, 1, 128, 64)
        if len(maps) > 1:
            network.training = True  # its layers stay as they are, so that running means count
            for mine, theirs in zip(network(images), maps, strict=True):
                torch.testing.assert_close(mine, theirs)
    assert {key for key in twin.p if not key.endswith("num_batches_tracked")} == twin.used


def test_version_6_trains_seven_maps_from_1_to_32_pixels_and_answers_the_finest():
    model = make("refinenet-v6")
    with torch.device("meta"):
        network = model.build().train()
        images = torch.zeros(2, 3, 128, 192)
    assert [tuple(m.shape[2:]) for m in network(images)] == [
        (128 // apart, 192 // apart) for apart in (1, 1, 2, 4, 8, 16, 32)
    ]
    assert network.eval()(images).shape == (2, 1, 128, 192)


def test_training_version_6_lowers_the_loss_of_one_photo():
    model = make("refinenet-v6")
    network = model.fresh_network(0).train()
    images, masks = draw_photos(1, Size(64, 128))
    photos = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    truth = torch.from_numpy(masks)[:, None].float()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        terms = [
            functional.binary_cross_entropy_with_logits(
                logits, functional.interpolate(truth, logits.shape[2:], mode="bilinear", align_corners=True)
            )
            for logits in model.forward_maps(network, photos)
        ]
        optimiser.zero_grad()
        sum(terms).backward()
        optimiser.step()
        losses.append([term.item() for term in terms])
    assert len(losses[0]) == 7
    assert sum(losses[-1]) < 0.9 * sum(losses[0])
    assert losses[-1][0] < 0.7 * losses[0][0]


@pytest.mark.parametrize("name", MODELS)
def test_odd_sizes_are_predicted_on_their_own_grid(name):
    model = make(name)
    model.load(None, "cpu")
    maps = model.predict(Batch(draw_photos(2, Size(37, 53))[0], ("a_01", "a_02"), ("a", "a")))
    assert (maps.shape, maps.dtype) == ((2, 37, 53), np.float32)
    assert np.isfinite(maps).all()
    assert maps.std() > 0


@pytest.mark.parametrize("name", ["refinenet-v3", "refinenet-v6"])
def test_a_checkpoint_gives_the_same_maps(name, check_round_trip):
    model = make(name)
    check_round_trip(model, scatter(model.fresh_network(3)), draw_photos(1, Size(64, 64))[0])


def test_a_checkpoint_needs_no_encoder_weights_and_a_gray_encoder_sums_the_colours(tmp_path, check_round_trip):
    torch.manual_seed(0)
    theirs = vision("resnet34")
    save_file(theirs.state_dict(), tmp_path / "resnet34.safetensors")
    model = make("refinenet-v4", encoder_weights=str(tmp_path / "resnet34.safetensors"), colour="gray")
    network = model.fresh_network(0).eval()
    gray = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        for mine, their in zip(network.encoder(gray), taps_of(theirs, gray.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(mine, their, rtol=1e-3, atol=1e-3)
    (tmp_path / "resnet34.safetensors").unlink()
    check_round_trip(model, network, draw_photos(1, Size(64, 64))[0])
    with pytest.raises(UsageError, match=r"resnet34\.safetensors, which is no file"):
        model.fresh_network(0)


def test_the_hub_is_asked_for_the_weights_of_the_author(empty_hub):
    with pytest.raises(TrainingError, match="no weights of encoder resnet34 from the hub"):
        make("refinenet-v4", encoder_weights="hub").fresh_network(0)


def test_photos_are_seen_as_the_author_had_them_unless_told():
    assert (make("refinenet-v1").options.colour, make("refinenet-v1").options.normalise) == ("bgr", "unit")
    with torch.device("meta"):
        network = make("refinenet-v6", colour="gray").build().eval()
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)
