"""Checks of the graphs of a store: no rows hidden by policies, and point-in-time restores are detected."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text

from syncline.capture.install.ownership import hidden
from syncline.engine.schema_problems import Footing
from syncline.operator.health.check import Check, CheckStatus
from syncline.stores.postgres import PostgresStore

__all__ = ["check_policies", "check_positions"]

_MOST_NAMED: Final = 10
_UNNOTICED: Final = "a restore to an earlier point in time would not be detected"
_PRIMARY: Final = "Set the workers' write-db to the primary."
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


_POSITIONS: Final = text(
    """
    SELECT s.schema, current_user::text AS role, pg_is_in_recovery() AS standby, p.oid IS NOT NULL AS there,
           coalesce(has_table_privilege(p.oid, 'SELECT') AND has_table_privilege(p.oid, 'INSERT')
               AND has_table_privilege(p.oid, 'UPDATE'), false) AS writable
    FROM unnest(CAST(:schemas AS text[])) AS s (schema)
    CROSS JOIN LATERAL (SELECT to_regclass(format('%I.sync_position', s.schema))::oid AS oid) p
    ORDER BY 1
    """
)


async def check_positions(name: str, store: PostgresStore, schemas: Sequence[str]) -> Sequence[Check]:
    """Return the check of the graphs' schemas in a write-db: a restore to an earlier time is detected."""
    async with store.begin() as connection:
        rows = (await connection.execute(_POSITIONS, {"schemas": list(schemas)})).all()
    if rows and rows[0].standby:
        return [
            Check(name=name, status=CheckStatus.WARN, found=f"{_UNNOTICED}: it is a standby", fix=_PRIMARY)
        ]
    lacking = [row for row in rows if not row.writable]
    if not lacking:
        return [Check(name=name, found="a restore to an earlier point in time would be detected")]
    footings = [Footing(role=row.role, there=row.there) for row in lacking[:_MOST_NAMED]]
    problems = [footing.problem(row.schema) or "" for footing, row in zip(footings, lacking, strict=False)]
    found = f"{_UNNOTICED}: {len(lacking):,} of {len(rows):,} graphs leave no token"
    return [Check(name=name, status=CheckStatus.WARN, found=found, fix=" ".join(problems))]


async def check_policies(
    name: str, store: PostgresStore, schemas: Sequence[str], *, target: bool
) -> Sequence[Check]:
    """Return the policy check of the graphs' schemas in a store; in a write-db, of the captured tables."""
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
