"""zarr's way to an object store, which asks again where an answer was cut; see ``bucket``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from obstore.exceptions import GenericError
from zarr.storage import ObjectStore

from carvana_ens.store.bucket import Patience

T = TypeVar("T")


class PatientStore(ObjectStore[Any]):
    """Of the ways that zarr reads and writes, those that our layouts take."""

    async def get(self, *words: Any, **more: Any) -> Any:
        """See zarr."""
        return await _again(lambda: super(PatientStore, self).get(*words, **more))

    async def set(self, *words: Any, **more: Any) -> None:
        """See zarr."""
        await _again(lambda: super(PatientStore, self).set(*words, **more))

    async def set_if_not_exists(self, *words: Any, **more: Any) -> None:
        """See zarr."""
        await _again(lambda: super(PatientStore, self).set_if_not_exists(*words, **more))

    async def exists(self, key: str) -> bool:
        """See zarr."""
        return await _again(lambda: super(PatientStore, self).exists(key))

    async def getsize(self, key: str) -> int:
        """See zarr."""
        return await _again(lambda: super(PatientStore, self).getsize(key))

    async def delete(self, key: str) -> None:
        """See zarr."""
        await _again(lambda: super(PatientStore, self).delete(key))


async def _again(ask: Callable[[], Awaitable[T]]) -> T:
    patience = Patience()
    while True:
        try:
            return await ask()
        except GenericError:
            if patience.ends():
                raise
