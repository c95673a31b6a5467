"""The connections that one piece of work holds, so that those which it leaves open can be taken back."""

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
    """What is taken from the stores while this is entered, also by the tasks that are started meanwhile."""

    def __init__(self) -> None:
        self._held: dict[object, tuple[str, Release]] = {}
        self._over = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is taken from here on, until the end."""
        token = _counting.set(self)
        try:
            yield
        finally:
            _counting.reset(token)

    @contextmanager
    def hold(self, store: str, release: Release) -> Iterator[None]:
        """Know of a connection while this is entered. Raise StoreUnavailable when the work is over."""
        if self._over:
            raise StoreUnavailable(store, "the work that asks for a connection has ended.")
        key = object()
        self._held[key] = (store, release)
        try:
            yield
        finally:
            self._held.pop(key, None)

    async def take_back(self) -> Sequence[str]:
        """Close what is still held, and give out no more; return the name of the store of each, sorted."""
        self._over = True
        stores = []
        while self._held:
            _, (store, release) = self._held.popitem()
            stores.append(store)
            try:
                async with asyncio.timeout(_PATIENCE):
                    await release()
            except Exception as error:  # whoever holds it may be using it, or closing it
                get_log().debug("connection was closed with an error", store=store, error=repr(error))
        return sorted(stores)


_counting: ContextVar[Leases | None] = ContextVar("leases", default=None)


@contextmanager
def leased(store: str, release: Release) -> Iterator[None]:
    """Say that a connection of the store is in use; `release` closes it in spite of whoever uses it."""
    leases = _counting.get()
    if leases is None:
        yield
        return
    with leases.hold(store, release):
        yield
