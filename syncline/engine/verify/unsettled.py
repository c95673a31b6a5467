"""Unsettled: the rows of a table that are on their way, wait or were refused, and so need not be equal."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from syncline.engine.form import key_bytes
from syncline.engine.keys import bytes_of, key_of_bytes, reading_of, row_uuid
from syncline.engine.layout import commas
from syncline.engine.statements import DELETES, SchemaStatements
from syncline.engine.tablemap import Reference, TableMap
from syncline.engine.verify.captured import Captured
from syncline.engine.verify.snapshots import Snapshots
from syncline.engine.verify.template import sql
from syncline.sqltext import literal, quoted

__all__ = ["Refused", "Unsettled", "find_refused"]

_FEW = 20_000
"""As many are left out of the sums; with more of them hardly a bucket would be equal without."""


class Unsettled:
    """What is known of them. Of rows whose references wait, the ones with `waiting` among their names."""

    def __init__(
        self,
        snapshots: Snapshots,
        statements: SchemaStatements,
        captured: Captured,
        *,
        table: TableMap,
        waiting: Sequence[str],
    ) -> None:
        self._snapshots, self._captured = snapshots, captured
        cursor, deletes = snapshots.cursors[table.name], snapshots.cursors[DELETES]
        self._parameters = [*cursor.parameters(), *deletes.parameters()]
        self._deleted_beyond = statements.after_deleted(deletes, 1 + len(cursor.parameters()))
        self.deleted_parameters = deletes.parameters()
        self.deleted = captured.deleted(statements.after_deleted(deletes, 1)) + " ORDER BY 1"
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

    async def few(self) -> list[UUID] | None:
        """Return their ids, or None if they are too many."""
        known = await self._snapshots.target.fetch(self._ids)
        if len(known) > _FEW:
            return None
        query = sql(
            "beyond",
            rows=self._captured.coming(1),
            deleted=self._captured.deleted(self._deleted_beyond),
            limit=str(_FEW + 1),
        )
        coming = await self._snapshots.write.fetch(query, *self._parameters)
        ids = {row["row_id"] for row in (*known, *coming)}
        return list(ids) if len(coming) <= _FEW else None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The rows of a table that the graph-db refused, unless they are too many to be named."""

    keys: Sequence[Sequence[str]] = ()
    standing: frozenset[UUID] = frozenset()
    """The ids of those that the write-db still has."""


async def find_refused(snapshots: Snapshots, table: TableMap) -> Refused:
    """Return the refused rows of a table."""
    letters = await snapshots.target.fetch(sql("refused"), table.name, _FEW + 1)
    if not letters or len(letters) > _FEW:
        return Refused()
    keys = [reading_of(row["key"], row["row_id"]) for row in letters]
    query = sql(
        "standing",
        key=commas([key_bytes(quoted(column)) for column in table.key]),
        source=quoted(table.source),
        parameters=commas([f"${place + 1}::bytea[]" for place in range(len(table.key))]),
    )
    columns = [[bytes_of(part) for part in column] for column in zip(*keys, strict=True)]
    standing = await snapshots.write.fetch(query, *columns)
    return Refused(keys=keys, standing=frozenset(row_uuid(key_of_bytes(row["key"])) for row in standing))


def _stuck(table: TableMap) -> str:
    """Return the condition that parked row `r` waits for a parent that is there."""
    conditions = [_landed(reference, table.required) for reference in table.required]
    return " OR ".join(dict.fromkeys(conditions)) or "false"


def _landed(reference: Reference, required: Sequence[Reference]) -> str:
    by_key = any(other.parent == reference.parent and other.by is None for other in required)
    same = "p.id = r.waits_for"
    if reference.by is not None:
        # A table that names its parent in both ways does not say which of them a row waits for.
        by = f"p.{quoted(reference.by)}"
        same = "false" if by_key else f'{by} = r.waits_for_key AND {by}::text COLLATE "C" = r.waits_for_key'
    parent, name = quoted(reference.parent), literal(reference.parent)
    return f"r.waits_for_table = '{name}' AND EXISTS (SELECT FROM {parent} p WHERE {same})"
