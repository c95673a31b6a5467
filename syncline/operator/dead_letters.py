"""Dead letters: the rows that a graph-db refused, and what people do about them.

The engine buries a row that is refused, tries it again in growing intervals, and calls it dead after the last
try. Everything here is by the engine's books in the graph-db; a cycle may run meanwhile.
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
    """Whether a refused row is tried again by itself."""

    RETRYING = "retrying"
    DEAD = "dead"
    """Not until somebody asks for it, or the row changes."""


def _without_values(message: str, info: ValidationInfo) -> str:
    """Return what may go into run histories, where rows never are, of what a store said."""
    return masked_message(info.data.get("sqlstate", ""), message)


class DeadLetter(Message):
    """One row version that the graph-db refused."""

    table: str
    key: tuple[str, ...]
    state: DeadLetterState = DeadLetterState.RETRYING
    version: int = 0
    """The transaction of the write-db that wrote it (`sync_xid`)."""
    sqlstate: str = ""
    message: str = ""
    """Postgres's own; values of the row are left out, and what a trigger says as a whole."""
    constraint: str | None = None
    fingerprint: str = ""
    """Equal for errors that differ in the rows' values alone."""
    attempts: int = 0
    """Tries that were refused since the version came, or since somebody asked for a retry."""
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    next_retry_at: datetime | None = None
    """The first cycle after it tries again; None: dead."""
    run_id: str | None = None
    """The run that was refused last."""

    _no_values = field_validator("message")(_without_values)


class DeadLetterPage(Message):
    """Dead letters in order of table and row id."""

    letters: tuple[DeadLetter, ...] = ()
    next: str | None = None
    """What to give as `after` for the following page; None when this is the last one."""


class FailureGroup(Message):
    """The dead letters of one table that have one cause and one state."""

    table: str
    fingerprint: str
    sqlstate: str = ""
    constraint: str | None = None
    state: DeadLetterState = DeadLetterState.RETRYING
    rows: int = 0
    oldest: datetime | None = None
    """When the first of them failed for the first time."""
    newest: datetime | None = None
    """When one of them failed last."""
    next_retry_at: datetime | None = None
    example_key: tuple[str, ...] = ()
    example_message: str = ""

    _no_values = field_validator("example_message")(_without_values)


class FailureSummary(Message):
    """What a graph's dead letters have in common, most rows first."""

    rows: int = 0
    dead: int = 0
    """How many of them are no longer tried."""
    groups: tuple[FailureGroup, ...] = ()
    left_off: int = 0
    """Groups beyond the page."""


class Selection(Message):
    """Which dead letters an action is for, in exactly one way: a row, a table, a fingerprint, or all.

    Raise InputInvalid if it names none of them, or several.
    """

    table: str | None = None
    key: tuple[str, ...] | None = None
    """With `table`: one row."""
    fingerprint: str | None = None
    everything: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if [self.table is not None, self.fingerprint is not None, self.everything].count(True) != 1:
            raise InputInvalid("Say which dead letters: one table, one fingerprint, or all of them.")
        if self.key is not None and (self.table is None or not self.key):
            raise InputInvalid("A key selects a row of a table: name the table and every part of the key.")
        return self


class AuditEntry(Message):
    """What somebody did by hand."""

    number: int
    at: datetime
    who: str
    action: str
    why: str
    table: str | None = None
    key: tuple[str, ...] | None = None
    fingerprint: str | None = None
    """Without table, key and fingerprint: all of the graph."""
    rows: int = 0
    run_id: str | None = None
    """The Temporal run that did it for them; None: none."""
    starter: str | None = None
    """Who has started that run, as Temporal has it; `who` is whom its input says."""


class AuditPage(Message):
    """The audit, newest first."""

    entries: tuple[AuditEntry, ...] = ()
    next: int | None = None
    """What to give as `before` for the following page; None when this is the last one."""


async def list_dead_letters(
    target: GraphSchema,
    *,
    table: str | None = None,
    fingerprint: str | None = None,
    state: DeadLetterState | None = None,
    limit: int = 100,
    after: str | None = None,
) -> DeadLetterPage:
    """Return one page of the dead letters that fit everything given.

    `after` is the `next` of the page before. What comes or goes meanwhile hides and repeats nothing else.
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
    """Have the next cycle try the rows again, with all their tries before them; return how many.

    Audited in the same transaction. What was done and audited for the same run already is not done again: the
    number of then is returned. Raise InputInvalid if who does it, or why, is blank.
    """
    return await _act(target, "retry", selection, by)


async def discard(target: GraphSchema, selection: Selection, *, by: Actor) -> int:
    """Give up the refused versions of the rows: nothing tries them again; return how many.

    A newer version of a row is tried as any other. A version that the graph-db had before stays there. A row
    that a running cycle is trying at this moment may be refused once more, and is then a dead letter again.
    Audited as a retry is. Raise InputInvalid if who does it, or why, is blank.
    """
    return await _act(target, "discard", selection, by)


async def list_audit(target: GraphSchema, *, limit: int = 100, before: int | None = None) -> AuditPage:
    """Return what people did by hand, newest first; `before` is the `next` of the page before."""
    limit = checked_limit(limit)
    async with reading(target) as connection:
        rows = await connection.fetch(sql("audit"), before, limit + 1)
    entries = first_page((AuditEntry.model_validate(dict(row)) for row in rows), limit)
    return AuditPage(entries=entries, next=entries[-1].number if len(rows) > len(entries) else None)


def _ids(key: Sequence[str]) -> list[UUID]:
    """Return the ids of the rows whose keys are presented so: two, if it can be one that is no text."""
    return [row_uuid(reading) for reading in readings(key)]


async def _act(target: GraphSchema, action: str, selection: Selection, by: Actor) -> int:
    who, why = by.who.strip(), by.why.strip()
    if not who or not why:
        raise InputInvalid(f"To {action} dead letters, say who you are and why: both are kept in the audit.")
    key, ids = (None, None) if selection.key is None else (list(selection.key), _ids(selection.key))
    async with acting(target) as connection:
        # Before any row is locked: a batch that has some of them is waited for with nothing in its way. So is
        # an earlier attempt of the same run.
        await connection.execute("LOCK TABLE sync_dead_letter IN SHARE ROW EXCLUSIVE MODE")
        rows: int | None = await connection.fetchval(sql("audited"), by.run_id, action)
        if rows is None:
            rows = await connection.fetchval(
                sql(action), selection.table, key, selection.fingerprint, who, why, by.run_id, ids, by.starter
            )
    return rows or 0
