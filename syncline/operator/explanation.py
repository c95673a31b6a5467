"""Explanation messages: the state of one row in each store, and the verdict in one sentence."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from syncline.messages.base import Message
from syncline.operator.dead_letters import AuditEntry, DeadLetter
from syncline.operator.parked import ParkedPart
from syncline.operator.schema import moment, refusal, row_name

__all__ = [
    "Explanation",
    "InGraphDb",
    "InVectorStore",
    "InWriteDb",
    "ParkedSelf",
    "Requeued",
    "RowState",
    "SyncedBy",
    "Wait",
    "state_of",
    "verdict",
]


class RowState(StrEnum):
    """Verdict on a row, in one word."""

    IN_STEP = "in_step"
    """The graph-db equals the write-db, or the row is in neither."""
    PENDING = "pending"
    """A following cycle will apply or delete it."""
    PARKED = "parked"
    """It is parked until its parent arrives."""
    RETRYING = "retrying"
    """The graph-db rejected it; it will be retried."""
    DEAD = "dead"
    """The graph-db rejected it; it is no longer retried."""
    GIVEN_UP = "given_up"
    """An operator discarded it, or may have."""
    OUT_OF_STEP = "out_of_step"
    """The graph-db differs from the write-db, and the engine state does not explain why."""
    UNKNOWN_KEY = "unknown_key"
    """No store contains or contained it."""


class InWriteDb(Message):
    """A row in the write-db, or its latest deletion."""

    exists: bool = False
    belongs: bool = False
    """Whether it satisfies the table map's condition for the graph-db."""
    version: int | None = None
    """The transaction that wrote it (`sync_xid`) or deleted it."""
    pending: bool = False
    """Beyond the cursor: no cycle has read this version or deletion yet."""
    held_back: bool = False
    """Beyond the capture horizon: its transaction, or one that began before it, was still open."""
    loading: bool = False
    """Its table's load has not come to it yet; what is written now does not wait for that."""
    ahead: bool = False
    """Its version is in the future of this cluster, as after a restore of a dump."""
    deleted_at: datetime | None = None
    """When the key was last deleted, if it does not exist."""


class SyncedBy(Message):
    """The run that applied a row."""

    run_id: str
    workflow_id: str = ""
    attempt: int = 1
    provider: str = ""
    provider_version: str | None = None
    taken_at: datetime | None = None
    """When the run acquired the graph's lock."""


class InGraphDb(Message):
    """A row in the graph-db."""

    exists: bool = False
    id: UUID | None = None
    """The row's id; null if it is no uuid, or the row is identified by several columns."""
    version: int | None = None
    """The write-db transaction of this version (`sync_version`); null if the target does not keep it."""
    behind: bool = False
    """The write-db has a newer version. It is never written here if it changed no replicated column."""
    synced_by: SyncedBy | None = None
    marked_since: datetime | None = None
    """Since when it stays here, marked, although it has left the write-db (`marked` of the table map)."""
    stub_since: datetime | None = None
    """Since when it stands here for a row that has never come from the write-db (`stub` of a reference)."""


class Wait(Message):
    """A parked link or optional reference of an applied row."""

    name: str
    waits_for_table: str
    waits_for_key: str
    since: datetime | None = None


class ParkedSelf(Message):
    """A row that is parked completely."""

    version: int = 0
    waits_for_table: str
    waits_for_key: str
    since: datetime | None = None
    released: bool = False
    """Its parent has arrived; the next cycle applies it."""


class Requeued(Message):
    """A row queued to be read again by its key in the next cycle."""

    reason: str
    queued_at: datetime | None = None


class InVectorStore(Message):
    """A row's point in the vector store."""

    collection: str
    wanted: bool = False
    """Whether the row has a text, and therefore should have a point."""
    written: bool = False
    """Whether the point was written, by the engine state."""
    current: bool = False
    """Whether it was embedded from the row's current text."""
    embedding: str | None = None
    """The embedding service of its vector."""
    point: bool | None = None
    """Whether the vector store contains the point; null: not queried, or no answer."""
    problem: str | None = None
    """Why the vector store did not answer."""
    queued_at: datetime | None = None
    """When the point was last queued in the outbox; null: nothing is pending."""
    attempts: int = 0
    next_retry_at: datetime | None = None
    error: str | None = None
    """Why this point was rejected individually."""
    delayed_since: datetime | None = None
    """Since when the collection as a whole cannot be written."""
    delay_error: str | None = None


