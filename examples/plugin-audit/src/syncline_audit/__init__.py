"""Provider `audit`: the built-in engine, and a trail of what each run changed."""

from importlib import metadata
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from syncline.engine import KNOWLEDGE_GRAPH, run_cycle
from syncline.provider import ProviderServices, SyncContext, SyncProvider, SyncResult
from syncline_audit.trail import record

__all__ = ["AuditOptions", "AuditProvider"]


class AuditOptions(BaseModel):
    """What a graph says under `composition.sync.options`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_days: int | None = Field(default=None, ge=1)
    """How long the trail goes back; null is for ever."""


class AuditProvider(SyncProvider):
    """One instance serves every graph of a worker process, concurrently: nothing of a graph is kept in it."""

    id = "audit"
    version = metadata.version("syncline-audit")
    api_version = 1
    options_model: ClassVar[type[BaseModel]] = AuditOptions
    schema_map = KNOWLEDGE_GRAPH

    async def initialize(self, services: ProviderServices) -> None:
        """Prepare nothing: the stores that a cycle is given are all that it needs."""

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        """Run a cycle of the engine; the trail then has what it changed, and what one that died had."""
        keep_days = context.options_as(AuditOptions).keep_days
        await record(context.target, keep_days=keep_days)
        result = await run_cycle(context)
        if result.rows or result.links or result.failures:
            await record(context.target, keep_days=keep_days)
        return result

    async def close(self) -> None:
        """Release nothing."""
