"""Unsettled: the rows of a table that are on their way, wait or were refused, and so need not be equal."""

from collections.abc import Sequence
from uuid import UUID

from syncline.engine.statements import DELETES, SchemaStatements
from syncline.engine.tablemap import Reference, TableMap
from syncline.engine.verify.images import Images
from syncline.engine.verify.snapshots import Snapshots
from syncline.engine.verify.template import sql
from syncline.sqltext import literal, quoted

__all__ = ["Unsettled"]

_FEW = 20_000
"""As many are left out of the sums; with more of them hardly a bucket would be equal without."""


class Unsettled:
    """The queries for them. Of those whose references wait, the ones with `waiting` among their names."""

    def __init__(
        self, snapshots: Snapshots, statements: SchemaStatements, images: Images, *, waiting: Sequence[str]
    ) -> None:
        self._snapshots = snapshots
        table = images.table
        cursor, deletes = snapshots.cursors[table.name], snapshots.cursors[DELETES]
        self._parameters = [*cursor.parameters(), *deletes.parameters()]
        self._images = images
        self._own_beyond = statements.tables[table.name].after_cursor(cursor, 1)
        first = 1 + len(cursor.parameters())
        self._deleted_beyond = statements.after_deleted(deletes, first)
        self.deleted_parameters = deletes.parameters()
        self.deleted = self._deleted(statements.after_deleted(deletes, 1)) + " ORDER BY 1"
        """Query for the keys whose end no cycle has read: `row_id`, `key`."""
        books = sql(
            "books",
            table=literal(table.name),
            stuck=_stuck(table),
            names=", ".join(f"'{literal(name)}'" for name in waiting) or "NULL",
        )
        self._ids = sql("known", books=books, limit=str(_FEW + 1))
        self.books = f"{books} ORDER BY 1"
        """Query for what the graph-db knows of them: `row_id`, `key`, `kind`, `stuck`."""

    def _deleted(self, beyond: str) -> str:
        images = self._images
        return sql("deleted", row_id=images.key_id, source=literal(images.table.source), beyond=beyond)

    async def few(self) -> list[UUID] | None:
        """Return their ids, or None if they are too many."""
        known = await self._snapshots.target.fetch(self._ids)
        if len(known) > _FEW:
            return None
        query = sql(
            "beyond",
            rows=self._images.source(beyond=self._own_beyond, only_beyond=True),
            deleted=self._deleted(self._deleted_beyond),
            limit=str(_FEW + 1),
        )
        coming = await self._snapshots.write.fetch(query, *self._parameters)
        ids = {row["row_id"] for row in (*known, *coming)}
        return list(ids) if len(coming) <= _FEW else None


def _stuck(table: TableMap) -> str:
    """Return the condition that parked row `r` waits for a parent that is there."""
    conditions = [_landed(reference, table.required) for reference in table.required]
    return " OR ".join(dict.fromkeys(conditions)) or "false"


def _landed(reference: Reference, required: Sequence[Reference]) -> str:
    by_key = any(other.parent == reference.parent and other.by is None for other in required)
    same = "p.id = r.waits_for"
    if reference.by is not None:
        # A table that names its parent in both ways does not say which of them a row waits for.
        same = "false" if by_key else f"p.{quoted(reference.by)} = r.waits_for_key"
    parent, name = quoted(reference.parent), literal(reference.parent)
    return f"r.waits_for_table = '{name}' AND EXISTS (SELECT FROM {parent} p WHERE {same})"
