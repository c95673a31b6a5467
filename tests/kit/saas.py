"""The example of many tenants in one schema (examples/multi-tenant), in two new databases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine
from syncline.engine.table_map import SchemaMap
from syncline.maps.document import read_map
from syncline.maps.one_tenant import of_tenant
from syncline.messages.base import GraphRef
from syncline.messages.sync import SyncResult
from syncline.messages.verification import Verification
from syncline.migrations import migrate_bookkeeping
from syncline.provider import GraphSchema, GraphVectors, SyncContext
from syncline.testing.graphs import TestGraph
from syncline.verify import verify

EXAMPLE: Final = Path(__file__).parents[2] / "examples/multi-tenant"
SHARED: Final = "saas"
"""The schema of the product's tables."""


def script(side: str) -> str:
    """Return the DDL of one side: `source` or `target`."""
    return (EXAMPLE / f"{side}.sql").read_text()


def saas_map() -> SchemaMap:
    """Return the map of the example."""
    return read_map((EXAMPLE / "map.yaml").read_text(), source="map.yaml")


def tenant(number: int) -> str:
    """Return the id of a tenant."""
    return f"0190a5b0-0000-7000-8000-{number:012}"


def task(number: int, of: int = 1) -> str:
    """Return the id of the nth task, project or label of a tenant."""
    return f"{of:08x}-0000-4000-8000-{number:012}"


@dataclass
class Saas:
    """Graphs of tenants over shared source tables, without a control plane."""

    stores: TestGraph
    schema_map: SchemaMap = field(default_factory=saas_map)
    engine: SyncEngine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = SyncEngine(self.schema_map)

    async def prepare(self, numbers: Sequence[int]) -> None:
        """Make the shared tables, captured, and a schema for each of these tenants."""
        await self.source(f"CREATE SCHEMA {SHARED}; SET search_path = {SHARED}; {script('source')}")
        await adopt(self.stores.write, SHARED, self.schema_map)
        for number in numbers:
            await migrate_bookkeeping(self.stores.target, _schema(number))
            await self.target(number, script("target"))

    def context(self, number: int) -> SyncContext:
        """Return what a provider is given for a run of a tenant's graph."""
        given = self.stores.context()
        return replace(
            given,
            graph=GraphRef(id=UUID(int=number), slug=f"t{number}"),
            write=GraphSchema(store=self.stores.write, schema=SHARED),
            target=GraphSchema(store=self.stores.target, schema=_schema(number)),
            vectors=GraphVectors(store=self.stores.vectors, prefix=f"{_schema(number)}_"),
        )

    async def cycle(self, number: int) -> SyncResult:
        """Run a cycle of a tenant's graph."""
        return await self.engine.of_tenant(tenant(number)).run_cycle(self.context(number))

    def map_of(self, number: int) -> SchemaMap:
        """Return the map of a tenant."""
        return of_tenant(self.schema_map, tenant(number))

    async def compared(self, number: int, *, repair: bool = False) -> Verification:
        """Compare a tenant's graph."""
        context = self.context(number)
        return await verify(
            self.map_of(number),
            write=context.write,
            target=context.target,
            vectors=context.vectors,
            embedding=context.embedding.name,
            repair=repair,
            who="test",
            why="test",
            run_id=f"verify-{number}",
        )

    async def source(self, sql: str) -> list[asyncpg.Record]:
        """Run a statement, or a script, in the write-db."""
        return await _run(self.stores.connect_write, f"SET search_path = {SHARED}", sql)

    async def target(self, number: int, sql: str) -> list[asyncpg.Record]:
        """Run a statement, or a script, in a tenant's schema of the graph-db."""
        return await _run(self.stores.connect_target, f"SET search_path = {_schema(number)}, syncline", sql)

    async def titles(self, number: int) -> list[str]:
        """Return the titles of a tenant's tasks."""
        return [row["title"] for row in await self.target(number, "SELECT title FROM tasks ORDER BY title")]


def _schema(number: int) -> str:
    return f"t{number:02}"


async def _run(connect: Callable[..., object], first: str, sql: str) -> list[asyncpg.Record]:
    connection: asyncpg.Connection = await connect()  # type: ignore[misc]
    try:
        await connection.execute(first)
        if ";" in sql:
            await connection.execute(sql)
            return []
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


_TASKS = """
INSERT INTO task (id, tenant_id, project_id, title, label_ids)
SELECT ('{base}-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, {whose}, '{first}', 'task ' || i || ' of {of}',
       ARRAY['{first}'::uuid]
FROM generate_series(1, {tasks}) i"""


def rows_of(numbers: Sequence[int], *, tasks: int = 3) -> str:
    """Return the script that gives each of these tenants a customer, a project, a label and some tasks."""
    made = ["INSERT INTO plan VALUES ('free', 0), ('paid', 9.50) ON CONFLICT DO NOTHING"]
    for of in numbers:
        whose = f"'{tenant(of)}'"
        made += [
            f"INSERT INTO customer VALUES ({whose}, 1, 'customer of {of}', 'paid')",
            f"INSERT INTO label VALUES ('{task(1, of)}', {whose}, 'urgent')",
            f"INSERT INTO project VALUES ('{task(1, of)}', {whose}, 'project of {of}', 1)",
            _TASKS.format(of=of, whose=whose, first=task(1, of), base=f"{of:08x}", tasks=tasks),
        ]
    return ";".join(made) + ";"
