from __future__ import annotations

import numpy as np
import pytest


def stretched(values):
    low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
    return (values - low) / np.maximum(high - low, np.float32(1e-6))


def ranked(values):
    """As ranks within each photo, in [0, 1]."""
    flat = values.reshape(len(values), -1)
    return (flat.argsort(1).argsort(1) / np.float32(flat.shape[1] - 1)).astype(np.float32).reshape(values.shape)


def voted(values):
    """Above the middle of each photo's range or not."""
    return (stretched(values) >= 0.5).astype(np.float32)


@pytest.mark.parametrize("change", [stretched, ranked, voted])
@pytest.mark.parametrize("scale", [1, 10])
def test_maps_stretched_photo_by_photo(tiny, change, scale):
    class Planted(tiny.Bright):
        output = "probabilities" if scale == 1 else "logits"

        def predict(self, batch):
            return change(super().predict(batch)) * np.float32(scale)

    reach = f"every map reaches from 0 to {scale}, also where the photo has hardly any contrast"
    tiny.assert_fault(Planted, "check_calibration", reach)


def test_probabilities_under_the_name_of_logits(tiny):
    class Planted(tiny.Bright):
        output = "logits"

    tiny.assert_fault(Planted, "check_calibration", r"gives logits from 0\.\d+ to 0\.\d+ .*leave the sigmoid out")


def test_what_is_not_stretched(tiny):
    class Cut(tiny.Bright):
        """Hard, but by a threshold that is the same for all photos."""

        def predict(self, batch):
            return (super().predict(batch) > 0.4).astype(np.float32)

    class Prior(tiny.Bright):
        """The same map for every photo."""

        def predict(self, batch):
            shape = batch.images.shape[:3]
            return np.broadcast_to(np.linspace(0, 1, shape[2], dtype=np.float32), shape).copy()

    class Nothing(tiny.Logits):
        def predict(self, batch):
            return np.zeros(batch.images.shape[:3], np.float32)

    class Untrained(tiny.Logits):
        """As networks are that have hardly been trained."""

        def predict(self, batch):
            return np.float32(0.4) + super().predict(batch) / 2000

    for model in (Cut, Prior, Nothing, Untrained):
        assert tiny.first_fault(model) == (None, "")
