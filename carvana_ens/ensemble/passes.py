"""Passes over the out-of-fold maps of many images: on threads of this process, or on workers that open the same stores.

What is done with an image is a value that travels, so that both do the same; what they find comes in the order of the
images, and what waits for its turn is bounded.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

from carvana_ens.engine import default_threads, ordered_map
from carvana_ens.engine.cluster import Cluster
from carvana_ens.engine.tasks import ordered
from carvana_ens.engine.worker import alive, kept, threads_here
from carvana_ens.ensemble.truth import Truth, TruthCache
from carvana_ens.errors import CarvanaEnsError, StoreError
from carvana_ens.files import digest
from carvana_ens.store.place import Where, absolute
from carvana_ens.store.store import ProbabilityStore, open_store

Result = TypeVar("Result")
Found_co = TypeVar("Found_co", covariant=True)

_IMAGES = 16
"""Images that a worker is given at once, at most: few enough that little is lost with it."""
_BYTES = 2**27
"""What it may send back for them, or else it is given one: a code a pixel and member at most, or counts of each code.
``engine.tasks`` lets four such answers a worker wait for their turn in the process that asks.
"""
_COUNTS = 24
"""Bytes of the counts of one code."""


class Look(Protocol[Found_co]):
    """What is done with each image; a frozen dataclass of values that travel."""

    def begun(self, stores: Sequence[ProbabilityStore], truth: Truth) -> Callable[[str], Found_co]:
        """What gives the finding of one image id, on these stores; it is called from threads."""


@dataclass(frozen=True)
class Elsewhere:
    """Workers that read in place of this process.

    masks: the file of a ``TruthCache``, from which they take the truth. source: what its masks were decoded from.
    """

    cluster: Cluster
    masks: Path
    source: str


def each_image(
    look: Look[Result],
    stores: Sequence[ProbabilityStore],
    truth: Truth,
    ids: Sequence[str],
    threads: int | None = None,
    elsewhere: Elsewhere | None = None,
) -> Iterator[Result]:
    """What a look finds in each image, in order.

    threads: of this process, None for as many as there are processors; workers have their own. elsewhere: workers, None
    for this process.

    Raises:
        CarvanaEnsError: what the look raises, of several the first in the order of the images; or no worker is left.
    """
    if elsewhere is None:
        yield from ordered_map(look.begun(stores, truth), ids, threads or default_threads())
        return
    places = tuple(absolute(store.path) for store in stores)
    stamp = _stamp(stores, elsewhere.source)
    order = partial(_Order, uuid.uuid4().hex, look, places, elsewhere.masks.absolute(), stamp)
    size = _task(stores)
    orders = (order(tuple(ids[first : first + size])) for first in range(0, len(ids), size))
    yield from chain.from_iterable(ordered(elsewhere.cluster, _look, orders))


@dataclass(frozen=True)
class _Order:
    """Images for a worker to look at. key: the same for all of one pass. stamp: what must lie at stores and masks."""

    key: str
    look: Look[Any]
    stores: tuple[Where, ...]
    masks: Path
    stamp: str
    ids: tuple[str, ...]


def _task(stores: Sequence[ProbabilityStore]) -> int:
    """Images that a worker is given at once."""
    image = 0
    for store in stores:
        _, height, width = store.shape
        image += max(height * width * (1 if store.full_scale == 255 else 2), (store.full_scale + 1) * _COUNTS)
    return max(1, min(_IMAGES, _BYTES // image))


def _stamp(stores: Sequence[ProbabilityStore], masks: str) -> str:
    """sha256 (hex) over the maps and what the masks were decoded from."""
    return digest([[store.fingerprint() for store in stores], masks])


def _look(order: _Order) -> list[Any]:
    """On a worker: what it finds in each of its images."""
    one = kept(order.key, partial(_begun, order))
    found = []
    for finding in ordered_map(one, order.ids, threads_here()):
        found.append(finding)
        alive()
    return found


def _begun(order: _Order) -> Callable[[str], Any]:
    try:
        stores = [open_store(place) for place in order.stores]
        truth = TruthCache(order.masks)
        stamp = _stamp(stores, truth.source)
    except CarvanaEnsError as error:
        raise StoreError(
            f"a worker on {socket.gethostname()} does not see what this process sees: {error}; workers need stores and "
            f"project under the same paths"
        ) from error
    if stamp != order.stamp:
        raise StoreError(
            f"a worker on {socket.gethostname()} finds other maps or masks than this process, at {order.stores[0]} and "
            f"so on and {order.masks}: workers need the same files under the same paths"
        )
    return order.look.begun(stores, truth)
