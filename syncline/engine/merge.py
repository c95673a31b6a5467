"""Merge: applies a staged batch set-wise: rows, links, stats, parked rows, dead letters and outbox."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from syncline.engine.dead_letters import FEW, TOO_MANY_UNUSUAL, DeadLetter, refusal_of, refuses_a_row, settle
from syncline.engine.keys import row_uuid
from syncline.engine.limits import is_limit
from syncline.engine.listing import (
    enter_landed,
    enter_new,
    identify,
    leave_rejected,
    move,
    refer_beside,
    take_out_unclear,
)
from syncline.engine.render.parking import Release
from syncline.engine.render.statements import SchemaStatements, TableStatements
from syncline.engine.schema_transaction import looking_up
from syncline.engine.template import sql
from syncline.errors import StoreError
from syncline.messages.sync import TableProgress
from syncline.sql import literal

__all__ = [
    "MANY_ROWS",
    "NOTHING",
    "Applied",
    "PutOff",
    "Refused",
    "apply_staged",
    "is_large",
    "release_awaited",
    "remove_gone",
    "shared_stages",
]

_ANALYZE_FROM = 2_000
"""Fewer staged rows use the planner's defaults; for more, a wrong join costs more than ANALYZE."""


# With the default work_mem, joins and sorts of this size use temporary files. Of statistics only the row
# count matters, and a small sample gives that. With the default cost of a random page, made for disks that
# turn, a batch would read all rows of a table of a hundred times as many, and the time of a load would grow
# with the square of its rows; a server that has a lower one keeps it.
MANY_ROWS = (
    "SET LOCAL work_mem = '64MB'; SET LOCAL default_statistics_target = 10;"
    "SELECT pg_catalog.set_config('random_page_cost', '1.1', true)"
    " WHERE pg_catalog.current_setting('random_page_cost')::float8 > 1.1"
)
"""Statements for a transaction that reads or writes many rows."""

_UNCLEAR = 2 * FEW
"""Removals rejected with errors that are not about values before the table is blamed, if none succeeds."""

Refused = Mapping[str, Sequence[DeadLetter]]
"""Table -> its rejected rows."""


@dataclass(frozen=True, kw_only=True)
class PutOff:
    """What a first load has put off."""

    indexes: bool = False
    """Whether indexes by which rows find what hangs on them are missing."""
    counts: frozenset[str] = frozenset()
    """Tables whose rows are counted at its end."""


NOTHING = PutOff()


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What one batch did."""

    effects: tuple[TableProgress, ...]
    """Per table: what the batch completes in another table counts as that table's change."""
    refused: Refused
    more: bool
    """Whether it released or requested rows that were not waiting before."""
    plain: bool = False
    """Whether all its rows were new, and nothing was removed or rejected: what lanes may do side by side."""


def is_large(staged: int) -> bool:
    """Return whether a batch of so many rows is applied by the ways for many."""
    return staged >= _ANALYZE_FROM


def shared_stages(statements: SchemaStatements) -> tuple[str, str]:
    """Return the statements that create the temporary tables shared by all tables, if missing."""
    return statements.removal.create, statements.recount.create


