"""Session settings: what holds on every connection, whatever role, database and host have set.

Set after connecting, since a pooler rejects unknown start-up parameters.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg

from syncline.sql import literal

__all__ = ["begin_session"]

_SETTINGS: Final = {
    # Unqualified names are found only where a transaction sets the path.
    "search_path": "pg_catalog, pg_temp",
    # A worker lost behind a network fault must not hold its graph's lock for hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "120000",
    # Limits meant for interactive use: a batch may take long, and connections idle between batches.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    # Rows hidden by a policy must raise an error, not look absent.
    "row_security": "off",
    "standard_conforming_strings": "on",
    # The same statement meets an empty table once and a million entries later.
    "plan_cache_mode": "force_custom_plan",
    # A value must have one text form in every session: verification relies on it.
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
    # A statement of a killed worker must not hold the graph. Not every system can detect that.
    "client_connection_check_interval": "2000",
    "tcp_user_timeout": "25000",
    # A batch is staged in a temporary table and read several times; memory is used only where one exists. It
    # has no effect in a session that already used a temporary table.
    "temp_buffers": "64MB",
    "lc_monetary": "C",
}


async def begin_session(
    connection: asyncpg.Connection, more: Mapping[str, str], *, only_at: int | None, seconds: float
) -> bool:
    """Apply all session settings, and `more`, in one round trip.

    With `only_at`, a server process id, nothing is set if another process answers; then returns False.
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
    # The status of the last statement shows whether it is the right process: a script returns no rows.
    return (
        "SELECT pg_catalog.set_config(s.name, s.value, false)"  # noqa: S608 - names and values are ours
        f" FROM (VALUES {listed}) AS s (name, value)"
        f" WHERE {here} AND pg_catalog.current_setting(s.name, true) IS NOT NULL;"
        f" SELECT WHERE {here}"
    )


def _pairs(settings: Mapping[str, str]) -> Iterable[str]:
    return (f"('{literal(name)}'::text, '{literal(value)}'::text)" for name, value in settings.items())
