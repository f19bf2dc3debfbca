"""Blend weights and thresholds, exactly: what is written is what is computed, with no float in between."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from carvana_ens.errors import UsageError

MAX_WEIGHT_SUM = 2**16
"""Weights of a larger sum are rounded to this one, so that sums of uint16 codes fit 32 bits."""

_NUMBER = re.compile(r"(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?|[0-9]{1,40}/[0-9]{1,40}")
_EXAMPLE = "write for example unet=2,linknet=0.5 or unet=1/3"


def parse_weights(text: str) -> dict[str, Fraction]:
    """Reads ``name=weight,name=weight``; a weight is a decimal (2, 0.5, 1e-3) or a fraction (1/3), taken exactly.

    Raises:
        UsageError: a part that is not name=weight, a name given twice, a weight that is no number or is negative, or
            no weight above 0.
    """
    weights: dict[str, Fraction] = {}
    for part in text.split(",") if text.strip() else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise UsageError(f"weight {part.strip()!r} in {text!r} is not name=weight: {_EXAMPLE}")
        if name in weights:
            raise UsageError(f"weights {text!r} name {name!r} twice: give each member one weight")
        number = _parse_number(value)
        if number is None:
            raise UsageError(f"weight of {name!r} is {value!r}, which is no decimal or fraction: {_EXAMPLE}")
        weights[name] = number
    _check(weights)
    return weights


def integer_weights(weights: Mapping[str, Fraction]) -> dict[str, int]:
    """The same proportions as coprime whole numbers of sum at most 2**16, names in the order given.

    Only where the exact ones would pass that sum are they rounded, by largest remainder to a sum of 2**16, ties going
    to the name that sorts first; a weight too small for its share is then 0.

    Raises:
        UsageError: no weights, a negative one, or none above 0.
    """
    _check(weights)
    scale = math.lcm(*(weight.denominator for weight in weights.values()))
    whole = _coprime({name: weight.numerator * (scale // weight.denominator) for name, weight in weights.items()})
    total = sum(whole.values())
    if total <= MAX_WEIGHT_SUM:
        return whole
    shares = {name: divmod(weight * MAX_WEIGHT_SUM, total) for name, weight in whole.items()}
    rounded = {name: share for name, (share, _) in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (-shares[name][1], name))
    for name in by_remainder[: MAX_WEIGHT_SUM - sum(rounded.values())]:
        rounded[name] += 1
    return _coprime(rounded)


def parse_threshold(value: str | Fraction | float) -> Fraction:
    """The threshold t, 0 < t <= 1, exactly as written: ``0.5``, ``128/255``; a float means its shortest decimal.

    Raises:
        UsageError: no decimal or fraction, or not in (0, 1].
    """
    threshold = Fraction(value) if isinstance(value, Fraction) else _parse_number(str(value).strip())
    if threshold is None or isinstance(value, bool) or not 0 < threshold <= 1:
        raise UsageError(f"threshold {value!r} is not in (0, 1]: write for example 0.5 or 128/255")
    return threshold


def threshold_text(threshold: Fraction) -> str:
    """A threshold as people write it, and as ``parse_threshold`` reads it back: 0.5, 128/255, 32768/65535 or 1/3."""
    decimal = f"{float(threshold):.6g}"
    if Fraction(decimal) == threshold:
        return decimal
    for full_scale in (255, 65535):
        level = threshold * full_scale
        if level.denominator == 1:
            return f"{level.numerator}/{full_scale}"
    return str(threshold)


def cut_sum(threshold: Fraction, full_scale: int, weight_sum: int) -> int:
    """ceil(t S W): a pixel is foreground when its weighted sum of codes is at least this."""
    return math.ceil(threshold * full_scale * weight_sum)


def _parse_number(text: str) -> Fraction | None:
    sign = text.startswith("-")
    if not _NUMBER.fullmatch(text[1:] if sign else text):
        return None
    try:
        return Fraction(text)
    except ZeroDivisionError:
        return None


def _check(weights: Mapping[str, Fraction]) -> None:
    if not weights:
        raise UsageError(f"no weights are given: {_EXAMPLE}")
    for name, weight in weights.items():
        if weight < 0:
            raise UsageError(f"weight of {name!r} is {weight}: weights are 0 or more")
    if not any(weights.values()):
        raise UsageError(f"all weights are 0 ({', '.join(weights)}): at least one must be above 0")


def _coprime(weights: Mapping[str, int]) -> dict[str, int]:
    divisor = math.gcd(*weights.values())
    return {name: weight // divisor for name, weight in weights.items()}
