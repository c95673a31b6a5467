"""The holder of a graph's advisory lock: finds it for reports, and ends it if its attempt is dead.

Any role that may connect can hold the lock, under any name: only sessions of the worker's role are ended.
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
    """What a session's application_name claims. Any role can set it: trust it only for the worker's role."""

    run_id: str
    attempt: int
    since: datetime | None
    """When the lock was acquired, to the minute."""

    @classmethod
    def of(cls, application_name: str | None, *, now: datetime) -> Self | None:
        """Parse a session's name at `now`, the server's time; None if it has another form."""
        said = _NAME.match(application_name or "")
        if said is None:
            return None
        since = None
        if said["month"] is not None:
            since = _latest(*(int(said[part]) for part in ("month", "day", "hour", "minute")), now=now)
        return cls(run_id=said["run"], attempt=int(said["attempt"]), since=since)


def holder_name_sql(run_id: str, attempt: int) -> str | None:
    """Return the SQL expression for the name, with the server's clock; None if `run_id` is no run id."""
    if re.fullmatch(_RUN, run_id, re.ASCII) is None:
        return None
    who = string_literal(f"syncline {run_id} #{attempt}")
    when = "pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', ' MM-DD HH24:MI\"Z\"')"
    return f"pg_catalog.left({who} || {when}, {_BYTES})"


def _latest(month: int, day: int, hour: int, minute: int, *, now: datetime) -> datetime | None:
    for year in (now.year, now.year - 1):
        try:
            then = datetime(year, month, day, hour, minute, tzinfo=UTC)
        except ValueError:  # 29 February of another year, or not a date
            continue
        if then <= now + timedelta(days=1):
            return then
    return None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The session that holds a graph's lock."""

    session: LockHolder
    own: bool
    """Whether it is a session of the worker's role."""
    claims: HolderName | None
    """What its name claims, whichever role it has."""


async def find_holder(target: asyncpg.Connection, schema: str) -> Holder | None:
    """Return the session holding the lock of the graph in `schema`; None if it was released meanwhile."""
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
    """Terminate the session holding the graph's lock if its attempt is dead; return whether it was ended.

    Dead is an earlier attempt of the same run, or an attempt of a run that ended long enough ago. Its
    uncommitted work is rolled back; it can commit nothing more.
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
            "session of a dead attempt terminated",
            graph=context.graph.slug,
            pid=session.pid,
            held_by_run=claims.run_id,
            held_by_attempt=claims.attempt,
        )
    return bool(ended)


def refuse_own_run(context: SyncContext, holder: Holder | None, *, taken_by: str | None) -> None:
    """Raise CycleBusy if another attempt of this run holds the graph's lock.

    `taken_by` is the run that acquired the graph last: workers of earlier versions do not name their
    sessions.
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
