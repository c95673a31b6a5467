"""Refusal: finding the rows of a batch that the graph-db refuses, and putting them among the dead letters.

One module because to find refused rows, to judge them and to bury them share what a refusal is.
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
    """Return 12 hex digits that are equal for errors which differ in the row's values alone.

    They stand for the SQLSTATE, the constraint and the message's first part (no DETAIL, HINT or CONTEXT), in
    which quoted values and numbers count as equal. Names that Postgres quotes stay: of constraints, columns,
    tables, types. A message of a trigger that gives its values without quotation marks, or one in another
    language that names no constraint, may have more fingerprints than causes, or fewer.
    """
    cause = cause_of(message, "?")
    return sha256("\0".join((sqlstate, constraint or "", cause)).encode()).hexdigest()[:12]


_OF_A_ROW = ("09", "21", "22", "23", "27", "38", "39", "44", "54", "P0")
"""SQLSTATE classes by which Postgres, its constraints and triggers refuse values (PostgreSQL, appendix A)."""
_OF_THE_CONNECTION = ("08", "25P", "28", "3D", "53300", "57P")
"""SQLSTATEs after which nothing can be asked on the same connection, or nothing at all."""
_TOO_MANY = 10_000
"""Refused rows of one batch from which on it is the table that is wrong, and the batch waits as it is."""
TOO_MANY_UNUSUAL = 1_000
"""The same for rows that are refused with an SQLSTATE that is not about values: a trigger raised it, or else
the table, a right or the server is in trouble."""
FEW = 3
"""So many rows that are refused so, one by one, say nothing of the rows while no other one lands."""
_SAMPLE = 8
"""Rows from all over the batch that are tried alone before it is the table that is wrong."""
_ROUNDS = 20
"""How often a set is tried anew without the rows that keep their values after all."""


@dataclass(frozen=True, kw_only=True)
class _Refused:
    """A row of the stage that the graph-db refuses, and its words."""

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
    """A version of a row that was refused."""

    key: tuple[str, ...]
    """Its parts may be no text (`syncline.engine.keys`): the books have them in hex then."""
    version: int
    sqlstate: str
    message: str
    constraint: str | None = None
    row_id: UUID | None = None
    """The row's id in the books; None if it follows from the key."""
    held_by: UUID | None = None
    """The row that has the unique value which this one wants, as the books name it."""
    by_code: bool = False
    """Whether code of the database raised it, so that its text may be the row's."""


def refuses_a_row(error: StoreError) -> bool:
    """Return whether the store refused values, which other rows need not have, or else the statement."""
    if isinstance(error, RowsFiltered):
        return False
    return isinstance(error, StoreRejected) and bool(error.sqlstate and error.sqlstate.startswith(_OF_A_ROW))


def may_be_rows(error: StoreError) -> bool:
    """Return whether one row may be why the store said no, whatever it said: a trigger can raise anything."""
    if error.sqlstate is None or isinstance(error, StatementOutdated | RowsFiltered):
        return False
    return not error.sqlstate.startswith(_OF_THE_CONNECTION)


def refusal_of(store: str, target: asyncpg.Connection, error: asyncpg.PostgresError) -> StoreError | None:
    """Return our error for the driver's if a single row may be to blame for it, else None."""
    mapped = map_driver_error(store, error)
    if mapped is None or target.is_closed() or not may_be_rows(mapped):
        return None
    return mapped


class TableRefused(StoreRejected):
    """So many rows of one batch were refused that it is the table which is wrong."""


class _Again(Exception):
    """Takes back what a savepoint holds."""


async def settle(
    target: asyncpg.Connection,
    table: TableStatements,
    statement: Ranged,
    store: str,
    *,
    first: Sequence[str] = (),
    claiming: bool = False,
) -> tuple[int, list[DeadLetter], bool]:
    """Run a statement over the stage; return its count, the rows that it refuses, whether it ran in parts.

    Refused rows are taken out of the stage. Before a stage that is refused as a whole is tried in parts, the
    statements `first` prepare it. `claiming`: the statement gives rows their values, so that unique ones may
    be handed on among them. Runs inside the caller's transaction. Raise StoreError if it is not single rows
    that are refused: with `everywhere` if each that was tried alone was refused.
    """
    try:
        async with target.transaction():
            return await target.fetchval(statement.whole), [], False
    except asyncpg.PostgresError as error:
        problem = refusal_of(store, target, error)
        # A limit strikes smaller batches less; the transaction is no shorter for its parts.
        if problem is None or is_limit(problem):
            raise
        collided = claiming and problem.sqlstate in COLLISIONS
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
        # Some row cannot even be looked at. Those that are refused for themselves leave first.
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
    """Merge rows that hand unique values on to each other; `letters` grows by those that keep theirs.

    A row that gave its value up and then is refused needs it back: it is left out, with those that want its
    value, and all others are tried anew.
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
    """A statement over ever other parts of the stage, until only refused rows are left out."""

    def __init__(self, target: asyncpg.Connection, table: TableStatements, part: str, store: str) -> None:
        self.part = part
        self._target, self._table, self._store = target, table, store
        self._tids: list[Tid] = []
        self._count = 0
        self._accepted = False

    async def run(self) -> tuple[int, list[_Refused]]:
        """Return what the statement counted, and the rows that it refuses. What is accepted stays.

        A part that is refused is halved until its first offender stands alone; the next part is as long as
        the offenders so far let expect to be clean. That is about log2(rows per offender) + 2 statements for
        each (generalized binary splitting, Hwang 1972), and most rows are written once.
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
            # Alone it says what is wrong with it; or that it was refused for the company it was in.
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
        """Raise StoreError if it looks like the table, not the rows."""
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
        """Return whether any of a few rows from all over the stage is accepted; nothing of them stays."""
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
        """Return the rows that are refused again now, of those whose SQLSTATE may have passed by itself."""
        unusual = [refusal for refusal in refused if not refusal.usual]
        if unusual and not self._accepted:
            raise self._everywhere(unusual[-1])
        if unusual and not self._count and len(unusual) > FEW:
            # What was accepted was there already, and nothing says that any other row could be written.
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
            f"more than {number - 1:,} rows of one batch were refused, the last with "
            f"[{offender.sqlstate}] {masked_message(offender.sqlstate, offender.message)}. "
            "It looks like the table, not the rows; nothing of the batch was written.",
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
    """Put refused rows among the dead letters within the caller's transaction; they no longer wait."""
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
