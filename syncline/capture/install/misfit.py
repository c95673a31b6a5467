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

    def __new__(
        cls,
        sentence: str,
        *,
        table: str = "",
        path: tuple[str, ...] = (),
        statement: str | None = None,
        missing: str | None = None,
    ) -> Self:
        """Return the sentence with these attributes."""
        misfit = super().__new__(cls, sentence)
        misfit.table, misfit.path, misfit.statement, misfit.missing = table, path, statement, missing
        return misfit
