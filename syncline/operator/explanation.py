"""An explanation: where one row is in every store, and what that comes to in one sentence."""

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
    """What a row comes to, in one word."""

    IN_STEP = "in_step"
    """The graph-db has what the write-db has, or neither has it any longer."""
    PENDING = "pending"
    """A cycle will bring it, or take it away."""
    PARKED = "parked"
    """It waits for a row."""
    RETRYING = "retrying"
    """The graph-db refused it; it is tried again."""
    DEAD = "dead"
    """The graph-db refused it, and it is no longer tried."""
    GIVEN_UP = "given_up"
    """Somebody discarded it, or may have."""
    OUT_OF_STEP = "out_of_step"
    """The graph-db differs from the write-db, and nothing in the books says why."""
    UNKNOWN_KEY = "unknown_key"
    """No store has or had it."""


class InWriteDb(Message):
    """A row in the write-db, or the latest word of its end."""

    exists: bool = False
    belongs: bool = False
    """Whether the table map's condition lets it into the graph-db."""
    version: int | None = None
    """The transaction that wrote it (`sync_xid`), or that deleted it."""
    pending: bool = False
    """It lies beyond the cursor: no cycle has read this version, or that it was deleted."""
    held_back: bool = False
    """No cycle can read it yet: it, or a transaction that began before it, was not over."""
    ahead: bool = False
    """Its version is one that this cluster has yet to reach, as after a restore of a dump."""
    deleted_at: datetime | None = None
    """When the key was deleted last, if it is not there."""


class SyncedBy(Message):
    """The run that brought a row."""

    run_id: str
    workflow_id: str = ""
    attempt: int = 1
    provider: str = ""
    provider_version: str | None = None
    taken_at: datetime | None = None
    """When the run took the graph."""


class InGraphDb(Message):
    """A row in the graph-db."""

    exists: bool = False
    id: UUID | None = None
    """Its own; None if the row is known by its parents' ids."""
    version: int | None = None
    """The transaction of the write-db whose version this is (`sync_version`)."""
    behind: bool = False
    """The write-db has a newer version. If nothing that travels changed in it, it is never written here."""
    synced_by: SyncedBy | None = None


class Wait(Message):
    """A link or an optional reference of a row that waits alone."""

    name: str
    waits_for_table: str
    waits_for_key: str
    since: datetime | None = None


class ParkedSelf(Message):
    """A row that waits whole."""

    version: int = 0
    waits_for_table: str
    waits_for_key: str
    since: datetime | None = None
    released: bool = False
    """What it waited for is there; the next cycle lands it."""


class Requeued(Message):
    """A row that the next cycle reads again by its key."""

    reason: str
    queued_at: datetime | None = None


class InVectorStore(Message):
    """A row's point in the vector store."""

    collection: str
    wanted: bool = False
    """Whether the row has a text, so that it should have a point."""
    written: bool = False
    """Whether the books say that the vector store has the point."""
    current: bool = False
    """Whether it was embedded from the text that the row has now."""
    embedding: str | None = None
    """The service that embedded it."""
    point: bool | None = None
    """Whether the vector store itself has the point; None: it was not asked, or did not answer."""
    problem: str | None = None
    """Why it did not answer."""
    queued_at: datetime | None = None
    """When the point was last queued to be written or deleted; None: nothing is owed."""
    attempts: int = 0
    next_retry_at: datetime | None = None
    error: str | None = None
    """Why the point alone was refused."""
    delayed_since: datetime | None = None
    """Since when the whole collection cannot be written."""
    delay_error: str | None = None


class Explanation(Message):
    """Everything known about one row."""

    table: str
    key: tuple[str, ...]
    state: RowState = RowState.UNKNOWN_KEY
    verdict: str = ""
    """The same in one sentence."""
    write: InWriteDb = InWriteDb()
    graph: InGraphDb = InGraphDb()
    parked: ParkedSelf | None = None
    waits: tuple[Wait, ...] = ()
    """Links and optional references of the row that wait, at most `limit`."""
    waits_in_all: int = 0
    waiting_for_it: tuple[ParkedPart, ...] = ()
    """What waits for this row."""
    requeued: Requeued | None = None
    dead_letter: DeadLetter | None = None
    discarded: AuditEntry | None = None
    """The latest discard that was for this row or, being for a table, a fingerprint or all, may have been."""
    vector: InVectorStore | None = None
    """None for a table without vectors."""


