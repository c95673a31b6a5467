"""What a cycle has done: while it runs, told by heartbeats; and its looks at the write-db, as one result."""

from syncline.engine.state import RunProgress
from syncline.messages.sync import CycleProgress, SyncResult, TableProgress, VectorProgress
from syncline.provider import SyncContext

__all__ = ["Progress", "add_up"]


class Progress:
    """What one look of a cycle has done so far. Whatever adds to it does so here, and it is told at once."""

    def __init__(self, context: SyncContext) -> None:
        self._heartbeat = context.heartbeat
        self.run = RunProgress(run_id=context.run.run_id)
        """What the run has committed so far, in this look and in those before it."""
        self.expected: dict[str, int] = {}
        """Rows to read in all of tables that take more than one batch, where counting them was quick."""
        self.vectors = VectorProgress()

    def committed(self, run: RunProgress) -> None:
        """Take what the run has committed with one more batch."""
        self.run = run
        self._heartbeat_progress("capture")

    def indexed(self, points: int) -> None:
        """Take how many points the vector store has confirmed."""
        self.vectors = VectorProgress(upserted=points)
        self._heartbeat_progress("vectors")

    def _heartbeat_progress(self, phase: str) -> None:
        tables = (
            table.model_copy(update={"expected": self.expected.get(name)})
            for name, table in self.run.tables.items()
        )
        self._heartbeat(CycleProgress(phase=phase, tables=tuple(tables), vectors=self.vectors.upserted))


def add_up(before: SyncResult, last: SyncResult) -> SyncResult:
    """Return what two looks have done: their effects together, and how things stand as of the last.

    What was committed to the graph-db is counted through already, by the run's own progress.
    """
    known = {table.table: table for table in before.tables}
    return last.model_copy(
        update={
            "tables": tuple(_noted(known.get(table.table), table) for table in last.tables),
            "vectors": _vectors(before.vectors, last.vectors),
            "rescanned": before.rescanned or last.rescanned,
            "rescan_reason": last.rescan_reason or before.rescan_reason,
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
        }
    )
