"""Horizon: below which transaction all of a database have ended, whatever runs in others of the cluster."""

from typing import Final

from syncline.sql import statements_of

__all__ = ["HORIZON", "NEXT_TRANSACTION", "OLDEST_WRITER", "horizon_holder"]

_sql = statements_of("syncline.stores")

_HERE: Final = _sql("here")

HORIZON: Final = _sql("horizon", here=_HERE)
"""SQL expression, xid8, of its statement's snapshot: transactions below it are visible, or never will be.

Under READ COMMITTED it may be in one statement of a transaction only.
"""

NEXT_TRANSACTION: Final = _sql("next_transaction", here=_HERE)
"""SQL expression, xid8: no transaction of the database has begun from it on, muted ones neither."""

OLDEST_WRITER: Final = _sql("oldest_writer")
"""SQL query for the transaction that holds it back: (age in s, pid, database, application_name, gid)."""


def horizon_holder(horizon: str) -> str:
    """Return an SQL condition: whether an open transaction of the database holds this horizon back.

    If not, it was asked while that one ended elsewhere: another question soon finds a higher one.
    """
    return _sql("horizon_holder", here=_HERE, horizon=horizon)
