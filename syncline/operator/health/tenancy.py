"""Tenancy checks: who could misuse a worker's privileges by its role, schemas, locks or capture."""

from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from syncline.engine.lock import HolderName
from syncline.operator.health.check import Check, CheckStatus, listed
from syncline.quoting import counted
from syncline.sql import statements_of
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["check_capture", "check_locks", "check_role", "check_schemas"]

_sql = statements_of("syncline.operator.health")
_SILENT: Final = 120.0


async def check_role(name: str, store: PostgresStore, *, setting: str) -> Sequence[Check]:
    """Return the check of the workers' role: privileges beyond its grants."""
    name = f"{name}: role"
    async with store.driver() as connection, reading(connection):
        row = await connection.fetchrow(_sql("role"))
    held = [word for word in ("SUPERUSER", "CREATEROLE", "BYPASSRLS") if row[word.lower()]]
    return _warned(
        name,
        held,
        well=f"'{row['name']}' has no privileges beyond its grants",
        found=f"workers connect as '{row['name']}', which is ",
        fix=f"Create a role for workers with LOGIN and its grants only, and set it in {setting}.",
    )


async def check_capture(name: str, store: PostgresStore, schemas: Mapping[str, str]) -> Sequence[Check]:
    """Return the check of a write-db's capture (schema -> graph): the role it runs as, and its form."""
    name = f"{name}: capture"
    rows = await _fetch(store, "foreign_capture", schemas)
    earlier = [schemas[row["schema"]] for row in await _fetch(store, "earlier_capture", schemas)]
    found = _warned(
        name,
        [f"{schemas[row['schema']]} (as {row['acts_as']}, not {row['owner']})" for row in rows],
        well="the capture functions belong to the owners of the tables",
        found="capture functions run as another role than the owner of the tables: ",
        fix="Run `syncline graph adopt` for each of them.",
    )
    if not earlier:
        return found
    slower = _warned(
        name,
        earlier,
        well="",
        found="capture is of an earlier release, misses nothing and costs writers more: ",
        fix="Run `syncline graph adopt` for each of them; its next cycle then reads its tables once again.",
    )
    return [*(found if rows else ()), *slower]


async def check_schemas(name: str, store: PostgresStore, schemas: Mapping[str, str]) -> Sequence[Check]:
    """Return the check of which other roles may create objects in the graphs' schemas of a graph-db.

    Expressions of table maps are evaluated with the schema on the search_path.
    """
    name = f"{name}: schemas"
    rows = await _fetch(store, "creators", schemas)
    return _warned(
        name,
        [f"{row['role']} in {row['schema']}" for row in rows],
        well="only their owners may create objects in the schemas of graphs",
        found="other roles may create operators there, which workers may call: ",
        fix="REVOKE CREATE ON SCHEMA … FROM each of them, or ALTER SCHEMA … OWNER TO the workers' role.",
    )


async def check_locks(
    name: str, store: PostgresStore, schemas: Mapping[str, str], *, silent_seconds: float = _SILENT
) -> Sequence[Check]:
    """Return the checks of the holders of graphs' locks: any role that may connect can take one.

    A worker's cycle sends statements less than `silent_seconds` apart, unless its worker is frozen, or waits
    for the embedding service or the vector store.
    """
    name = f"{name}: locks"
    rows = await _fetch(store, "graph_locks", schemas)
    claims = [HolderName.of(row["application_name"], now=row["now"]) if row["own"] else None for row in rows]
    strange, silent, held = [], [], []
    for row, claim in zip(rows, claims, strict=True):
        graph, idle = schemas[row["schema"]], row["idle_seconds"]
        session = f"pid {row['pid']}, role {row['role'] or 'unknown'}"
        unnamed = f"{graph} by {session} (application {row['application_name'] or 'unnamed'})"
        whose = unnamed if claim is None else f"{_by_run(graph, claim)} ({session})"
        if not row["own"]:
            strange.append(whose)
        elif idle is not None and idle > silent_seconds:
            silent.append(f"{whose}, silent for {idle:.0f} s")
        else:
            held.append(whose)
    found = []
    if strange:
        found.append(
            Check(
                name=name,
                status=CheckStatus.WARN,
                found=f"graphs are held by sessions of other roles: {listed(strange)}",
                fix="SELECT pg_terminate_backend(pid), and REVOKE CONNECT ON DATABASE … FROM PUBLIC.",
            )
        )
    if silent:
        found.append(
            Check(
                name=name,
                status=CheckStatus.WARN,
                found=f"graphs are held by idle sessions: {listed(silent)}",
                fix="Check whether the worker of that run is frozen, or waits for embeddings or vectors. The "
                "run's next attempt, or the next run, takes the graph over from a dead worker. If the "
                "session is not a worker's, SELECT pg_terminate_backend(pid).",
            )
        )
    if found:
        return found
    whom = f": {listed(held)}" if held else ""
    return [Check(name=name, found=f"workers hold {len(rows):,} of {counted(len(schemas), 'graph')}{whom}")]


def _by_run(graph: str, claim: HolderName) -> str:
    since = "" if claim.since is None else f", since {claim.since:%Y-%m-%d %H:%M}Z"
    return f"{graph} by run {claim.run_id}, attempt {claim.attempt}{since}"


def _warned(name: str, named: Sequence[str], *, well: str, found: str, fix: str) -> Sequence[Check]:
    """Return a warning that ends with what is `named`; if nothing is, the check is ok, and `well` says so."""
    if not named:
        return [Check(name=name, found=well)]
    return [Check(name=name, status=CheckStatus.WARN, found=f"{found}{listed(named)}", fix=fix)]


async def _fetch(store: PostgresStore, query: str, schemas: Mapping[str, str]) -> list[asyncpg.Record]:
    async with store.driver() as connection, reading(connection):
        return list(await connection.fetch(_sql(query), list(schemas)))
