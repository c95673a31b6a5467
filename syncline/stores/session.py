"""Session: what holds on every connection, whatever the role, the database and the host have set.

All of it is set after connecting, since a pooler refuses start-up parameters that it does not know.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg

from syncline.sql import literal

__all__ = ["begin_session"]

_SETTINGS: Final = {
    # Names without a schema are found where a transaction says, and nowhere else.
    "search_path": "pg_catalog, pg_temp",
    # A worker that vanished behind a network fault must not hold its graph's lock for hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "120000",
    # Limits that are meant for people: a batch takes as long as it takes, and connections wait for the next.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    # What a policy hides is an error, and not an absence.
    "row_security": "off",
    "standard_conforming_strings": "on",
    # A statement meets an empty table at one time and a million entries at another.
    "plan_cache_mode": "force_custom_plan",
    # A value has one text, whoever casts it: verification has the same.
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "array_nulls": "on",
    "lc_numeric": "C",
    "lc_time": "C",
}
_WHERE_POSSIBLE: Final = {
    # A statement of a worker that was killed must not keep the graph. Not every system can see that.
    "client_connection_check_interval": "2000",
    "tcp_user_timeout": "25000",
    # A batch is staged in a temporary table and read several times; taken only where one is used. It is too
    # late for it in a session that has had a temporary table before, at somebody else's hands.
    "temp_buffers": "64MB",
    "lc_monetary": "C",
}


async def begin_session(
    connection: asyncpg.Connection, more: Mapping[str, str], *, only_at: int | None, seconds: float
) -> bool:
    """Set all that a session is to have, and `more`, by one round trip.

    With `only_at`, a server process, nothing is set if it is another that answers, and False is returned.
    """
    for settings in ({**_SETTINGS, **_WHERE_POSSIBLE, **more}, {**_SETTINGS, **more}):
        try:
            here = await connection.execute(_script(settings, only_at), timeout=seconds)
        except asyncpg.InvalidParameterValueError:
            continue
        if here == "SELECT 0":
            return False
        break
    else:
        raise RuntimeError("the settings of a session are wrong")
    if settings.keys() >= _WHERE_POSSIBLE.keys():
        return True
    for setting in _WHERE_POSSIBLE.items():
        try:
            await connection.execute(_script(dict([setting]), only_at), timeout=seconds)
        except asyncpg.InvalidParameterValueError:
            continue
    return True


def _script(settings: Mapping[str, str], only_at: int | None) -> str:
    here = "true" if only_at is None else f"pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {only_at}"
    listed = ", ".join(_pairs(settings))
    # The status of the last statement says whether it is the right process: a script gives no rows.
    return (
        "SELECT pg_catalog.set_config(s.name, s.value, false)"  # noqa: S608 - names and values are ours
        f" FROM (VALUES {listed}) AS s (name, value)"
        f" WHERE {here} AND pg_catalog.current_setting(s.name, true) IS NOT NULL;"
        f" SELECT WHERE {here}"
    )


def _pairs(settings: Mapping[str, str]) -> Iterable[str]:
    return (f"('{literal(name)}'::text, '{literal(value)}'::text)" for name, value in settings.items())