async def apply_staged(
    target: asyncpg.Connection,
    schema: SchemaStatements,
    table: TableStatements,
    *,
    staged: int,
    store: str,
    put_off: "PutOff" = NOTHING,
    noted: str = "",
) -> Applied:
    """Apply the staged rows, and the removals in `sync_leaving`, inside the caller's transaction.

    `noted`: SQL that notes them (`syncline.engine.checkpoints.RecentKeys`).

    Plans of other batches are forgotten, and constraints immediate, since it began.
    The bookkeeping tables are checked once, so that a graph without parked rows pays for one probe only.
    """
    few = not is_large(staged)
    if not few:
        await target.execute(MANY_ROWS)
    for statement in table.waiting.resolve:
        await target.execute(statement)
    merging, listing = table.merging, table.listing
    unlisted = await identify(target, listing, many=not few) if listing.any else False
    if not few:
        # Ids that were filled in are counted, too.
        await target.execute(table.analyze_stage)
    name = literal(table.table.name)
    state = await target.fetchrow(sql("state_of_rows", noted=noted, table=name, known=merging.known))
    effects: list[TableProgress] = []
    if table.table.present != "true":
        await target.execute(table.absent)
    waiting = table.waiting
    unparked: list[DeadLetter] = []
    for ranged in waiting.park_rows:
        _, refused, _ = await settle(target, table, ranged, store, few=few)
        unparked.extend(refused)
    for making in table.stubs.making:
        _, refused, _ = await settle(target, table, making.make, store, few=few)
        unparked.extend(refused)
        if making.name is not None:
            await target.execute(making.name)
    if table.stubs.oust is not None:
        await target.execute(table.stubs.oust)
    # A row that may take a stub over can change its id: it is listed once it has landed.
    new = not few and not state["known"] and table.stubs.adopt is None
    entered = new and await enter_new(target, listing)
    elsewhere = False if entered else await move(target, listing, unlisted=unlisted)
    removed, unremoved = await remove_gone(target, schema, store, beside=table.staged_tids, put_off=put_off)
    effects.extend(removed)
    unparked.extend(await take_out_unclear(target, listing, elsewhere=elsewhere))
    # Rows can refer to what has stayed in the stage.
    await refer_beside(target, listing, entered=entered, many=not few)
    # Removals may have parked references of staged rows that had none before.
    references = table.table.identified and bool(state["references"] or removed)
    async with looking_up(target, few=few and (state["rows"] or references)):
        if state["rows"]:
            await target.execute(waiting.unpark_rows)
        if references:
            await target.execute(waiting.unpark_references)
    for statement in waiting.park_references:
        await target.execute(statement)

    known = state["known"]
    if table.stubs.adopt is not None:
        adopted, refused, _ = await settle(target, table, table.stubs.adopt, store, few=few)
        unparked.extend(refused)
        known |= bool(adopted)
    # Only while no key is checked for each row does the order of the table's own key pay.
    uncounted = put_off.counts >= schema.recount.counted
    new_rows = merging.uncounted_rows if uncounted else merging.new_rows
    merge = merging.rows if known else merging.first_rows if put_off.indexes and uncounted else new_rows
    rows, refused, in_parts = await settle(
        target, table, merge, store, few=few, first=waiting.park_beside, claiming=True
    )
    if refused:
        ids = [letter.row_id for letter in refused]
        await target.execute(sql("reject_references"), table.table.name, ids)
    if not entered:
        await enter_landed(target, listing)
    elif refused:
        await leave_rejected(target, listing, refused)
    if table.kept_landed is not None:
        await target.execute(table.kept_landed)
    # Before the links: a row with one rejected link leaves the stage, although it has been applied.
    for child, statement in waiting.reject:
        effects.append(TableProgress(table=child, links=await target.fetchval(statement)))
    more = bool(removed)
    if waiting.awaited:
        # What referred to a row that was removed under its old id waits for it, since this very transaction.
        references = bool(state["references"] or removed or (in_parts and waiting.park_beside))
        async with looking_up(target, few=few and (state["rows"] or references)):
            if state["rows"]:
                for statement in waiting.release_rows.few if few else waiting.release_rows.many:
                    more |= await target.execute(statement) != "UPDATE 0"
            if references:
                for release in waiting.releases:
                    effect, asked = await _release(target, release, store, few=few)
                    effects.append(effect)
                    more |= asked

    links = 0
    for ranged in merging.links if known else merging.uncounted_links if uncounted else merging.new_links:
        added, unlinked, _ = await settle(target, table, ranged, store, few=few)
        links += added
        refused.extend(unlinked)
    effects.append(TableProgress(table=table.table.name, rows=rows, links=links))
    if state["letters"]:
        async with looking_up(target, few=few):
            await target.execute(table.resolve_dead_letters)
            if rows:
                more |= await target.execute(table.retry_held) != "INSERT 0 0"
    more |= bool(rows) and merging.rematches
    more |= await schema.recount.run(target, put_off=put_off.counts)
    letters = [*unparked, *unremoved.get(table.table.name, ()), *refused]
    if listing.moved is not None:
        # One that cannot be removed under its old id may have another's besides.
        letters = list({letter.row_id or row_uuid(letter.key): letter for letter in letters}.values())
    refused_rows = {**unremoved, table.table.name: letters}
    return Applied(
        effects=tuple(_changed(effects)),
        refused=refused_rows,
        more=more,
        plain=uncounted and not (known or removed or elsewhere or in_parts or any(refused_rows.values())),
    )


async def release_awaited(
    target: asyncpg.Connection,
    schema: SchemaStatements,
    table: TableStatements,
    *,
    store: str,
    put_off: PutOff,
) -> list[TableProgress]:
    """Release rows and references that wait for rows of the same table which are there; return the effects.

    Inside the caller's transaction, with an empty stage. A row and its parent that were applied at the same
    time, by two lanes, have not seen each other.
    """
    if table.ranges.awaited is None:
        return []
    name, effects = table.table.name, []
    await target.execute(MANY_ROWS)
    if await target.execute(table.ranges.awaited) == "INSERT 0 0":
        return []
    if table.listing.any:
        await identify(target, table.listing, many=False, assigning=False)
    await target.execute(table.analyze_stage)
    await target.execute(table.ranges.missing)
    for statement in table.waiting.release_rows.many:
        await target.execute(statement)
    for release in table.waiting.releases:
        if release.child == name:
            effect, _ = await _release(target, release, store, few=False)
            effects.append(effect)
    await schema.recount.run(target, put_off=put_off.counts)
    return _changed(effects)


