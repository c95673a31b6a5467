"""Listing: gives the rows of a batch their ids by the list `sync_row`, and enters those that were applied."""

import json
from collections.abc import Sequence

import asyncpg

from syncline.engine.dead_letters import DeadLetter
from syncline.engine.render.listing import Listing
from syncline.engine.template import sql
from syncline.sql import quoted

__all__ = [
    "enter_landed",
    "enter_new",
    "identify",
    "leave_rejected",
    "move",
    "refer_beside",
    "take_out_unclear",
]

_NULL = "23502"
_DOUBLE = "23505"


async def identify(
    target: asyncpg.Connection, listing: Listing, *, many: bool = False, assigning: bool = True
) -> bool:
    """Fill in the ids of the staged rows, and of what they refer to, within the caller's transaction.

    Return whether a row was not listed, as far as this tells. For `many` rows it first asks whether any
    row of the table is, and looks up what they refer to once. Unless `assigning`, the target assigns no ids.
    """
    if many and listing.any_listed is not None:
        made = await _made(target, listing, assigning=assigning)
        known = await target.fetchval(listing.any_listed)
        if known:
            return bool(await target.fetchval(listing.many(made)))
        await target.execute(listing.first(made))
        return True
    # What is referred to first: it may be of the natural key, by which a row is known.
    for statement in listing.many_references if many else listing.references:
        await target.execute(statement)
    if listing.kept is not None:
        await target.execute(listing.kept)
    if not listing.table.keeps_ids:
        return False
    made = await _made(target, listing, assigning=assigning)
    told: str = await target.execute(listing.assigned(made))
    return told != "UPDATE 0"


async def _made(target: asyncpg.Connection, listing: Listing, *, assigning: bool) -> str:
    """Return the expression for the id of a row that is not listed."""
    made = listing.made
    if made is None and assigning:
        name, column = quoted(listing.table.name), listing.table.id_column
        made = await target.fetchval(listing.default, name, column)
    return made or "NULL"


async def enter_new(target: asyncpg.Connection, listing: Listing) -> bool:
    """Enter the staged rows before they are merged; return False, and enter none, if some are not new.

    For many rows that the target has not: then they are hardly ever listed either. Once they are, each has an
    id that is no other's.
    """
    if listing.new is None or (listing.nameless is not None and await target.fetchval(listing.nameless)):
        return False
    try:
        async with target.transaction():
            await target.execute(listing.new)
    except asyncpg.UniqueViolationError:
        return False
    return True


async def move(target: asyncpg.Connection, listing: Listing, *, unlisted: bool) -> bool:
    """Note for removal what stands under an id that its source row has no longer.

    Return whether a row is not listed under its id yet; `unlisted` as `identify` returned it.
    """
    elsewhere, moved = unlisted, False
    if listing.elsewhere is not None:
        elsewhere, moved = await target.fetchrow(listing.elsewhere)
    if elsewhere and listing.give_way is not None:
        await target.execute(listing.give_way)
    if moved and listing.moved is not None:
        await target.execute(listing.moved)
    return elsewhere


async def refer_beside(
    target: asyncpg.Connection, listing: Listing, *, entered: bool, many: bool = False
) -> None:
    """Fill in the ids of rows of the same table that staged rows refer to."""
    for statement in listing.many_own_references if many else listing.own_references:
        await target.execute(statement)
    if not entered:
        for statement in listing.references_beside:
            await target.execute(statement)


async def take_out_unclear(
    target: asyncpg.Connection, listing: Listing, *, elsewhere: bool
) -> list[DeadLetter]:
    """Take rows out of the stage that have no id, or another's, and return them.

    After the removals, which may have made ids free. There are none unless some row is not listed under its
    id (`elsewhere`).
    """
    rows = await target.fetch(listing.unclear) if listing.unclear is not None and elsewhere else []
    if listing.unmoved is not None and elsewhere:
        await target.execute(listing.unmoved)
    letters: list[DeadLetter] = []
    name, column = listing.table.name, listing.table.id_column
    source = listing.table.id.source if listing.table.id is not None else None
    for row in rows:
        from_where = "" if source is None else f', which comes from "{source}" of the source'
        if row["lacks"]:
            problem = f'null value in column "{column}" of relation "{name}"{from_where}'
        else:
            problem = f'another key has the same value in column "{column}" of relation "{name}"{from_where}'
        letters.append(
            DeadLetter(
                key=tuple(json.loads(row["key"])),
                version=row["sync_xid"],
                sqlstate=_NULL if row["lacks"] else _DOUBLE,
                message=problem,
                row_id=row["row_id"],
                held_by=row["held_by"],
            )
        )
    return letters


async def enter_landed(target: asyncpg.Connection, listing: Listing) -> None:
    """Enter the rows that are still staged: they have been merged."""
    if listing.points is not None:
        await target.execute(listing.points)
    if listing.landed is not None:
        await target.execute(listing.landed)


async def leave_rejected(target: asyncpg.Connection, listing: Listing, letters: Sequence[DeadLetter]) -> None:
    """Take rows off the list that were entered before they were merged, and then rejected."""
    await target.execute(sql("list_rejected"), listing.table.name, [letter.row_id for letter in letters])
