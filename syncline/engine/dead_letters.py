"""Rejects: finds the rows of a batch that the graph-db rejects, and stores them as dead letters.

One module because finding rejected rows, judging the error and storing them share what a reject is.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

import asyncpg

from syncline.engine.keys import presented, row_uuid
from syncline.engine.limits import is_limit
from syncline.engine.render.merge import Ranged
from syncline.engine.render.statements import TableStatements
from syncline.engine.schema_transaction import PLAN_EACH
from syncline.engine.template import sql
from syncline.engine.unique_values import COLLISIONS, Claims, Tid
from syncline.errors import RowsFiltered, StatementOutdated, StoreError, StoreRejected
from syncline.masking import RAISE, cause_of, masked_message, without_values
from syncline.provider import RetryRules
from syncline.stores.postgres import map_driver_error, postgres_error

__all__ = [
    "FEW",
    "TOO_MANY_UNUSUAL",
    "DeadLetter",
    "TableRefused",
    "fingerprint",
    "insert_dead_letters",
    "may_be_rows",
    "refusal_of",
    "refuses_a_row",
    "settle",
    "without_values",
]


def fingerprint(sqlstate: str, message: str, constraint: str | None) -> str:
    """Return 12 hex digits that are equal for errors that differ only in the row's values.

    They are made from the SQLSTATE, the constraint and the message's first part (no DETAIL, HINT or CONTEXT)
    with quoted values and numbers masked. Names that Postgres quotes stay: of constraints, columns, tables,
    types. A trigger's message with unquoted values, or a translated message that names no constraint, may
    have more fingerprints than causes, or fewer.
    """
    cause = cause_of(message, "?")
    return sha256("\0".join((sqlstate, constraint or "", cause)).encode()).hexdigest()[:12]


_OF_A_ROW = ("09", "21", "22", "23", "27", "38", "39", "44", "54", "P0")
"""SQLSTATE classes with which Postgres, constraints and triggers reject values (PostgreSQL, appendix A)."""
_OF_THE_CONNECTION = ("08", "25P", "28", "3D", "53300", "57P")
"""SQLSTATEs after which the connection, or the server, takes no more statements."""
_TOO_MANY = 10_000
"""Rejected rows of one batch above which the table is at fault, and the batch is not written."""
TOO_MANY_UNUSUAL = 1_000
"""The same for rejects whose SQLSTATE is not about values: raised by a trigger, or a problem of the table,
a privilege or the server."""
FEW = 3
"""This many such rejects, each alone, do not blame the rows while no other row is accepted."""
_SAMPLE = 8
"""Rows spread over the batch that are tried alone before the table is blamed."""
_TRY_WHOLE = "SELECT changed, state FROM syncline.try_part($1, NULL, NULL)"
_ROUNDS = 20
"""How often a set is retried without the rows that keep their unique values after all."""


@dataclass(frozen=True, kw_only=True)
class _Refused:
    """A staged row that the graph-db rejects, with its error."""

    tid: Tid
    sqlstate: str
    message: str
    constraint: str | None
    by_code: bool = False

    @property
    def usual(self) -> bool:
        """Whether its SQLSTATE is about values."""
        return self.sqlstate.startswith(_OF_A_ROW)


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A rejected version of a row."""

    key: tuple[str, ...]
    """Its parts may not be valid text (`syncline.engine.keys`): then they are stored in hex."""
    version: int
    sqlstate: str
    message: str
    constraint: str | None = None
    row_id: UUID | None = None
    """The row's id in the bookkeeping tables; None if it follows from the key."""
    held_by: UUID | None = None
    """Id of the row that has the unique value which this one needs."""
    by_code: bool = False
    """Whether database code (RAISE) raised it, so that its text may quote the row."""


def refuses_a_row(error: StoreError) -> bool:
    """Return True if the store rejected values, which other rows may not have; False if the statement."""
    if isinstance(error, RowsFiltered):
        return False
    return isinstance(error, StoreRejected) and bool(error.sqlstate and error.sqlstate.startswith(_OF_A_ROW))


def may_be_rows(error: StoreError) -> bool:
    """Return whether a single row may be the cause: a trigger can raise any SQLSTATE."""
    if error.sqlstate is None or isinstance(error, StatementOutdated | RowsFiltered):
        return False
    return not error.sqlstate.startswith(_OF_THE_CONNECTION)


def refusal_of(store: str, target: asyncpg.Connection, error: asyncpg.PostgresError) -> StoreError | None:
    """Return the mapped error if a single row may have caused the driver's error, else None."""
    mapped = map_driver_error(store, error)
    if mapped is None or target.is_closed() or not may_be_rows(mapped):
        return None
    return mapped


class TableRefused(StoreRejected):
    """So many rows of one batch were rejected that the table is at fault."""


class _Again(Exception):
    """Rolls back a savepoint."""


