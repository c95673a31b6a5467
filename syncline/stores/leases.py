"""Leases: tracks the store connections of one piece of work, so that leaked ones can be closed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from syncline.errors import StoreUnavailable
from syncline.logs import get_log

__all__ = ["Leases", "leased"]

_PATIENCE = 5.0
_SETTLING = 1.0
"""Seconds in which tasks that are ending give their connections back."""

Release = Callable[[], Awaitable[None]]


class Leases:
    """Connections acquired while this is entered, also by tasks started meanwhile."""

    def __init__(self) -> None:
        self._held: dict[object, tuple[str, Release]] = {}
        self._over = False
        self._all_back = asyncio.Event()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Track connections acquired from here on, until the end."""
        token = _counting.set(self)
        try:
            yield
        finally:
            _counting.reset(token)

    @contextmanager
    def hold(self, store: str, release: Release) -> Iterator[None]:
        """Track a connection while this is entered. Raises StoreUnavailable when the work is over."""
        if self._over:
            raise StoreUnavailable(store, "the work that requests a connection has ended.")
        key = object()
        self._held[key] = (store, release)
        try:
            yield
        finally:
            self._held.pop(key, None)
            if not self._held:
                self._all_back.set()

    async def take_back(self) -> Sequence[str]:
        """Give out no more, close what is held for another second, and return its store names, sorted."""
        self._over = True
        if late := sorted(store for store, _ in self._held.values()):
            self._all_back.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_SETTLING):
                    await self._all_back.wait()
            get_log().info("connections came back late", stores=late, left=len(self._held))
        stores = []
        while self._held:
            _, (store, release) = self._held.popitem()
            stores.append(store)
            try:
                async with asyncio.timeout(_PATIENCE):
                    await release()
            except Exception as error:  # its holder may be using or closing it
                get_log().debug("closing a connection failed", store=store, error=repr(error))
        return sorted(stores)


_counting: ContextVar[Leases | None] = ContextVar("leases", default=None)


@contextmanager
def leased(store: str, release: Release) -> Iterator[None]:
    """Register a store connection as in use; `release` closes it even while it is used."""
    leases = _counting.get()
    if leases is None:
        yield
        return
    with leases.hold(store, release):
        yield
