"""The audit of graphs: who added, changed, archived, promoted or dropped one, when, and by which run."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import Field
from sqlalchemy import ARRAY, BigInteger, Column, DateTime, MetaData, Table, Text, Uuid, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from syncline.messages.base import Message
from syncline.stores.postgres import PostgresStore

__all__ = ["Actor", "GraphAuditEntry", "GraphAuditPage", "list_graph_audit", "write_graph_audit"]

_audit = Table(
    "graph_audit",
    MetaData(schema="syncline"),
    Column("number", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True)),
    Column("graph_id", Uuid),
    Column("slug", Text),
    Column("action", Text),
    Column("fields", ARRAY(Text)),
    Column("who", Text),
    Column("why", Text),
    Column("starter", Text),
    Column("run_id", Text),
)


class Actor(Message):
    """Who has something done."""

    who: str = ""
    """As they say themselves."""
    why: str = ""
    starter: str | None = None
    """Who has started the run, as Temporal has it: whom its server knows, else what the caller says."""
    run_id: str | None = None


class GraphAuditEntry(Message):
    """What was done to a graph."""

    number: int
    at: datetime
    graph: str
    """Its slug."""
    action: str
    """`add`, `change`, `pause`, `resume`, `archive`, `promote` or `drop-shadow`."""
    fields: tuple[str, ...] = Field(default=())
    """What of its record changed, by name."""
    who: str = ""
    why: str = ""
    starter: str | None = None
    run_id: str | None = None


class GraphAuditPage(Message):
    """The audit, newest first."""

    entries: tuple[GraphAuditEntry, ...] = ()
    next: int | None = None
    """What to give as `before` for the following page; None when this is the last one."""


async def write_graph_audit(
    connection: AsyncConnection,
    *,
    graph_id: UUID,
    slug: str,
    action: str,
    actor: Actor,
    fields: Sequence[str] = (),
) -> None:
    """Write a line in the transaction of the change; a run writes one of each kind for a graph."""
    line = {"graph_id": graph_id, "slug": slug, "action": action, "fields": sorted(fields)}
    values = {**line, **actor.model_dump()}
    await connection.execute(insert(_audit).values(values).on_conflict_do_nothing())


async def list_graph_audit(
    store: PostgresStore, graph_id: UUID | None, *, limit: int, before: int | None = None
) -> GraphAuditPage:
    """Return what was done to a graph, or to all of them; `before` is the `next` of the page before."""
    statement = select(_audit).order_by(_audit.c.number.desc()).limit(limit + 1)
    if graph_id is not None:
        statement = statement.where(_audit.c.graph_id == graph_id)
    if before is not None:
        statement = statement.where(_audit.c.number < before)
    async with store.begin() as connection:
        rows = (await connection.execute(statement)).mappings().all()
    entries = tuple(GraphAuditEntry.model_validate({**row, "graph": row["slug"]}) for row in rows[:limit])
    return GraphAuditPage(entries=entries, next=entries[-1].number if len(rows) > limit else None)
