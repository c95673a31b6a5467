"""The holder of a graph's lock: whom a cycle names that finds it taken, and ends if its attempt is dead.

Any role that may connect can hold the lock, under any name: only sessions of the worker's own role are ended.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import asyncpg

from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.template import sql
from syncline.errors import CycleBusy
from syncline.messages.base import LockHolder
from syncline.provider import SyncContext
from syncline.sql import string_literal

__all__ = ["Holder", "HolderName", "end_dead_holder", "find_holder", "holder_name_sql", "refuse_own_run"]

_RUN: Final = r"[0-9A-Za-z-]{1,36}"
_NAME: Final = re.compile(
    rf"syncline (?P<run>{_RUN}) #(?P<attempt>[0-9]{{1,9}})"
    r"(?: (?P<month>[0-9]{2})-(?P<day>[0-9]{2}) (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})Z)?",
    re.ASCII,
)
_BYTES: Final = 63


@dataclass(frozen=True, kw_only=True)
class HolderName:
    """What such a name says. Anybody may call a session so: believe it of one's own role alone."""

    run_id: str
    attempt: int
    since: datetime | None
    """When the lock was taken, to the minute."""

    @classmethod
    def of(cls, application_name: str | None, *, now: datetime) -> Self | None:
        """Return what the name of a session says at `now`, the server's time; None if it is no such name."""
        said = _NAME.match(application_name or "")
        if said is None:
            return None
        since = None
        if said["month"] is not None:
            since = _latest(*(int(said[part]) for part in ("month", "day", "hour", "minute")), now=now)
        return cls(run_id=said["run"], attempt=int(said["attempt"]), since=since)


def holder_name_sql(run_id: str, attempt: int) -> str | None:
    """Return the SQL expression of the name, by the server's clock; None for what is no id of a run."""
    if re.fullmatch(_RUN, run_id, re.ASCII) is None:
        return None
    who = string_literal(f"syncline {run_id} #{attempt}")
    when = "pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', ' MM-DD HH24:MI\"Z\"')"
    return f"pg_catalog.left({who} || {when}, {_BYTES})"


def _latest(month: int, day: int, hour: int, minute: int, *, now: datetime) -> datetime | None:
    for year in (now.year, now.year - 1):
        try:
            then = datetime(year, month, day, hour, minute, tzinfo=UTC)
        except ValueError:  # the 29th of February of another year, or no date at all
            continue
        if then <= now + timedelta(days=1):
            return then
    return None


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
