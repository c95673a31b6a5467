"""Dead letters: list, summarize, retry and discard the rows that a graph-db rejected.

The engine records a rejected row, retries it at growing intervals, and marks it dead after the last retry.
All functions use the engine state in the graph-db, and are safe while a cycle runs.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID

from pydantic import ValidationInfo, field_validator, model_validator

from syncline.control.audit import Actor
from syncline.engine.keys import readings, row_uuid
from syncline.errors import InputInvalid
from syncline.masking import FROM_CODE, masked_message
from syncline.messages.base import Message
from syncline.operator.schema import acting, checked_limit, first_page, place_after, reading, sql
from syncline.provider import GraphSchema
from syncline.quoting import counted
from syncline.sql import literal

__all__ = [
    "AuditEntry",
    "AuditPage",
    "DeadLetter",
    "DeadLetterPage",
    "DeadLetterState",
    "FailureGroup",
    "FailureSummary",
    "Selection",
    "discard",
    "list_audit",
    "list_dead_letters",
    "retry",
    "show",
    "summarize",
]


class DeadLetterState(StrEnum):
    """Whether a rejected row is retried automatically."""

    RETRYING = "retrying"
    DEAD = "dead"
    """Only if an operator requests it, or the row changes."""


def _without_values(message: str, info: ValidationInfo) -> str:
    """Return a store's message without row values, which must not enter run histories."""
    return masked_message(info.data.get("sqlstate", ""), message)


class DeadLetter(Message):
    """One row version that the graph-db rejected."""

    table: str
    key: tuple[str, ...]
    state: DeadLetterState = DeadLetterState.RETRYING
    version: int = 0
    """The transaction of the write-db that wrote it (`sync_xid`)."""
    sqlstate: str = ""
    message: str = ""
    """Message of Postgres without row values; a trigger's message is left out completely."""
    constraint: str | None = None
    fingerprint: str = ""
    """Equal for errors that differ only in row values."""
    attempts: int = 0
    """Rejections since the version was read, or since an operator requested a retry."""
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    next_retry_at: datetime | None = None
    """The first cycle after this time retries it; null: dead."""
    run_id: str | None = None
    """The run of the last rejection."""

    _no_values = field_validator("message")(_without_values)


class DeadLetterPage(Message):
    """One page of dead letters, ordered by table and row id."""

    letters: tuple[DeadLetter, ...] = ()
    next: str | None = None
    """Value of `after` for the following page; null on the last page."""


class FailureGroup(Message):
    """Dead letters of one table with the same cause and state."""

    table: str
    fingerprint: str
    sqlstate: str = ""
    constraint: str | None = None
    state: DeadLetterState = DeadLetterState.RETRYING
    rows: int = 0
    oldest: datetime | None = None
    """Earliest first rejection in the group."""
    newest: datetime | None = None
    """Latest rejection in the group."""
    next_retry_at: datetime | None = None
    example_key: tuple[str, ...] = ()
    example_message: str = ""

    _no_values = field_validator("example_message")(_without_values)


class FailureSummary(Message):
    """A graph's dead letters grouped by cause, most rows first."""

    rows: int = 0
    dead: int = 0
    """How many of them are no longer retried."""
    groups: tuple[FailureGroup, ...] = ()
    left_off: int = 0
    """Number of groups beyond the page."""

    @property
    def outcome(self) -> str:
        """The counts in one line."""
        return f"{counted(self.rows, 'rejected row')}, {self.dead:,} of them dead"


class Selection(Message):
    """Selects dead letters in exactly one way: a row, a table, a fingerprint, or all.

    Raises InputInvalid for none or several of them.
    """

    table: str | None = None
    key: tuple[str, ...] | None = None
    """Key of one row of `table`."""
    fingerprint: str | None = None
    everything: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if [self.table is not None, self.fingerprint is not None, self.everything].count(True) != 1:
            raise InputInvalid("Select dead letters by one table, one fingerprint, or all of them.")
        if self.key is not None and (self.table is None or not self.key):
            raise InputInvalid("`key` needs `table`: name the table, and every part of the key.")
        return self


class AuditEntry(Message):
    """One audited action of an operator on dead letters."""

    number: int
    at: datetime
    who: str
    action: str
    why: str
    table: str | None = None
    key: tuple[str, ...] | None = None
    fingerprint: str | None = None
    """Without `table`, `key` and `fingerprint`: all dead letters of the graph."""
    rows: int = 0
    run_id: str | None = None
    """The Temporal run that performed it; null: none."""
    starter: str | None = None
    """Who started that run, by Temporal; `who` is the name given in its input."""


