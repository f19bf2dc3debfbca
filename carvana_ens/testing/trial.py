"""What the checks share: a member to check, calls into its model, and refusals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carvana_ens.errors import PluginError
from carvana_ens.model import MemberConfig, Model
from carvana_ens.types import Json, Size


class Refused(PluginError):  # noqa: N818 (as Unreadable: what happened, in the checks' own words)
    """A check failed; the message says what the model did and what it should do."""


def refused(model_class: type[Model], fault: str) -> Refused:
    """fault: what is wrong, what it is, and what to do, after the name of the class."""
    return Refused(f"model {model_class.__name__}: {fault}", name=model_class.__name__)


@contextmanager
def calling(model_class: type[Model], what: str) -> Iterator[None]:
    """Runs a block that calls the plugin. what: the call, for the message.

    Raises:
        PluginError: the plugin raised anything.
    """
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise refused(model_class, f"{what} raised {told}; see the error above this one") from error


def config_of(model_class: type[Model], options: Mapping[str, Json], size: Size) -> MemberConfig:
    """A member of the model at an input size; one that runs on each photo's own grid is left to do so."""
    own_grid = model_class.size is None
    return MemberConfig(
        name="checked", model=model_class.__name__, size=None if own_grid else size, options=dict(options)
    )


def made(model_class: type[Model], config: MemberConfig) -> Model:
    """A new instance of the model."""
    with calling(model_class, f"{model_class.__name__}(config)"):
        return model_class(config)


def loaded(model_class: type[Model], config: MemberConfig, checkpoint: Path | None) -> Model:
    """A new instance of the model, ready to predict on the CPU."""
    model = made(model_class, config)
    with calling(model_class, f"load({'None' if checkpoint is None else checkpoint.name}, 'cpu')"):
        model.load(checkpoint, "cpu")
    return model


def difference(maps: NDArray[np.float32], expected: NDArray[np.float32]) -> float | None:
    """The largest difference of two answers that should be one, or None where it is rounding.

    Rounding may be 1e-3 of the range of the values, a quarter of a stored code, and 1e-5 of the largest value: what
    float32 sums in another order amount to in a deep network whose answers hardly vary.
    """
    allowed = 1e-3 * float(np.ptp(expected)) + 1e-5 * float(np.abs(expected).max())
    largest = float(np.abs(maps - expected).max())
    return largest if largest > allowed else None