async def settle(
    target: asyncpg.Connection,
    table: TableStatements,
    statement: Ranged,
    store: str,
    *,
    few: bool = False,
    first: Sequence[str] = (),
    claiming: bool = False,
) -> tuple[int, list[DeadLetter], bool]:
    """Run a statement over the stage; return (count, rejected rows, whether it ran in parts).

    Rejected rows are removed from the stage. If the whole stage is rejected, the statements `first` run
    before it is retried in parts. `claiming`: the statement assigns values, so unique values may move between
    the rows. Runs inside the caller's transaction. Raises StoreError if the cause is not single rows; with
    `everywhere` set if every row that was tried alone was rejected. Of `few` rows the server keeps the
    savepoint, so that an accepted stage takes one round trip.
    """
    if few:
        row = await target.fetchrow(_TRY_WHOLE, statement.whole)
        if row["state"] is None:
            return row["changed"], [], False
    try:
        # A rejected stage is tried again: the driver's error says more than the function's.
        async with target.transaction():
            return await target.fetchval(statement.whole), [], False
    except asyncpg.PostgresError as error:
        problem = refusal_of(store, target, error)
        # A limit needs smaller batches; running in parts does not shorten the transaction.
        if problem is None or is_limit(problem):
            raise
        collided = claiming and problem.sqlstate in COLLISIONS
    # The first part may be a single row.
    await target.execute(PLAN_EACH)
    for prepare in first:
        await target.execute(prepare)
    parts = _Parts(target, table, statement.part, store)
    if not claiming:
        count, refused = await parts.run()
        return count, await _take_out(target, table, refused), True
    letters: list[DeadLetter] = []
    if not collided:
        try:
            async with target.transaction():
                count, refused = await parts.run()
                collided = any(refusal.sqlstate in COLLISIONS for refusal in refused)
                if collided:
                    raise _Again
        except _Again:
            pass
        else:
            return count, await _take_out(target, table, refused), True
    claims = await _claims(target, table)
    if claims is None:
        # Some row cannot even be read. Remove rows that are rejected for themselves first.
        try:
            async with target.transaction():
                _, refused = await parts.run()
                raise _Again
        except _Again:
            alone = [refusal for refusal in refused if refusal.sqlstate not in COLLISIONS]
            letters += await _take_out(target, table, alone)
        claims = await _claims(target, table)
    if claims is None:
        count, refused = await parts.run()
    elif claims.handed_on:
        count, refused = await _as_a_set(target, table, parts, claims, letters)
    else:
        count, refused = await parts.run()
    holders: dict[Tid, UUID] = {}
    collisions = [refusal.tid for refusal in refused if refusal.sqlstate in COLLISIONS]
    if claims is not None and collisions:
        holders = await claims.holders(target, collisions)
    letters += await _take_out(target, table, refused, holders)
    return count, letters, True


async def _claims(target: asyncpg.Connection, table: TableStatements) -> Claims | None:
    try:
        async with target.transaction():
            return await Claims.read(target, table.claims)
    except asyncpg.PostgresError:
        if target.is_closed():
            raise
        return None


async def _as_a_set(
    target: asyncpg.Connection,
    table: TableStatements,
    parts: "_Parts",
    claims: Claims,
    letters: list[DeadLetter],
) -> tuple[int, list[_Refused]]:
    """Merge rows that pass unique values to each other; `letters` receives those that keep theirs.

    A row that gave up its value and is then rejected needs it back: it is excluded together with the rows
    that need its value, and all others are retried.
    """
    for _ in range(_ROUNDS):
        try:
            async with target.transaction():
                freed, changed = await claims.free(target, parts.part)
                count, refused = await parts.run()
                stuck = {refusal.tid: refusal for refusal in refused if refusal.tid in freed}
                if not stuck:
                    return changed + count, refused
                raise _Again
        except _Again:
            out = list(stuck.values())
            for tid, rule in claims.blocked_by(stuck).items():
                state = "23P01" if rule.exclusion else "23505"
                out.append(
                    _Refused(
                        tid=tid,
                        sqlstate=state,
                        message=f'{COLLISIONS[state]} "{rule.name}"',
                        constraint=rule.name,
                    )
                )
            tids = {refusal.tid for refusal in out}
            holders = await claims.holders(
                target, [refusal.tid for refusal in out if refusal.sqlstate in COLLISIONS]
            )
            letters += await _take_out(target, table, out, holders)
            claims.leave_out(tids)
    return await parts.run()