async def remove_gone(
    target: asyncpg.Connection,
    schema: SchemaStatements,
    store: str,
    *,
    beside: str | None = None,
    put_off: "PutOff" = NOTHING,
    likely: bool = False,
) -> tuple[list[TableProgress], Refused]:
    """Remove the rows in `sync_leaving`; return the changes, and the rows whose removal was rejected.

    Other tables may refer to those. Runs inside the caller's transaction, which recounts at its end. `beside`
    is the query for rows to apply in the same transaction: if there are any, a few rejected removals are
    blamed on the rows themselves. `likely`: there are some, which need not be asked first.
    """
    if not likely and not await schema.removal.any(target):
        return [], {}
    try:
        async with target.transaction():
            return await schema.removal.run(target, indexed=not put_off.indexes), {}
    except asyncpg.PostgresError as error:
        if refusal_of(store, target, error) is None:
            raise
    effects: list[TableProgress] = []
    refused: list[tuple[asyncpg.Record, StoreError]] = []
    accepted = False
    rows = await target.fetch(
        "SELECT table_name, row_id, key, again FROM pg_temp.sync_leaving ORDER BY table_name, row_id"
    )
    parts = [rows]
    while parts:
        part = parts.pop()
        await target.execute("DELETE FROM pg_temp.sync_leaving")
        await target.executemany(
            "INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, again) VALUES ($1, $2, $3, $4)",
            [tuple(row) for row in part],
        )
        try:
            async with target.transaction():
                effects.extend(await schema.removal.run(target, indexed=not put_off.indexes))
                accepted = True
        except asyncpg.PostgresError as error:
            refusal = refusal_of(store, target, error)
            if refusal is None:
                raise
            if len(part) > 1:
                half = len(part) // 2
                parts += [part[:half], part[half:]]
                continue
            refused.append((part[0], refusal))
            await _judge_removals(target, refused, accepted=accepted, ended=not parts, beside=beside)
    letters: dict[str, list[DeadLetter]] = {}
    for row, refusal in refused:
        letters.setdefault(row["table_name"], []).append(
            DeadLetter(
                key=tuple(row["key"]),
                version=0,  # of a row that should not exist, in whichever version
                sqlstate=refusal.sqlstate or "",
                message=refusal.said,
                row_id=row["row_id"],
                by_code=refusal.by_code,
            )
        )
    return effects, letters


async def _judge_removals(
    target: asyncpg.Connection,
    refused: Sequence[tuple[asyncpg.Record, StoreError]],
    *,
    accepted: bool,
    ended: bool,
    beside: str | None,
) -> None:
    """Raise StoreError if the rejects may be caused by the table rather than the rows."""
    unusual = [(row, problem) for row, problem in refused if not refuses_a_row(problem)]
    if not unusual:
        return
    if len(unusual) <= TOO_MANY_UNUSUAL and (accepted or (len(unusual) <= _UNCLEAR and not ended)):
        return
    if beside is not None and len(unusual) <= FEW and await target.fetchrow(beside) is not None:
        return
    for row, problem in unusual:
        if len(unusual) > TOO_MANY_UNUSUAL or not await target.fetchval(
            "SELECT EXISTS (SELECT FROM sync_dead_letter"
            " WHERE table_name = $1 AND row_id = $2 AND sqlstate = $3)",
            row["table_name"],
            row["row_id"],
            problem.sqlstate,
        ):
            problem.everywhere = True
            raise problem


async def _release(
    target: asyncpg.Connection, release: Release, store: str, *, few: bool
) -> tuple[TableProgress, bool]:
    """Complete what was parked for the staged rows; if rejected, request those rows by key as a whole."""
    try:
        async with target.transaction():
            count = await target.fetchval(release.few if few else release.statement)
    except asyncpg.PostgresError as error:
        problem = refusal_of(store, target, error)
        if problem is None or is_limit(problem):
            raise
        await target.execute(release.ask_again)
        return TableProgress(table=release.child), True
    counted = {"links" if release.links else "rows": count}
    return TableProgress.model_validate({"table": release.child, **counted}), False


def _changed(effects: Iterable[TableProgress]) -> list[TableProgress]:
    return [effect for effect in effects if effect.rows or effect.links or effect.deletes]
