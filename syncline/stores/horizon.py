"""Horizon: below which transaction all of a database have ended, whatever runs in others of the cluster."""

from typing import Final

from syncline.sql import statements_of

__all__ = ["HORIZON", "OLDEST_WRITER"]

_sql = statements_of("syncline.stores")

HORIZON: Final = _sql("horizon")
"""SQL expression, xid8, of its statement's snapshot: transactions below it are visible, or never will be.

Under READ COMMITTED it may be in one statement of a transaction only.
"""

OLDEST_WRITER: Final = _sql("oldest_writer")
"""SQL query for the transaction that holds it back: (age in s, pid, database, application_name, gid)."""
