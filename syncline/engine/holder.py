"""The holder of a graph's lock: whom a cycle names that finds it taken, and ends if its attempt is dead.

Any role that may connect can hold the lock, under any name: only sessions of the worker's own role are ended.
"""

from dataclasses import dataclass

import asyncpg

from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.template import sql
from syncline.errors import CycleBusy
from syncline.holder_name import HolderName
from syncline.lock_holder import LockHolder
from syncline.provider import SyncContext

__all__ = ["Holder", "end_dead_holder", "find_holder", "refuse_own_run"]


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a graph's lock."""

    session: LockHolder
    own: bool
    """Whether it is a session of the worker's own role."""
    claims: HolderName | None
    """What its name says, whoever's it is."""


async def find_holder(target: asyncpg.Connection, schema: str) -> Holder | None:
    """Return who holds the lock of the graph in `schema`; None if it was given back meanwhile."""
    row = await target.fetchrow(sql("holder"), schema)
    if row is None:
        return None
    said = dict(row)
    own, now = said.pop("own"), said.pop("now")
    claims = HolderName.of(said["application_name"], now=now)
    if own and claims is not None:
        said |= {"run_id": claims.run_id, "attempt": claims.attempt, "held_since": claims.since}
    return Holder(session=LockHolder.model_validate(said), own=own, claims=claims)


async def end_dead_holder(context: SyncContext, held: HeldSchema) -> bool:
    """End the session that holds the graph if nobody is at work behind it; return whether it was ended.

    That is an earlier attempt of the same run, or an attempt of a run that has been over for long enough.
    What it had not committed is rolled back; it can commit nothing more.
    """
    async with held.transaction() as target:
        holder = await find_holder(target, held.schema)
    if holder is None or holder.claims is None or not holder.own:
        return False
    claims, session = holder.claims, holder.session
    if claims.run_id == context.run.run_id:
        dead = claims.attempt < context.run.attempt
    else:
        dead = context.run_is_over is not None and await context.run_is_over(claims.run_id)
    if not dead:
        return False
    async with held.transaction() as target:
        ended = await target.fetchval(sql("holder_end"), held.schema, session.pid, session.application_name)
    if ended:
        context.log.warning(
            "ended the session of a dead attempt",
            graph=context.graph.slug,
            pid=session.pid,
            held_by_run=claims.run_id,
            held_by_attempt=claims.attempt,
        )
    return bool(ended)


def refuse_own_run(context: SyncContext, holder: Holder | None, *, taken_by: str | None) -> None:
    """Raise CycleBusy if the graph is held by another attempt of this very run.

    `taken_by` is the run that took the graph last: an older worker does not name its sessions.
    """
    mine = context.run.run_id
    if holder is None:
        if taken_by == mine:
            raise CycleBusy(context.graph.slug, mine)
        return
    by = taken_by if holder.claims is None else holder.claims.run_id
    if by == mine:
        role = None if holder.own else holder.session.role or "unknown"
        raise CycleBusy(context.graph.slug, mine, pid=holder.session.pid, role=role)
