from __future__ import annotations

import pytest

from carvana_ens.testing.checks import CHECKS


@pytest.mark.parametrize("name", ["Bright", "Logits", "Group", "Trained"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_good_models_pass(tiny, name, check):
    check(getattr(tiny, name), {})


def test_options_reach_the_model(tiny):
    assert tiny.first_fault(tiny.Bright, {"slope": 3.0, "invert": True}) == (None, "")
    tiny.assert_fault(tiny.Bright, "check_options", "did you mean 'slope'", {"sloppe": 3.0})
