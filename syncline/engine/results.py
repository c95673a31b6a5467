"""Results of a cycle: progress reported by heartbeats, and merging repeated looks into one result."""

from collections.abc import Collection, Sequence

from syncline.engine.state import RunProgress
from syncline.messages.sync import (
    CycleProgress,
    LoadRanges,
    SecondVectors,
    SyncResult,
    TableProgress,
    VectorProgress,
    Waiting,
)
from syncline.provider import SyncContext

__all__ = ["Progress", "add_up"]


class Progress:
    """What one pass of a cycle has done so far. Every change goes through here and is reported at once."""

    def __init__(self, context: SyncContext, before: "Progress | None" = None) -> None:
        """`before`: that of the pass before, in the same cycle."""
        self._heartbeat, self._log, self._graph = context.heartbeat, context.log, context.graph.slug
        self.run = RunProgress(run_id=context.run.run_id)
        """What the run has committed so far, in this pass and earlier ones."""
        self.expected: dict[str, int] = {} if before is None else before.expected
        """Expected rows of tables that need more than one batch, where counting was quick."""
        self.counted: set[str] = set() if before is None else before.counted
        """Streams of rows that were counted for that."""
        self.pace: dict[str, float] = {} if before is None else before.pace
        """Rows a second of the loads of tables, in their last turns."""
        self.lands: set[str] = set() if before is None else before.lands
        """Tables of which a lane has written rows."""
        self.refused: set[int] = set() if before is None else before.refused
        """What a first load has put off, and Postgres did not let it put back, by number."""
        self.failures: set[tuple[str, str]] = set() if before is None else before.failures
        """Table and error of each failure that was logged."""
        self.failed_anew = False
        """Whether a table failed in this pass that did not fail so before."""
        self.loading: Collection[str] = ()
        """Tables whose load goes on."""
        self.ranges: Sequence[LoadRanges] = ()
        """Loads that are read in ranges."""
        self.vectors = VectorProgress()
        self._waiting: Waiting | None = None

    def committed(self, run: RunProgress) -> None:
        """Record the progress committed with one more batch."""
        self.run = run
        self._heartbeat_progress("capture")

    def failed(self, table: str, error: str) -> None:
        """Record, and log, that a table failed, unless it did so in an earlier pass of the cycle."""
        if (table, error) not in self.failures:
            self.failures.add((table, error))
            self.failed_anew = True
            self._log.error("table failed", graph=self._graph, table=table, error=error)

    def heartbeat(self) -> None:
        """Report that the graph-db has got further, without rows."""
        self._heartbeat_progress("capture")

    def indexed(self, points: int) -> None:
        """Record how many points the vector store has confirmed."""
        self.vectors = VectorProgress(upserted=points)
        self._heartbeat_progress("vectors")

    def waits(self, waiting: Waiting | None) -> None:
        """Record which service does not answer; None once it does."""
        self._waiting = waiting
        self._heartbeat_progress("vectors")

    def _heartbeat_progress(self, phase: str) -> None:
        tables = (
            table.model_copy(update={"expected": self.expected.get(name), "loading": name in self.loading})
            for name, table in self.run.tables.items()
        )
        self._heartbeat(
            CycleProgress(
                phase=phase,
                tables=tuple(tables),
                vectors=self.vectors.upserted,
                waiting=self._waiting,
                ranges=tuple(self.ranges),
            )
        )


def add_up(before: SyncResult, last: SyncResult) -> SyncResult:
    """Merge the results of two passes: effects added, state as of the last.

    Counts committed to the graph-db already include earlier passes, through the run's progress.
    """
    known = {table.table: table for table in before.tables}
    return last.model_copy(
        update={
            "tables": tuple(_noted(known.get(table.table), table) for table in last.tables),
            "vectors": _vectors(before.vectors, last.vectors),
            "rescanned": before.rescanned or last.rescanned,
            "rescan_reason": last.rescan_reason or before.rescan_reason,
            "rewound_to": last.rewound_to or before.rewound_to,
            "rewound_rows": before.rewound_rows + last.rewound_rows,
            "map_changes": last.map_changes or before.map_changes,
            "load_notes": last.load_notes or before.load_notes,
        }
    )


def _noted(before: TableProgress | None, last: TableProgress) -> TableProgress:
    if before is None:
        return last
    return last.model_copy(
        update={"reread": last.reread or before.reread, "compared": last.compared or before.compared}
    )


def _vectors(before: VectorProgress, last: VectorProgress) -> VectorProgress:
    return last.model_copy(
        update={
            "upserted": before.upserted + last.upserted,
            "deleted": before.deleted + last.deleted,
            "embedded": before.embedded + last.embedded,
            "rebuilt": tuple(sorted({*before.rebuilt, *last.rebuilt})),
            "second": _second(before.second, last.second),
        }
    )


def _second(before: SecondVectors | None, last: SecondVectors | None) -> SecondVectors | None:
    if before is None or last is None:
        # What it owed before is of no pass that found nothing to do.
        return last or (before and before.model_copy(update={"pending": 0, "error": None}))
    return last.model_copy(
        update={
            "upserted": before.upserted + last.upserted,
            "deleted": before.deleted + last.deleted,
            "embedded": before.embedded + last.embedded,
            "rebuilt": tuple(sorted({*before.rebuilt, *last.rebuilt})),
        }
    )
