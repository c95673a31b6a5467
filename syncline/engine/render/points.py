"""Points: how a row's point is named, and the row of a point found.

The vector store's ids are uuids. A uuid that is a row's id is its point's. Of any other id the point's is the
hash, as rule `hash` makes it of a key, so a rebuilt collection has the same points.
The outbox keeps the id beside it, by which the row is found; the payload has it for readers.
"""

from collections.abc import Mapping
from typing import Final

from syncline.engine.key_forms import form, read
from syncline.engine.render.fragments import column
from syncline.engine.render.identity import key_hash
from syncline.engine.table_map import TableMap
from syncline.engine.template import sql
from syncline.maps.key_types import Kind
from syncline.sql import literal

__all__ = ["ROW_ID", "PointNames", "queue"]

ROW_ID: Final = "sync_id"
"""The payload field with the id of a row whose id is no uuid."""


class PointNames:
    """The names of the points of one table's rows."""

    def __init__(self, table: TableMap) -> None:
        self.same = table.id_type.kind is Kind.UUID
        """Whether a point has its row's id."""
        self._type, self._id = table.id_type, column(table.id_column)

    def of(self, row: str = "") -> str:
        """Return the id of a row's point."""
        own = f"{row}.{self._id}" if row else self._id
        return own if self.same else key_hash(form(self._type, own))

    def of_id(self, target_id: str) -> str:
        """Return the id of the point of the row with this id."""
        return target_id if self.same else key_hash(form(self._type, f"({target_id})"))

    def text(self, row: str = "") -> str:
        """Return a row's id as the outbox has it."""
        return form(self._type, f"{row}.{self._id}" if row else self._id)

    @property
    def fields(self) -> Mapping[str, str]:
        """The further fields of a payload -> SQL over the row `t`."""
        return {} if self.same else {ROW_ID: f"t.{self._id}"}

    def queued(self, row: str = "") -> dict[str, str]:
        """Return what an entry of the outbox has of a row, as fragments of an INSERT."""
        if self.same:
            return {"named": "", "id": self.of(row), "renamed": ""}
        return {
            "named": ", target_id",
            "id": f"{self.of(row)}, {self.text(row)}",
            "renamed": ", target_id = excluded.target_id",
        }

    def of_entry(self, entry: str) -> dict[str, str]:
        """Return how the row of an entry is found."""
        if self.same:
            return {"kept": "", "known": "", "sized_row": "q.point_id", "row": f"{entry}.point_id"}
        found = read(self._type, f"{entry}.target_id")
        return {
            "kept": ", target_id",
            "known": " AND target_id IS NOT NULL",
            "sized_row": read(self._type, "q.target_id"),
            "row": f"{found} AND {self.of()} = {entry}.point_id",
        }

    def resolve(self, target: str) -> str | None:
        """Return the statement by which entries know their rows that were queued by their points alone."""
        if self.same:
            return None
        return sql("outbox_resolve", target=target, point=self.of("t"), text=self.text("t"))


def queue(table: TableMap, rows: str = "changed", *, number: str = "") -> str:
    """Return the part of a statement that puts `rows` into the outbox, or an empty string."""
    if table.vector is None:
        return ""
    collection = literal(table.vector.collection)
    return sql("queue", number=number, rows=rows, collection=collection, **PointNames(table).queued())
