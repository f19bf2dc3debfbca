"""The compiled kernel of blending spaces. Private: ``spaces.py`` checks what comes in."""

from __future__ import annotations

from typing import Any

from carvana_ens.core.jit import kernel


@kernel
def look_up(table: Any, codes: Any, out: Any) -> None:
    """out[p] = table[codes[p]]; out may be codes itself."""
    for pixel in range(codes.size):
        out[pixel] = table[codes[pixel]]
