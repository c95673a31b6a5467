"""Rights checks of a store: missing privileges, hidden rows, and whether a restore would be noticed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import asyncpg
from sqlalchemy import text

from syncline import names
from syncline.capture.install.ownership import hidden
from syncline.control.graphs import Graph
from syncline.control.services import Role
from syncline.engine.schema_problems import Footing
from syncline.engine.table_map import SchemaMap
from syncline.operator.health.check import Check, CheckStatus
from syncline.quoting import counted
from syncline.rights.databases import read_place
from syncline.rights.missing import missing_rights
from syncline.rights.needed import (
    Place,
    Right,
    worker_control_rights,
    worker_graph_rights,
    worker_write_rights,
)
from syncline.sql import quoted, statements_of
from syncline.stores.postgres import PostgresStore

__all__ = ["check_policies", "check_positions", "check_rights", "needed_rights"]

_MOST_NAMED: Final = 20
_MOST_GRANTS: Final = 200
_sql = statements_of("syncline.rights")


def needed_rights(
    role: Role | None,
    graphs: Sequence[Graph],
    *,
    control: bool = False,
    maps: Mapping[str, SchemaMap] | None = None,
) -> Iterator[Right]:
    """Yield the privileges that a worker needs in a store used as `role`; `control`: as control plane.

    `maps`: slug -> the stored map of a graph that has one.
    """
    if role == "write":
        yield from worker_write_rights([read_place(graph, (maps or {}).get(graph.slug)) for graph in graphs])
    if role == "graph":
        schemas = [graph.schema_name for graph in graphs]
        shadows = [names.shadow_schema(graph.schema_name) for graph in graphs if graph.shadowed]
        yield from worker_graph_rights([Place(schema=schema) for schema in [*schemas, *shadows]])
    if control:
        yield from worker_control_rights()


async def check_rights(
    name: str, store: PostgresStore, needed: Iterator[Right], *, shadowed: Sequence[Graph] = ()
) -> Check:
    """Return the check of one store, or raise StoreError if it does not answer.

    `shadowed` are the graphs whose shadows are created there. Objects that do not exist yet are ignored.
    """
    async with store.driver() as connection:
        missing = await missing_rights(connection, needed)
        role: str = await connection.fetchval("SELECT current_user::text")
        lacking = [(str(right), right.grant) for right in missing]
        if shadowed:
            lacking += await _to_create(connection, role, store.owner_role, shadowed)
    if not lacking:
        return Check(name=name, found=f"role {role} has all privileges that it needs")
    named = "; ".join(what for what, _ in lacking[:_MOST_NAMED])
    more = f"; and {len(lacking) - _MOST_NAMED:,} more" if len(lacking) > _MOST_NAMED else ""
    run = " ".join(f"{grant};" for _, grant in lacking[:_MOST_GRANTS])
    return Check(
        name=name,
        status=CheckStatus.FAIL,
        found=f"role {role} at {store.place} lacks {named}{more}",
        fix=f"There, as an administrator: {run} `syncline grants` prints all that roles need.",
    )


async def _to_create(
    connection: asyncpg.Connection, role: str, owner_role: str | None, graphs: Sequence[Graph]
) -> list[tuple[str, str]]:
    """Return the privileges missing to create and promote shadows, each with its GRANT."""
    schemas = [graph.schema_name for graph in graphs]
    row = await connection.fetchrow(_sql("creating"), owner_role or role, schemas)
    acting = quoted(owner_role or role)
    found: list[tuple[str, str]] = []
    if not row["known"]:
        return [(f"role {acting}, which SYNCLINE_OWNER_ROLE names", f"CREATE ROLE {acting}")]
    if not row["member"]:
        found.append((f"membership in {acting}, to act as the owner", f"GRANT {acting} TO {quoted(role)}"))
    if not row["creates"]:
        grant = f"GRANT CREATE ON DATABASE {row['database']} TO {acting}"
        found.append((f"CREATE on database {row['database']}, to make shadows", grant))
    found += [
        (f"membership in {owner}, which owns a live schema, to promote", f"GRANT {owner} TO {acting}")
        for owner in row["owners"]
    ]
    return found


_TABLES_NAMED: Final = 10
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
    footings = [Footing(role=row.role, there=row.there) for row in lacking[:_TABLES_NAMED]]
    problems = [footing.problem(row.schema) or "" for footing, row in zip(footings, lacking, strict=False)]
    found = f"{_UNNOTICED}: no token is left for {len(lacking):,} of {counted(len(rows), 'graph')}"
    return [Check(name=name, status=CheckStatus.WARN, found=found, fix=" ".join(problems))]


async def check_policies(
    name: str, store: PostgresStore, schemas: Sequence[str], *, target: bool
) -> Sequence[Check]:
    """Return the policy check of the graphs' schemas in a store; in a write-db, of the captured tables."""
    async with store.begin() as connection:
        rows = (await connection.execute(_ASK, {"schemas": list(schemas), "target": target})).all()
    if not rows:
        return [Check(name=name, found="no policy hides rows from the workers' role")]
    tables = ", ".join(f"{row.schema}.{row.name}" for row in rows[:_TABLES_NAMED])
    sentences = [hidden(row.schema, row.name, row.role) for row in rows[:_TABLES_NAMED]]
    more = f" And {len(rows) - _TABLES_NAMED:,} more." if len(rows) > _TABLES_NAMED else ""
    return [
        Check(
            name=name,
            status=CheckStatus.FAIL,
            found=f"row level security applies to {tables}",
            fix=" ".join(sentences) + more,
        )
    ]
