"""A SyncProvider that does what a test tells it to."""

from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from syncline.messages.sync import CycleStatus, SyncResult, TableProgress
from syncline.provider import API_VERSION, NoOptions, ProviderServices, SyncContext

__all__ = ["FakeProvider", "sync_result"]


def sync_result(
    status: CycleStatus = CycleStatus.DRAINED, *, rows: int = 0, error: str | None = None
) -> SyncResult:
    """Return a result of one table, `nodes`; with `error`, of a cycle in which that table failed."""
    table = TableProgress(
        table="nodes",
        captured=rows,
        rows=rows,
        drained=error is None,
        failures=int(error is not None),
        error=error,
    )
    return SyncResult(
        status=CycleStatus.FAILED if error is not None else status,
        tables=(table,),
        failures=table.failures,
        batches=1,
        duration_seconds=0.01,
    )


class FakeProvider:
    """Runs `cycle` for each cycle, and remembers what it was called with."""

    api_version = API_VERSION

    def __init__(
        self,
        provider_id: str = "fake",
        *,
        version: str = "1.0",
        cycle: Callable[[SyncContext], Awaitable[SyncResult]] | None = None,
        options_model: type[BaseModel] = NoOptions,
    ) -> None:
        self.id = provider_id
        self.version = version
        self.options_model = options_model
        self.cycle = cycle
        self.contexts: list[SyncContext] = []
        self.initialized = 0
        self.closed = 0

    async def initialize(self, services: ProviderServices) -> None:  # noqa: ARG002 # the contract's
        """Count the call."""
        self.initialized += 1

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        """Return what `cycle` returns; without one, an idle result."""
        self.contexts.append(context)
        return sync_result() if self.cycle is None else await self.cycle(context)

    async def close(self) -> None:
        """Count the call."""
        self.closed += 1
