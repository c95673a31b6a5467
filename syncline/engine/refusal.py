"""Refusal: finding the rows of a batch that the graph-db refuses, and putting them among the dead letters."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from syncline.engine.fingerprint import fingerprint, without_values
from syncline.engine.keys import presented, row_uuid
from syncline.engine.merging import Ranged
from syncline.engine.statements import TableStatements
from syncline.engine.template import sql
from syncline.errors import StoreRejected
from syncline.provider import RetryRules
from syncline.stores.postgres import map_driver_error, postgres_error

__all__ = ["DeadLetter", "bury", "refusal_of", "refuses_a_row", "settle"]

_OF_A_ROW = ("09", "21", "22", "23", "27", "38", "39", "44", "54", "P0")
"""SQLSTATE classes by which Postgres, its constraints and triggers refuse values (PostgreSQL, appendix A)."""
_TOO_MANY = 10_000
"""Refused rows of one batch from which on it is the table that is wrong, and the batch waits as it is."""

Tid = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Refused:
    """A row of the stage that the graph-db refuses, and its words."""

    tid: Tid
    sqlstate: str
    message: str
    constraint: str | None


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A version of a row that was refused."""

    key: tuple[str, ...]
    """Its parts may be no text (`syncline.engine.keys`): the books have them in hex then."""
    version: int
    sqlstate: str
    message: str
    constraint: str | None = None
    row_id: UUID | None = None
    """The row's id in the books; None if it follows from the key."""


def refuses_a_row(error: StoreRejected) -> bool:
    """Return whether the store refused values, which other rows need not have, or else the statement."""
    return error.sqlstate is not None and error.sqlstate.startswith(_OF_A_ROW)


def refusal_of(store: str, error: asyncpg.PostgresError) -> StoreRejected | None:
    """Return our error for the driver's if the store refused a row by it, else None."""
    mapped = map_driver_error(store, error)
    return mapped if isinstance(mapped, StoreRejected) and refuses_a_row(mapped) else None


async def settle(
    target: asyncpg.Connection,
    table: TableStatements,
    statement: Ranged,
    store: str,
    *,
    first: Sequence[str] = (),
) -> tuple[int, list[DeadLetter], bool]:
    """Run a statement over the stage; return its count, the rows that it refuses, whether it ran in parts.

    Refused rows are taken out of the stage. Before a stage that is refused as a whole is tried in parts, the
    statements `first` prepare it. Runs inside the caller's transaction. Raise StoreRejected if it is not
    single rows that are refused, StoreUnavailable if a retry of the whole can help.
    """
    try:
        async with target.transaction():
            return await target.fetchval(statement.whole), [], False
    except asyncpg.PostgresError as error:
        if refusal_of(store, error) is None:
            raise
    for prepare in first:
        await target.execute(prepare)
    count, refused = await _in_parts(target, table, statement.part, store)
    return count, await _take_out(target, table, refused), True


async def _in_parts(
    target: asyncpg.Connection, table: TableStatements, part: str, store: str
) -> tuple[int, list[_Refused]]:
    """Run the statement over ever other parts of the stage until only refused rows are left out.

    What is accepted stays. A part that is refused is halved until its first offender stands alone; the next
    part is as long as the offenders so far let expect to be clean. That is about log2(rows per offender) + 2
    statements for each (generalized binary splitting, Hwang 1972), and most rows are written once.
    """
    tids: list[Tid] = [row["ctid"] for row in await target.fetch(table.staged_tids)]
    refused: list[_Refused] = []
    count = 0

    async def attempt(begin: int, end: int) -> _Refused | None:
        nonlocal count
        row = await target.fetchrow(
            "SELECT * FROM syncline.attempt($1, $2, $3)", part, tids[begin], tids[end - 1]
        )
        if row["state"] is None:
            count += row["changed"]
            return None
        problem = postgres_error(store, row["state"], row["message"])
        if not isinstance(problem, StoreRejected) or not refuses_a_row(problem):
            raise problem
        return _Refused(
            tid=tids[begin],
            sqlstate=row["state"],
            message=row["message"],
            constraint=row["constraint_name"] or None,
        )

    begin, length = 0, len(tids)
    while begin < len(tids):
        length = min(length, len(tids) - begin)
        offender = await attempt(begin, begin + length)
        if offender is None:
            begin, length = begin + length, length * 2
            continue
        alone = length == 1
        while length > 1:
            half = length // 2
            if await attempt(begin, begin + half) is None:
                begin, length = begin + half, length - half
            else:
                length = half
            alone = False
        # Alone it says what is wrong with it; or that it was refused for the company it was in.
        if not alone:
            offender = await attempt(begin, begin + 1)
        begin += 1
        if offender is not None:
            refused.append(offender)
            if len(refused) > _TOO_MANY:
                raise StoreRejected(
                    store,
                    f"more than {_TOO_MANY:,} rows of one batch were refused, the last with "
                    f"[{offender.sqlstate}] {without_values(offender.message)}. "
                    "It looks like the table, not the rows; nothing of the batch was written.",
                    sqlstate=offender.sqlstate,
                )
        length = max(1, int(0.69 * begin / max(1, len(refused))))
    return count, refused


async def _take_out(
    target: asyncpg.Connection, table: TableStatements, refused: Sequence[_Refused]
) -> list[DeadLetter]:
    told = {refusal.tid: refusal for refusal in refused}
    rows = await target.fetch(table.take_out, list(told))
    return [
        DeadLetter(
            key=tuple(json.loads(row["key"])),
            version=row["sync_xid"],
            sqlstate=told[row["ctid"]].sqlstate,
            message=told[row["ctid"]].message,
            constraint=told[row["ctid"]].constraint,
            row_id=row["row_id"],
        )
        for row in rows
    ]


async def bury(
    target: asyncpg.Connection, table: str, letters: Iterable[DeadLetter], *, run_id: str, rules: RetryRules
) -> None:
    """Put refused rows among the dead letters within the caller's transaction; they no longer wait."""
    dead = list(letters)
    if not dead:
        return
    ids = [letter.row_id or row_uuid(letter.key) for letter in dead]
    await target.execute(
        sql("bury"),
        table,
        rules.dead_letter_seconds,
        rules.dead_letter_attempts,
        run_id,
        ids,
        [json.dumps(presented(letter.key)) for letter in dead],
        [letter.version for letter in dead],
        [letter.sqlstate for letter in dead],
        [letter.message for letter in dead],
        [letter.constraint for letter in dead],
        [fingerprint(letter.sqlstate, letter.message, letter.constraint) for letter in dead],
    )
    await target.execute(sql("bury_waiting"), table, ids)
