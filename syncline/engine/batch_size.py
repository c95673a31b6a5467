"""Batch size: adapts the rows of the next batch to failures and successes of earlier ones."""

__all__ = ["BatchSize"]

_CLEAN = 8
"""Batches that must succeed below a limit before larger ones are tried."""


class BatchSize:
    """Halves after a failed batch, down to a single row, and grows again after successful ones.

    After a row's failure it doubles back to the full size, since that row is done. After a limit the size
    that succeeded is kept for the table's later batches, in this cycle and the next, and grows only after
    several of them.
    """

    def __init__(self, full: int, *, known: dict[str, int] | None = None, name: str = "") -> None:
        """Start with `full` rows, or with the size stored in `known` under `name`."""
        self._known, self._name = {} if known is None else known, name
        self._most = full
        self.full = min(full, self._known.get(name, full))
        self.rows = self.full
        self._clean = 0
        self._tries = 0

    def failed(self, *, struck: bool, staged: int | None = None) -> None:
        """Halve the rows requested, or `staged`. `struck`: the batch hit a limit, with too many rows."""
        self.rows = max(1, min(self.rows, staged or self.rows) // 2)
        self._clean = 0
        if struck:
            self._below(self.rows)

    def alone(self) -> None:
        """Take single rows until one succeeds."""
        self.rows = 1

    def once_more(self, tries: int) -> bool:
        """Count a try of a single row; return whether to try again, up to `tries` in all."""
        self._tries = (self._tries + 1) % tries
        return self._tries > 0

    def blame_the_row(self) -> None:
        """Forget the limit: a single row failed."""
        self._tries = 0
        self._below(self._most)

    def passed(self) -> None:
        """Grow again after a success, if the size was reduced."""
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
