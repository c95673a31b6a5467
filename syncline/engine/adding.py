"""The looks of one cycle at its write-db, as one result."""

from syncline.messages import SyncResult, TableProgress, VectorProgress

__all__ = ["add_up"]


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
