"""Misfits: sentences about tables that do not fit a map, each with what mends it."""

from typing import Self

__all__ = ["Misfit"]


class Misfit(str):
    """A sentence about what does not fit; where it is read as a text it is the sentence."""

    table: str
    """The table map at fault; empty if it is none."""
    path: tuple[str, ...]
    """The key of the table map that leads to it; empty for the table itself."""
    statement: str | None
    """The SQL that mends it in the database where it was found, if there is such a statement."""
    missing: str | None
    """The table that is missing in the graph-db; None if it is something else."""
    relation: str | None
    """The table with `column`."""
    column: str | None
    """The column that is missing or of another type; None if it is something else."""

    def __new__(
        cls,
        sentence: str,
        *,
        table: str = "",
        path: tuple[str, ...] = (),
        statement: str | None = None,
        missing: str | None = None,
        relation: str | None = None,
        column: str | None = None,
    ) -> Self:
        """Return the sentence with these attributes."""
        misfit = super().__new__(cls, sentence)
        misfit.table, misfit.path, misfit.statement = table, path, statement
        misfit.missing, misfit.relation, misfit.column = missing, relation, column
        return misfit

    def said(self, sentence: str, *, statement: str | None = None) -> "Misfit":
        """Return it in other words, with another statement."""
        return Misfit(
            sentence,
            table=self.table,
            path=self.path,
            statement=statement,
            missing=self.missing,
            relation=self.relation,
            column=self.column,
        )