class _Parts:
    """Runs a statement over successive parts of the stage, leaving out only rejected rows."""

    def __init__(self, target: asyncpg.Connection, table: TableStatements, part: str, store: str) -> None:
        self.part = part
        self._target, self._table, self._store = target, table, store
        self._tids: list[Tid] = []
        self._count = 0
        self._accepted = False

    async def run(self) -> tuple[int, list[_Refused]]:
        """Return the statement's count and the rejected rows. Accepted parts stay applied.

        A rejected part is halved down to its first offender; the next part is as long as the offenders so far
        predict to be clean. That is about log2(rows per offender) + 2 statements per offender (generalized
        binary splitting, Hwang 1972), and most rows are written once.
        """
        self._tids = [row["ctid"] for row in await self._target.fetch(self._table.staged_tids)]
        self._count, self._accepted = 0, False
        refused: list[_Refused] = []
        begin, length = 0, len(self._tids)
        while begin < len(self._tids):
            length = min(length, len(self._tids) - begin)
            offender = await self._attempt(begin, begin + length)
            if offender is None:
                begin, length = begin + length, length * 2
                continue
            alone = length == 1
            while length > 1:
                half = length // 2
                if await self._attempt(begin, begin + half) is None:
                    begin, length = begin + half, length - half
                else:
                    length = half
                alone = False
            # Run alone, it shows its own error, or that only its neighbours were at fault.
            if not alone:
                offender = await self._attempt(begin, begin + 1)
            begin += 1
            if offender is not None:
                refused.append(offender)
                await self._judge(refused)
            length = max(1, int(0.69 * begin / max(1, len(refused))))
        return self._count, await self._confirmed(refused)

    async def _attempt(self, begin: int, end: int) -> _Refused | None:
        row = await self._target.fetchrow(
            "SELECT * FROM syncline.try_part($1, $2, $3)", self.part, self._tids[begin], self._tids[end - 1]
        )
        if row["state"] is None:
            self._count += row["changed"]
            self._accepted = True
            return None
        function = RAISE if row["by_code"] else None
        problem = postgres_error(self._store, row["state"], row["message"], function=function)
        if not may_be_rows(problem) or is_limit(problem):
            raise problem
        return _Refused(
            tid=self._tids[begin],
            sqlstate=row["state"],
            message=row["message"],
            constraint=row["constraint_name"] or None,
            by_code=bool(row["by_code"]),
        )

    async def _judge(self, refused: Sequence[_Refused]) -> None:
        """Raise StoreError if the rejects indicate the table rather than the rows."""
        offender = refused[-1]
        if len(refused) > _TOO_MANY:
            raise self._of_the_table(offender, len(refused))
        if offender.usual:
            return
        unusual = sum(not refusal.usual for refusal in refused)
        if unusual > TOO_MANY_UNUSUAL:
            raise self._of_the_table(offender, unusual)
        if unusual == FEW and not self._accepted and not await self._any_lands():
            raise self._everywhere(offender)

    async def _any_lands(self) -> bool:
        """Return whether any of a few rows spread over the stage is accepted; they are rolled back."""
        step = max(1, len(self._tids) // _SAMPLE)
        count = self._count
        try:
            async with self._target.transaction():
                for position in range(len(self._tids) - 1, -1, -step):
                    if await self._attempt(position, position + 1) is None:
                        raise _Again
        except _Again:
            self._count = count
            return True
        return False

    async def _confirmed(self, refused: list[_Refused]) -> list[_Refused]:
        """Retry rejects whose SQLSTATE may be transient; return the rows that are still rejected."""
        unusual = [refusal for refusal in refused if not refusal.usual]
        if unusual and not self._accepted:
            raise self._everywhere(unusual[-1])
        if unusual and not self._count and len(unusual) > FEW:
            # What was accepted existed already, so nothing shows that any other row could be written.
            raise self._everywhere(unusual[-1])
        passed = set()
        places = {tid: place for place, tid in enumerate(self._tids)} if unusual else {}
        for refusal in unusual:
            place = places[refusal.tid]
            if await self._attempt(place, place + 1) is None:
                passed.add(refusal.tid)
        return [refusal for refusal in refused if refusal.tid not in passed]

    def _of_the_table(self, offender: _Refused, number: int) -> StoreError:
        return TableRefused(
            self._store,
            f"more than {number - 1:,} rows of one batch were rejected, the last with "
            f"[{offender.sqlstate}] {masked_message(offender.sqlstate, offender.message)}. "
            "The table seems to be at fault, not the rows; nothing of the batch was written.",
            sqlstate=offender.sqlstate,
        )

    def _everywhere(self, offender: _Refused) -> StoreError:
        error = postgres_error(self._store, offender.sqlstate, offender.message)
        error.everywhere = True
        return error


async def _take_out(
    target: asyncpg.Connection,
    table: TableStatements,
    refused: Sequence[_Refused],
    holders: Mapping[Tid, UUID] | None = None,
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
            by_code=told[row["ctid"]].by_code,
            row_id=row["row_id"],
            held_by=(holders or {}).get(row["ctid"]),
        )
        for row in rows
    ]


async def insert_dead_letters(
    target: asyncpg.Connection, table: str, letters: Iterable[DeadLetter], *, run_id: str, rules: RetryRules
) -> None:
    """Insert dead letters within the caller's transaction, and unpark these rows."""
    dead = list(letters)
    if not dead:
        return
    ids = [letter.row_id or row_uuid(letter.key) for letter in dead]
    await target.execute(
        sql("insert_dead_letters"),
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
        [
            fingerprint(letter.sqlstate, letter.message, None if letter.by_code else letter.constraint)
            for letter in dead
        ],
        [letter.held_by for letter in dead],
        [letter.by_code for letter in dead],
    )
    await target.execute(sql("reject_parked"), table, ids)
