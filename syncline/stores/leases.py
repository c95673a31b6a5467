"""Leases: tracks the store connections of one piece of work, so that leaked ones can be closed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from syncline.errors import StoreUnavailable
from syncline.logs import get_log

__all__ = ["Leases", "leased"]

_PATIENCE = 5.0

Release = Callable[[], Awaitable[None]]


class Leases:
    """Connections acquired while this is entered, also by tasks started meanwhile."""

    def __init__(self) -> None:
        self._held: dict[object, tuple[str, Release]] = {}
        self._over = False

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

    async def take_back(self) -> Sequence[str]:
        """Close all held connections and give out no more; return their store names, sorted."""
        self._over = True
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
