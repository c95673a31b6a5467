"""Captured: the rows of the write-db, those that their cursor has passed and those that it has not."""

from collections.abc import Sequence

from syncline.engine.form import key_bytes
from syncline.engine.keys import bytes_of
from syncline.engine.layout import commas
from syncline.engine.statements import Cursor, TableStatements
from syncline.engine.verify.images import Images, key_uuid, own_id
from syncline.engine.verify.template import sql
from syncline.sqltext import literal, quoted

__all__ = ["Captured"]


class Captured:
    """FROM items whose row is `s`, with its id as `sync_row_id`.

    Expressions are evaluated for rows that were captured and not refused, and for no others: whatever a row
    was refused for would be raised again, and no row of the table could be compared.
    """

    def __init__(
        self, statements: TableStatements, images: Images, cursor: Cursor, refused: Sequence[Sequence[str]]
    ) -> None:
        """Know which keys were `refused`."""
        self._statements, self._images, self._cursor = statements, images, cursor
        self._columns = [[bytes_of(part) for part in column] for column in zip(*refused, strict=True)]
        self.parameters = (*cursor.parameters(), *self._columns)
        """What `passed` refers to, from its first parameter on."""
        self._key = [f"{quoted(column)}::text" for column in statements.table.key]

    @property
    def key(self) -> str:
        """The parts of the key of row `s`, in bytes."""
        return commas([key_bytes(f"s.{quoted(column)}") for column in self._statements.table.key])

    def passed(self, first_parameter: int) -> str:
        """Return the rows that belong in the target, as they would be staged."""
        captured = f"NOT ({self._statements.after_cursor(self._cursor, first_parameter)})"
        if self._columns:
            first = first_parameter + len(self._cursor.parameters())
            captured += " AND " + sql(
                "not_refused",
                key=commas([key_bytes(quoted(column)) for column in self._statements.table.key]),
                parameters=commas([f"${first + place}::bytea[]" for place in range(len(self._columns))]),
            )
        table = self._statements.table
        return sql(
            "passed",
            row_id=self._images.source_id,
            columns=commas(self._images.source_columns),
            source=quoted(table.source),
            captured=captured,
            present=table.present,
        )

    def coming(self, first_parameter: int) -> str:
        """Return the rows behind the cursor, by their keys alone; parameters are the cursor's."""
        table = self._statements.table
        return sql(
            "coming",
            row_id=own_id([key_uuid(f"s.{quoted(column)}") for column in table.key]),
            key=commas(
                [f"{part} AS {quoted(column)}" for part, column in zip(self._key, table.key, strict=True)]
            ),
            source=quoted(table.source),
            beyond=self._statements.after_cursor(self._cursor, first_parameter),
        )

    def deleted(self, beyond: str) -> str:
        """Return the query for the deleted keys that fit a condition: `row_id`, `key` in bytes."""
        table = self._statements.table
        row_id = own_id([key_uuid(f"d.key[{part + 1}]") for part in range(len(table.key))])
        key = commas([key_bytes(f"d.key[{part + 1}]") for part in range(len(table.key))])
        return sql("deleted", row_id=row_id, key=key, source=literal(table.source), beyond=beyond)
