"""Suspects: rows that failed alone, and may be to blame themselves or may show the table's trouble."""

from syncline.engine.refusal import DeadLetter
from syncline.errors import StoreError

__all__ = ["NoNeighbour", "Suspects", "TableStands"]

_SUSPECTS = 8
"""So many rows, one behind the other, that each fail alone are the table's trouble."""
_BATCHES_IN_VAIN = 20
"""Batches behind such rows that are read in search of one which lands."""


class NoNeighbour(Exception):
    """A batch behind suspects holds nothing that tells their trouble from the table's."""


class TableStands(Exception):
    """Rows that failed alone are for all that is known the table's trouble."""

    def __init__(self, error: StoreError) -> None:
        self.error = error


class Suspects:
    """Rows of a table that failed alone with what may be the table's trouble, until one beside them lands."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.convicted = False
        """Whether a row of the table landed in this cycle: what fails alone is to blame itself."""
        self._errors: list[StoreError] = []
        self._waited = 0

    def add(self, error: StoreError) -> None:
        """Add why one more failed; raise TableStands if so many in a row cannot be the rows' trouble."""
        self._errors.append(error)
        if len(self._errors) >= _SUSPECTS:
            raise self.verdict()

    def verdict(self) -> TableStands:
        """Return what to raise if no row beside them lands."""
        return TableStands(self._errors[0])

    def waited_long(self) -> bool:
        """Count one more batch that said nothing, and return whether there is no sense in going on."""
        self._waited += 1
        return self._waited >= _BATCHES_IN_VAIN

    def landed(self, rows: int) -> None:
        """A batch was committed, and the suspects are among the dead letters with it."""
        self.convicted |= rows > 0
        self.letters, self._errors, self._waited = [], [], 0