class AuditPage(Message):
    """One page of the audit, newest first."""

    entries: tuple[AuditEntry, ...] = ()
    next: int | None = None
    """Value of `before` for the following page; null on the last page."""


async def list_dead_letters(
    target: GraphSchema,
    *,
    table: str | None = None,
    fingerprint: str | None = None,
    state: DeadLetterState | None = None,
    limit: int = 100,
    after: str | None = None,
) -> DeadLetterPage:
    """Return one page of the dead letters that match all filters.

    `after` is the `next` of the previous page. Concurrent changes neither hide nor repeat other entries.
    """
    limit = checked_limit(limit)
    after_table, after_row = place_after(after)
    async with reading(target) as connection:
        letters_of = sql("dead_letters", from_code=literal(FROM_CODE))
        rows = await connection.fetch(
            letters_of, table, fingerprint, state, after_table, after_row, limit + 1
        )
    letters = first_page((DeadLetter.model_validate(dict(row)) for row in rows), limit)
    last = rows[len(letters) - 1] if letters else None
    more = f"{last['table']}/{last['row_id']}" if last is not None and len(rows) > len(letters) else None
    return DeadLetterPage(letters=letters, next=more)


async def summarize(
    target: GraphSchema, *, table: str | None = None, state: DeadLetterState | None = None, limit: int = 100
) -> FailureSummary:
    """Return the dead letters grouped by table, fingerprint and state, the largest groups first."""
    limit = checked_limit(limit)
    async with reading(target) as connection:
        rows = await connection.fetch(
            sql("dead_letter_groups", from_code=literal(FROM_CODE)), table, state, limit
        )
    if not rows:
        return FailureSummary()
    groups = first_page((FailureGroup.model_validate(dict(row)) for row in rows), limit)
    return FailureSummary(
        rows=rows[0]["all_rows"],
        dead=rows[0]["all_dead"],
        groups=groups,
        left_off=rows[0]["all_groups"] - len(groups),
    )


async def show(target: GraphSchema, table: str, key: Sequence[str]) -> DeadLetter | None:
    """Return the dead letter of one row, or None if it has none."""
    async with reading(target) as connection:
        row = await connection.fetchrow(sql("dead_letter", from_code=literal(FROM_CODE)), table, _ids(key))
    return None if row is None else DeadLetter.model_validate(dict(row))


async def retry(target: GraphSchema, selection: Selection, *, by: Actor) -> int:
    """Mark the rows for a retry in the next cycle, with their attempts reset; return how many.

    Audited in the same transaction. Idempotent per run: a repeated call returns the number of the first.
    Raise InputInvalid if the actor's name or reason is blank.
    """
    return await _act(target, "retry", selection, by)


async def discard(target: GraphSchema, selection: Selection, *, by: Actor) -> int:
    """Discard the rejected versions of the rows: they are never retried; return how many.

    A newer version of a row is applied as usual. An older version in the graph-db stays there. A row that a
    running cycle is retrying may be rejected once more, and is then a dead letter again. Audited, idempotent
    and raising like `retry`.
    """
    return await _act(target, "discard", selection, by)


async def list_audit(target: GraphSchema, *, limit: int = 100, before: int | None = None) -> AuditPage:
    """Return a page of the audit, newest first; `before` is the `next` of the previous page."""
    limit = checked_limit(limit)
    async with reading(target) as connection:
        rows = await connection.fetch(sql("audit"), before, limit + 1)
    entries = first_page((AuditEntry.model_validate(dict(row)) for row in rows), limit)
    return AuditPage(entries=entries, next=entries[-1].number if len(rows) > len(entries) else None)


def _ids(key: Sequence[str]) -> list[UUID]:
    """Return the possible row ids of a key given as text: two if it may be of another type than text."""
    return [row_uuid(reading) for reading in readings(key)]


async def _act(target: GraphSchema, action: str, selection: Selection, by: Actor) -> int:
    by = by.required(f"{action} dead letters")
    key, ids = (None, None) if selection.key is None else (list(selection.key), _ids(selection.key))
    async with acting(target) as connection:
        # Before locking any row: so this waits for a batch that has some of them, or for an earlier attempt
        # of the same run, without blocking it.
        await connection.execute("LOCK TABLE sync_dead_letter IN SHARE ROW EXCLUSIVE MODE")
        rows: int | None = await connection.fetchval(sql("audited"), by.run_id, action)
        if rows is None:
            rows = await connection.fetchval(
                sql(action),
                selection.table,
                key,
                selection.fingerprint,
                by.who,
                by.why,
                by.run_id,
                ids,
                by.starter,
            )
    return rows or 0
