"""The built-in engine behind the provider contract, for graphs that name provider `default`."""

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import ClassVar

from pydantic import BaseModel

from syncline import names
from syncline.provider import NoOptions, ProviderServices, SyncContext, SyncProvider, SyncResult

__all__ = ["DefaultSyncProvider"]


class DefaultSyncProvider(SyncProvider):
    """Runs the built-in engine, exactly as a cycle in fallback does."""

    id = names.DEFAULT_PROVIDER
    api_version = 1
    options_model: ClassVar[type[BaseModel]] = NoOptions

    def __init__(self) -> None:
        self.version = version("syncline")
        self._run_cycle: Callable[[SyncContext], Awaitable[SyncResult]] | None = None

    async def initialize(self, services: ProviderServices) -> None:  # noqa: ARG002 -- the contract names it
        """Import the engine; a worker whose graphs all have other providers never does."""
        from syncline.engine import run_cycle

        self._run_cycle = run_cycle

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        """Run one cycle of the engine."""
        if self._run_cycle is None:
            raise RuntimeError("provider 'default' is not initialized; use Registry.initialized")
        return await self._run_cycle(context)

    async def close(self) -> None:
        """Release the engine; it holds no resources between cycles."""
        self._run_cycle = None
