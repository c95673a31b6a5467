"""Audit of graph records: each addition, change, archiving, promotion or drop, with actor, time and run."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import Field
from sqlalchemy import ARRAY, BigInteger, Column, DateTime, MetaData, Table, Text, Uuid, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from syncline.errors import InputInvalid
from syncline.messages.base import Message
from syncline.stores.postgres import PostgresStore

__all__ = [
    "Actor",
    "GraphAuditEntry",
    "GraphAuditPage",
    "audited_slug",
    "list_graph_audit",
    "write_graph_audit",
]

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
    """The actor of an audited action."""

    who: str = ""
    """Name given in the input."""
    why: str = ""
    starter: str | None = None
    """Who started the run, by Temporal: the authenticated principal, otherwise the client's identity."""
    run_id: str | None = None

    def required(self, action: str) -> Self:
        """Return the actor without blanks around name and reason; InputInvalid if one of them is blank."""
        who, why = self.who.strip(), self.why.strip()
        if not who or not why:
            raise InputInvalid(f"To {action}, give `who` and `why`: both are kept in the audit.")
        return self.model_copy(update={"who": who, "why": why})


class GraphAuditEntry(Message):
    """One audited action on a graph."""

    number: int
    at: datetime
    graph: str
    """Slug of the graph."""
    action: str
    """`add`, `change`, `pause`, `resume`, `archive`, `promote`, `drop-shadow`, `delete`, …"""
    fields: tuple[str, ...] = Field(default=())
    """Names of the changed fields of its record."""
    who: str = ""
    why: str = ""
    starter: str | None = None
    run_id: str | None = None


class GraphAuditPage(Message):
    """The audit, newest first."""

    entries: tuple[GraphAuditEntry, ...] = ()
    next: int | None = None
    """Value of `before` for the following page; null on the last page."""


async def write_graph_audit(
    connection: AsyncConnection,
    *,
    graph_id: UUID,
    slug: str,
    action: str,
    actor: Actor,
    fields: Sequence[str] = (),
) -> None:
    """Insert an audit entry in the transaction of the change; at most one per run, action and graph."""
    line = {"graph_id": graph_id, "slug": slug, "action": action, "fields": sorted(fields)}
    values = {**line, **actor.model_dump()}
    await connection.execute(insert(_audit).values(values).on_conflict_do_nothing())


async def audited_slug(store: PostgresStore, action: str, run_id: str) -> str | None:
    """Return the slug of the graph on which this run has audited the action; None if there is none."""
    wanted = (_audit.c.action == action) & (_audit.c.run_id == run_id)
    async with store.begin() as connection:
        found = (await connection.execute(select(_audit.c.slug).where(wanted))).scalars().first()
    return None if found is None else str(found)


async def list_graph_audit(
    store: PostgresStore, graph_id: UUID | None, *, limit: int, before: int | None = None
) -> GraphAuditPage:
    """Return a page of the audit of one graph or all; `before` is the `next` of the previous page."""
    statement = select(_audit).order_by(_audit.c.number.desc()).limit(limit + 1)
    if graph_id is not None:
        statement = statement.where(_audit.c.graph_id == graph_id)
    if before is not None:
        statement = statement.where(_audit.c.number < before)
    async with store.begin() as connection:
        rows = (await connection.execute(statement)).mappings().all()
    entries = tuple(GraphAuditEntry.model_validate({**row, "graph": row["slug"]}) for row in rows[:limit])
    return GraphAuditPage(entries=entries, next=entries[-1].number if len(rows) > limit else None)
