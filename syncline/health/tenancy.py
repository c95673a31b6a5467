"""Checks of who could do what with the rights of a worker: its role, its graphs' schemas, locks, capture."""

from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from syncline.health.check import Check, CheckStatus
from syncline.sqltext import statements_of
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["check_capture", "check_locks", "check_role", "check_schemas"]

_sql = statements_of("syncline.health")
_MOST_NAMED: Final = 20


async def check_role(name: str, store: PostgresStore, *, setting: str) -> Sequence[Check]:
    """Return the check of the role that workers connect as: what it may do beyond its grants."""
    name = f"{name}: role"
    async with store.driver() as connection, reading(connection):
        row = await connection.fetchrow(_sql("role"))
    held = [word for word in ("SUPERUSER", "CREATEROLE", "BYPASSRLS") if row[word.lower()]]
    if not held:
        return [Check(name=name, found=f"'{row['name']}' has what it was granted, and nothing else")]
    return [
        Check(
            name=name,
            status=CheckStatus.WARN,
            found=f"workers connect as '{row['name']}', which is {', '.join(held)}",
            fix=f"Give workers a role that may only log in and what it is granted, and name it in {setting}.",
        )
    ]


async def check_capture(name: str, store: PostgresStore, schemas: Mapping[str, str]) -> Sequence[Check]:
    """Return the check of what captures the schemas of a write-db (schema -> graph), and whom it acts as."""
    name = f"{name}: capture"
    rows = await _fetch(store, "foreign_capture", schemas)
    if not rows:
        return [Check(name=name, found="what captures the tables belongs to their owners")]
    named = [f"{schemas[row['schema']]} (as {row['acts_as']}, not {row['owner']})" for row in rows]
    return [
        Check(
            name=name,
            status=CheckStatus.WARN,
            found=f"what captures the tables acts as another role than their owner: {_listed(named)}",
            fix="Run `syncline graph adopt` for each of them.",
        )
    ]


async def check_schemas(name: str, store: PostgresStore, schemas: Mapping[str, str]) -> Sequence[Check]:
    """Return the check of who else may create in the graphs' schemas of a graph-db.

    Expressions of table maps are evaluated there with the schema on the search_path.
    """
    name = f"{name}: schemas"
    rows = await _fetch(store, "creators", schemas)
    if not rows:
        return [Check(name=name, found="nobody but their owners may create in the schemas of graphs")]
    named = [f"{row['role']} in {row['schema']}" for row in rows]
    return [
        Check(
            name=name,
            status=CheckStatus.WARN,
            found=f"others may create operators there, which workers may call: {_listed(named)}",
            fix="REVOKE CREATE ON SCHEMA … FROM each of them, or ALTER SCHEMA … OWNER TO the workers' role.",
        )
    ]


async def check_locks(name: str, store: PostgresStore, schemas: Mapping[str, str]) -> Sequence[Check]:
    """Return the check of who holds graphs' locks: anybody who may connect to a graph-db can take one."""
    name = f"{name}: locks"
    rows = await _fetch(store, "graph_locks", schemas)
    strange = [row for row in rows if not row["own"]]
    if not strange:
        return [Check(name=name, found=f"workers hold {len(rows):,} of {len(schemas):,} graphs")]
    named = [
        f"{schemas[row['schema']]} by pid {row['pid']}, role {row['role'] or 'unknown'} "
        f"(application {row['application_name'] or 'unnamed'})"
        for row in strange
    ]
    return [
        Check(
            name=name,
            status=CheckStatus.WARN,
            found=f"graphs are held by sessions of other roles: {_listed(named)}",
            fix="SELECT pg_terminate_backend(pid), and REVOKE CONNECT ON DATABASE … FROM PUBLIC.",
        )
    ]


async def _fetch(store: PostgresStore, query: str, schemas: Mapping[str, str]) -> list[asyncpg.Record]:
    async with store.driver() as connection, reading(connection):
        return list(await connection.fetch(_sql(query), list(schemas)))


def _listed(named: Sequence[str]) -> str:
    more = f" and {len(named) - _MOST_NAMED:,} more" if len(named) > _MOST_NAMED else ""
    return ", ".join(named[:_MOST_NAMED]) + more