def state_of(row: Explanation) -> RowState:
    """Return what the row comes to."""
    return _judge(row)[0]


def verdict(row: Explanation) -> str:
    """Return one sentence for a person: what the row comes to, then what else is to be known."""
    return "; ".join([_judge(row)[1], *_notes(row)])


def _judge(row: Explanation) -> tuple[RowState, str]:
    write, graph = row.write, row.graph
    if not write.exists:
        return _judge_absent(row)
    if write.ahead:
        return RowState.OUT_OF_STEP, (
            f"its version {write.version} is one that this write-db has yet to reach: stamp the row again"
        )
    if not write.belongs and not _anywhere(row):
        return RowState.IN_STEP, "in step: the table map's condition keeps it out of the graph-db"
    if write.pending:
        return RowState.PENDING, _pending(row)
    if row.dead_letter is not None:
        letter = row.dead_letter
        state = RowState.DEAD if letter.next_retry_at is None else RowState.RETRYING
        return state, refusal(letter.sqlstate, letter.message, letter.next_retry_at)
    if row.parked is not None:
        return _judge_parked(row.parked)
    if row.requeued is not None:
        return RowState.PENDING, f"pending: the next cycle reads it again, because {row.requeued.reason}"
    if graph.exists and not graph.behind and write.belongs:
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
    if anywhere:
        where = "in the graph-db" if graph.exists else "in the engine's books"
        return RowState.OUT_OF_STEP, f"out of step: {gone}, and still {where}"
    return RowState.IN_STEP, gone


def _anywhere(row: Explanation) -> bool:
    """Return whether the graph-db has the row, or the engine anything to do with it."""
    return row.graph.exists or any(book is not None for book in (row.parked, row.dead_letter, row.requeued))


def _judge_parked(parked: ParkedSelf) -> tuple[RowState, str]:
    awaited = row_name(parked.waits_for_table, [parked.waits_for_key])
    if parked.released:
        return RowState.PENDING, f"pending: it waited for {awaited}, which is there now"
    since = "" if parked.since is None else f" since {moment(parked.since)}"
    return RowState.PARKED, f"waits for {awaited}{since}"


def _judge_unexplained(row: Explanation) -> tuple[RowState, str]:
    """Judge a row whose version no cycle has to read any more and that the books do not mention."""
    write, graph, discarded = row.write, row.graph, row.discarded
    if not write.belongs:
        return (
            RowState.OUT_OF_STEP,
            "out of step: the table map keeps it out of the graph-db, and it is there",
        )
    given_up = None
    if discarded is not None:
        perhaps = "" if discarded.key is not None else "perhaps "
        given_up = f"{perhaps}given up by {discarded.who}, {moment(discarded.at)}: {discarded.why}"
    if graph.exists:
        unchanged = f"version {write.version} changed nothing that travels"
        if given_up is None:
            return RowState.IN_STEP, f"in step: {unchanged}"
        return RowState.GIVEN_UP, f"in step if {unchanged}; else {given_up}"
    if given_up is None:
        return RowState.OUT_OF_STEP, "out of step: not in the graph-db, and nothing in the books says why"
    return RowState.GIVEN_UP, f"not in the graph-db, {given_up}"


def _pending(row: Explanation) -> str:
    write, graph = row.write, row.graph
    what = f"version {write.version}"
    if not write.belongs:
        what += ", which the table map's condition keeps out of the graph-db,"
    had = f"; the graph-db has version {graph.version}" if graph.exists else ""
    return f"pending: {what} {_when(write)}{had}"


def _when(write: InWriteDb) -> str:
    if write.held_back:
        return "cannot be read before every transaction of the write-db that began earlier is over"
    return "is for the next cycle to read"


def _notes(row: Explanation) -> Iterator[str]:
    """Yield what matters beside the judgement."""
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


def _vector_notes(vector: InVectorStore) -> Iterator[str]:
    if vector.queued_at is not None:
        error = vector.error or vector.delay_error
        yield f"its vector is queued since {moment(vector.queued_at)}" + (f": {error}" if error else "")
    elif vector.wanted and not vector.written:
        yield "its vector is neither written nor queued"
    elif vector.written and not vector.wanted:
        yield "its point should be gone, and that is not queued"
    elif vector.wanted and not vector.current:
        yield "its vector is of an older text, and nothing is queued"
    elif vector.point is not None and vector.point != vector.written:
        yield "its point is " + ("" if vector.point else "not ") + "in the vector store, against the books"
