"""The check of all graphs of a store: that no policy hides rows of their tables from the workers' role."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from syncline.adoption.policies import hidden
from syncline.health.check import Check, CheckStatus
from syncline.stores.postgres import PostgresStore

__all__ = ["check_policies"]

_MOST_NAMED: Final = 10
_ASK: Final = text(
    """
    SELECT n.nspname AS schema, c.relname AS name, current_user::text AS role
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relrowsecurity AND n.nspname = ANY (:schemas) AND row_security_active(c.oid)
      AND (:target OR c.relname LIKE 'sync\\_%' OR EXISTS (
          SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'sync_xid'
      ))
    ORDER BY 1, 2
    """
)


async def check_policies(
    name: str, store: PostgresStore, schemas: Sequence[str], *, target: bool
) -> Sequence[Check]:
    """Return the check of the graphs' schemas in a store; of a write-db, of the tables that are captured."""
    async with store.begin() as connection:
        rows = (await connection.execute(_ASK, {"schemas": list(schemas), "target": target})).all()
    if not rows:
        return [Check(name=name, found="no policy hides rows from the workers' role")]
    tables = ", ".join(f"{row.schema}.{row.name}" for row in rows[:_MOST_NAMED])
    sentences = [hidden(row.schema, row.name, row.role) for row in rows[:_MOST_NAMED]]
    more = f" And {len(rows) - _MOST_NAMED:,} more." if len(rows) > _MOST_NAMED else ""
    return [
        Check(
            name=name,
            status=CheckStatus.FAIL,
            found=f"row level security applies to {tables}",
            fix=" ".join(sentences) + more,
        )
    ]