class Explanation(Message):
    """State of one row in all stores."""

    table: str
    key: tuple[str, ...]
    state: RowState = RowState.UNKNOWN_KEY
    verdict: str = ""
    """The verdict in one sentence."""
    write: InWriteDb = InWriteDb()
    graph: InGraphDb = InGraphDb()
    parked: ParkedSelf | None = None
    waits: tuple[Wait, ...] = ()
    """Parked links and optional references of the row, at most `limit`."""
    waits_in_all: int = 0
    waiting_for_it: tuple[ParkedPart, ...] = ()
    """Parked rows, links and references that wait for this row."""
    requeued: Requeued | None = None
    dead_letter: DeadLetter | None = None
    discarded: AuditEntry | None = None
    """The latest discard of this row, or of a table, a fingerprint or all that may have included it."""
    vector: InVectorStore | None = None
    """Null for a table without vectors."""
    second: InVectorStore | None = None
    """Its point of the model that the graph changes to; null without one."""


def state_of(row: Explanation) -> RowState:
    """Return the state of the row in one word."""
    return _judge(row)[0]


def verdict(row: Explanation) -> str:
    """Return the verdict as one sentence for operators, with further notes."""
    return "; ".join([_judge(row)[1], *_notes(row)])


def _judge(row: Explanation) -> tuple[RowState, str]:
    write, graph = row.write, row.graph
    if not write.exists:
        return _judge_absent(row)
    if write.ahead:
        return RowState.OUT_OF_STEP, (
            f"its version {write.version} is in the future of this write-db: update the row to stamp it again"
        )
    if not write.belongs and not _anywhere(row):
        return RowState.IN_STEP, "in step: the table map's condition keeps it out of the graph-db"
    if write.pending:
        return RowState.PENDING, _pending(row)
    if not write.belongs and graph.marked_since is not None:
        excluded = "the table map's condition keeps it out of the graph-db"
        return RowState.IN_STEP, f"in step: {excluded}, where it stays, marked {moment(graph.marked_since)}"
    if row.dead_letter is not None:
        letter = row.dead_letter
        state = RowState.DEAD if letter.next_retry_at is None else RowState.RETRYING
        return state, refusal(letter.sqlstate, letter.message, letter.next_retry_at)
    if row.parked is not None:
        return _judge_parked(row.parked)
    if row.requeued is not None:
        return RowState.PENDING, f"pending: the next cycle reads it again, because {row.requeued.reason}"
    known = graph.version is not None or row.discarded is None
    if graph.exists and not graph.behind and write.belongs and known:
        return RowState.IN_STEP, "in step"
    return _judge_unexplained(row)


def _judge_absent(row: Explanation) -> tuple[RowState, str]:
    write, graph = row.write, row.graph
    anywhere = _anywhere(row)
    if write.deleted_at is None and not anywhere:
        return RowState.UNKNOWN_KEY, "unknown key: no store has or had it"
    gone = "not in the write-db" + (f", deleted {moment(write.deleted_at)}" if write.deleted_at else "")
    if write.pending and anywhere:
        return RowState.PENDING, f"pending: {gone}; that {_when(write)}"
    if row.requeued is not None:
        return RowState.PENDING, f"pending: {gone}; the next cycle asks again, because {row.requeued.reason}"
    if graph.marked_since is not None:
        return RowState.IN_STEP, f"in step: {gone}, and it stays, marked {moment(graph.marked_since)}"
    if graph.stub_since is not None:
        return (
            RowState.IN_STEP,
            f"in step: {gone}, a stub since {moment(graph.stub_since)} for what refers to it",
        )
    if anywhere:
        where = "in the graph-db" if graph.exists else "in the engine state"
        return RowState.OUT_OF_STEP, f"out of step: {gone}, and still {where}"
    return RowState.IN_STEP, gone


