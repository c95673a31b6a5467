"""Limits: Postgres errors that a smaller batch, or the same one later, would avoid."""

from syncline.engine.template import sql
from syncline.errors import StoreError, StoreUnavailable
from syncline.stores.postgres import PostgresStore

__all__ = ["is_limit", "with_setting"]

_LIMITS = ("53", "40P01", "55P03", "57014", "25P04")
"""SQLSTATEs, or their classes, of limits: resources, deadlocks, locks, time. The last closes connections."""

_SETTINGS = {
    "57014": ("statement_timeout",),
    "55P03": ("lock_timeout",),
    "53400": ("temp_file_limit",),
    "53200": ("work_mem", "shared_buffers"),
    "25P03": ("idle_in_transaction_session_timeout",),
    "25P04": ("transaction_timeout",),
    "57P05": ("idle_session_timeout",),
}
"""SQLSTATE -> the settings that a database administrator checks."""


def is_limit(error: StoreError) -> bool:
    """Return whether a smaller batch may succeed where this one failed."""
    return error.sqlstate is not None and error.sqlstate.startswith(_LIMITS)


async def with_setting(store: PostgresStore, error: StoreError) -> StoreError:
    """Return the error with the setting that caused it and where that is set; unchanged if there is none."""
    settings = _SETTINGS.get(error.sqlstate or "", ())
    if not settings:
        return error
    try:
        async with store.driver() as connection:
            rows = await connection.fetch(sql("limit_settings"), list(settings))
    except StoreUnavailable:
        return error
    if not rows:
        return error
    told = "; ".join(f"{row['name']} is {row['value']}, {row['source']}" for row in rows)
    named = type(error)(error.store, f"{error.problem} ({told})", sqlstate=error.sqlstate, said=error.said)
    named.everywhere = error.everywhere
    return named
