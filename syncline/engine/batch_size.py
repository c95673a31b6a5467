"""Batch size: how many rows the next batch takes, after what became of those before."""

__all__ = ["BatchSize"]

_CLEAN = 8
"""Batches that have to pass below a limit before larger ones are tried."""


class BatchSize:
    """Halves after a batch that failed, down to a single row, and grows again after those that passed.

    After a row's failure it doubles until it is as it was, for the row is behind. A limit is still there:
    what passed below it holds for the further batches of the table, of this cycle and of later ones, and
    grows only after some of them.
    """

    def __init__(self, full: int, *, known: dict[str, int] | None = None, name: str = "") -> None:
        """Begin with `full` rows, or with what `known` has for `name`, where it is kept."""
        self._known, self._name = {} if known is None else known, name
        self._most = full
        self.full = min(full, self._known.get(name, full))
        self.rows = self.full
        self._clean = 0
        self._tries = 0

    def failed(self, *, struck: bool, staged: int | None = None) -> None:
        """Take half as many rows as asked for, or `staged`; `struck`: for a limit they were too many."""
        self.rows = max(1, min(self.rows, staged or self.rows) // 2)
        self._clean = 0
        if struck:
            self._below(self.rows)

    def alone(self) -> None:
        """Take single rows until one passes."""
        self.rows = 1

    def once_more(self, tries: int) -> bool:
        """Count one try of a single row, and return whether it should have another, of so many in all."""
        self._tries = (self._tries + 1) % tries
        return self._tries > 0

    def blame_the_row(self) -> None:
        """Forget the limit: it was a single row that failed."""
        self._tries = 0
        self._below(self._most)

    def passed(self) -> None:
        """Take more rows, if fewer were taken for a failure."""
        self._tries = 0
        if self.rows < self.full:
            self.rows = min(self.full, self.rows * 2)
            return
        self._clean += 1
        if self.full < self._most and self._clean >= _CLEAN:
            self._clean = 0
            self._below(min(self._most, self.full * 2))
            self.rows = self.full

    def _below(self, rows: int) -> None:
        self.full = rows
        if rows < self._most:
            self._known[self._name] = rows
        else:
            self._known.pop(self._name, None)
