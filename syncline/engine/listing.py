"""Listing: gives the rows of a batch their ids by the list `sync_row`, and enters those that were applied."""

import json

import asyncpg

from syncline.engine.dead_letters import DeadLetter
from syncline.engine.render.listing import Listing
from syncline.sql import quoted

__all__ = ["enter_landed", "identify", "move", "take_out_unclear"]

_NULL = "23502"
_DOUBLE = "23505"


async def identify(target: asyncpg.Connection, listing: Listing, *, few: bool) -> None:
    """Fill in the ids of the staged rows, and of what they refer to, within the caller's transaction."""
    # What is referred to first: it may be of the natural key, by which a row is known.
    for statement in listing.references if few else listing.many_references:
        await target.execute(statement)
    if listing.assigns:
        made = listing.made
        if made is None:
            name, column = quoted(listing.table.name), listing.table.id_column
            made = await target.fetchval(listing.default, name, column)
        await target.execute(listing.assigned(made or "NULL"))


async def move(target: asyncpg.Connection, listing: Listing) -> bool:
    """Note for removal what stands under an id that its source row has no longer.

    Return whether a row is not listed under its id yet.
    """
    if listing.elsewhere is None or not await target.fetchval(listing.elsewhere):
        return False
    if listing.moved is not None:
        await target.execute(listing.moved)
    return True


async def take_out_unclear(
    target: asyncpg.Connection, listing: Listing, *, elsewhere: bool
) -> list[DeadLetter]:
    """Take rows out of the stage that have no id, or another's, and return them.

    After the removals, which may have made ids free. Then rows can refer to what stays in the stage.
    There are none unless some row is not listed under its id (`elsewhere`).
    """
    rows = await target.fetch(listing.unclear) if listing.unclear is not None and elsewhere else []
    if listing.unmoved is not None and elsewhere:
        await target.execute(listing.unmoved)
    for statement in listing.references_beside:
        await target.execute(statement)
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
