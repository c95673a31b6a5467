"""Sharing of sources: which graphs may read one schema of a write-db.

Two graphs that read the same tables must be of different tenants: otherwise one would have rows that are not
its own, and none could know which deleted keys the other has yet to read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Table, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from syncline.control.maps import map_options
from syncline.errors import CompositionInvalid, GraphInvalid, InputInvalid
from syncline.messages.base import GraphStatus

__all__ = ["Sharing", "Sources", "check_sharing", "has_sources", "refuse_undo", "tenant_named"]

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('syncline.sources:' || :place, 0))")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a graph reads, by a record that is about to be stored."""

    slug: str
    store: str | None
    schema: str
    elsewhere: bool
    """Whether the record names this schema, and not only the graph's own."""
    composition: Mapping[str, JsonValue]


def tenant_named(composition: Mapping[str, JsonValue], *, shadow: bool = False) -> str | None:
    """Return the tenant that a composition names, in a form in which equal ones are equal; None if none."""
    named = map_options(composition, shadow=shadow).tenant
    if named is None:
        return None
    try:
        return str(UUID(str(named)))
    except ValueError:
        return str(named)


def has_sources(graphs: Table, store: str | None, schema: str) -> ColumnElement[bool]:
    """Return the condition that a record's sources are in this schema."""
    place: ColumnElement[bool] = func.coalesce(graphs.c.write_schema, graphs.c.schema_name) == schema
    return place & graphs.c.write_store.is_not_distinct_from(store)


class Sharing(Protocol):
    """A graph's record, as far as it says what it shares."""

    @property
    def slug(self) -> str:
        """The graph's name."""

    @property
    def source_schema(self) -> str:
        """The schema of its sources."""

    @property
    def status(self) -> GraphStatus:
        """Whether it is synced."""


def refuse_undo(graph: Sharing, others: Sequence[Sharing]) -> None:
    """Raise InputInvalid if capture of a graph's sources serves others, unless these are archived."""
    served = [other.slug for other in others if other.status is not GraphStatus.ARCHIVED]
    if served:
        named = ", ".join(served[:10]) + (f" and {len(served) - 10} more" if len(served) > 10 else "")
        raise InputInvalid(
            f"Capture of schema '{graph.source_schema}' serves other graphs too: {named}.",
            fix=f"`syncline graph archive {graph.slug}` ends the sync of this graph alone.",
        )


async def check_sharing(connection: AsyncConnection, graphs: Table, sources: Sources) -> None:
    """Raise GraphInvalid if another graph reads the same rows; in the transaction that stores the record.

    Raise CompositionInvalid if the shadow is of another tenant than the graph.
    """
    mine = tenant_named(sources.composition)
    theirs = tenant_named(sources.composition, shadow=True)
    if theirs != mine and theirs is not None:
        problem = "a shadow has the rows of its graph, so it is of the same tenant"
        raise CompositionInvalid(sources.slug, "shadow.options.tenant", problem)
    await connection.execute(_LOCK, {"place": f"{sources.store or ''}/{sources.schema}"})
    others = select(graphs.c.slug, graphs.c.write_schema, graphs.c.composition).where(
        graphs.c.slug != sources.slug, has_sources(graphs, sources.store, sources.schema)
    )
    for other in (await connection.execute(others)).mappings():
        tenant = tenant_named(other["composition"] or {})
        if mine is not None and tenant is not None:
            if mine != tenant:
                continue
            problem = f"graph '{other['slug']}' has the rows of this tenant; name another tenant"
        elif mine is tenant and not sources.elsewhere and other["write_schema"] is None:
            continue  # two graph-dbs of one write-db
        else:
            problem = (
                f"graph '{other['slug']}' reads schema '{sources.schema}' too, and not both have a tenant"
            )
        raise GraphInvalid(sources.slug, "write_schema", problem)