def _anywhere(row: Explanation) -> bool:
    """Return whether the graph-db contains the row, or the engine state mentions it."""
    return row.graph.exists or any(book is not None for book in (row.parked, row.dead_letter, row.requeued))


def _judge_parked(parked: ParkedSelf) -> tuple[RowState, str]:
    awaited = row_name(parked.waits_for_table, [parked.waits_for_key])
    if parked.released:
        return RowState.PENDING, f"pending: it waited for {awaited}, which is there now"
    since = "" if parked.since is None else f" since {moment(parked.since)}"
    return RowState.PARKED, f"waits for {awaited}{since}"


def _judge_unexplained(row: Explanation) -> tuple[RowState, str]:
    """Judge a row whose version has been read, and which the engine state does not mention."""
    write, graph, discarded = row.write, row.graph, row.discarded
    if not write.belongs:
        return (
            RowState.OUT_OF_STEP,
            "out of step: it is in the graph-db, although the table map's condition excludes it",
        )
    given_up = None
    if discarded is not None:
        perhaps = "" if discarded.key is not None else "perhaps "
        given_up = f"{perhaps}given up by {discarded.who}, {moment(discarded.at)}: {discarded.why}"
    if graph.exists:
        unchanged = f"version {write.version} changed no replicated column"
        if given_up is None:
            return RowState.IN_STEP, f"in step: {unchanged}"
        return RowState.GIVEN_UP, f"in step if {unchanged}; else {given_up}"
    if given_up is None:
        return RowState.OUT_OF_STEP, "out of step: not in the graph-db, and the engine state does not say why"
    return RowState.GIVEN_UP, f"not in the graph-db, {given_up}"


def _pending(row: Explanation) -> str:
    write, graph = row.write, row.graph
    what = f"version {write.version}"
    if not write.belongs:
        what += ", which the table map's condition keeps out of the graph-db,"
    had = f"; the graph-db has version {graph.version}" if graph.version is not None else ""
    return f"pending: {what} {_when(write)}{had}"


def _when(write: InWriteDb) -> str:
    if write.held_back:
        return "cannot be read until all earlier transactions of the write-db have ended"
    if write.loading:
        return "will be read by the table's load, which goes on"
    return "will be read by the next cycle"


def _notes(row: Explanation) -> Iterator[str]:
    """Yield further facts next to the verdict."""
    if row.write.pending and row.dead_letter is not None:
        letter = row.dead_letter
        told = refusal(letter.sqlstate, letter.message, letter.next_retry_at)
        yield f"its version {letter.version} is {told}"
    if row.write.pending and row.parked is not None and not row.parked.released:
        awaited = row_name(row.parked.waits_for_table, [row.parked.waits_for_key])
        yield f"its version {row.parked.version} waits for {awaited}"
    if row.waits:
        first = row.waits[0]
        more = f" and {row.waits_in_all - 1} more" if row.waits_in_all > 1 else ""
        yield f"its {first.name} waits for {row_name(first.waits_for_table, [first.waits_for_key])}{more}"
    if row.waiting_for_it:
        parts = ", ".join(
            f"{part.waiting} of {part.table}{f' ({part.name})' if part.name else ''}"
            for part in row.waiting_for_it
        )
        yield f"{parts} wait for it"
    if row.vector is not None:
        yield from _vector_notes(row.vector)
    if row.second is not None:
        yield from _vector_notes(row.second, which="second ")


def _vector_notes(vector: InVectorStore, which: str = "") -> Iterator[str]:
    if vector.queued_at is not None:
        error = vector.error or vector.delay_error
        yield f"its {which}vector is queued since {moment(vector.queued_at)}" + (
            f": {error}" if error else ""
        )
    elif vector.wanted and not vector.written:
        yield f"its {which}vector is neither written nor queued"
    elif vector.written and not vector.wanted:
        yield f"its {which}point should be gone, and that is not queued"
    elif vector.wanted and not vector.current:
        yield f"its {which}vector is that of an older text, and nothing is queued"
    elif vector.point is not None and vector.point != vector.written:
        is_in = "is" if vector.point else "is not"
        yield f"its {which}point {is_in} in the vector store, unlike the engine state"
