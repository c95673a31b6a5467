"""Verification of a synthetic graph, in step and damaged: `python -m benchmarks.verify`.

The table goes to the screen and into docs/verify.md. All servers are on this machine, so that both sides of a
comparison share its cores.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks.engine import ROOT
from benchmarks.growth import FILL
from benchmarks.lab import SCHEMA, fresh_store, timed_cycle
from syncline.devstack.postgres import PostgresServer
from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.engine import KNOWLEDGE_GRAPH
from syncline.messages.verification import Verification
from syncline.migrations import migrate_graph, migrate_write
from syncline.provider import GraphSchema, GraphVectors
from syncline.stores.postgres import PostgresStore
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.verify import verify
from tests.kit.pages import replace_between

REPORT = ROOT / "docs" / "verify.md"
BEGIN, END = "<!-- benchmark:verify -->", "<!-- /benchmark:verify -->"
ODD = "UPDATE nodes SET concept = 'forged' WHERE key LIKE 'node%7777'; DELETE FROM edges WHERE key LIKE 'edge%77-2'"
EVERYTHING = "TRUNCATE edges CASCADE"

Lines = list[tuple[str, str]]


async def measure(rows: int) -> Lines:
    """Return the lines of the report."""
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder:
        postgres = PostgresServer(Path(folder) / "postgres")
        server = postgres.start()
        try:
            async with fresh_store(server, "write") as write, fresh_store(server, "graph") as target:
                await migrate_write(write, SCHEMA)
                await migrate_graph(target, SCHEMA)
                await _run(write, FILL.format(nodes=rows // 6))
                vectors = EmbeddedQdrantStore("benchmark", Path(folder) / "qdrant")
                lab = _Lab(write, target, vectors)
                await lab.cycle()
                for database in ("write", "graph"):
                    server.psql("VACUUM ANALYZE", database)
                    server.psql("CHECKPOINT")
                lines = await lab.measure()
                await vectors.close()
                return lines
        finally:
            postgres.stop()


class _Lab:
    """A graph that is in step."""

    def __init__(self, write: PostgresStore, target: PostgresStore, vectors: EmbeddedQdrantStore) -> None:
        self._write, self._target, self._vectors = write, target, vectors
        self._embedding = DevelopmentEmbedding(64)

    async def cycle(self) -> None:
        timing = await timed_cycle(self._write, self._target, self._vectors, self._embedding)
        print(f"cycle: {timing.result.rows:,} rows, {timing.result.links:,} links", flush=True)

    async def measure(self) -> Lines:
        found = await self._verify(repair=False)
        lines = [
            (
                f"`{relation.name}`, {relation.kind.value}",
                f"{relation.compared:,} in {relation.seconds:.1f} s",
            )
            for relation in found.relations
            if relation.compared > found.compared // 50
        ]
        if not found.equal:
            raise SystemExit(f"not equal: {found}")
        lines.append(("**All, in step**", f"{found.compared:,} in {found.seconds:.1f} s"))
        for name, damage in (("scattered over the graph", ODD), ("all edges and their links", EVERYTHING)):
            await _run(self._target, damage)
            found = await self._verify(repair=True)
            queued = sum(relation.queued for relation in found.relations)
            lines.append(
                (f"Damage, {name}", f"{found.damaged:,} found, {queued:,} asked for in {found.seconds:.1f} s")
            )
            await self.cycle()
            if not (await self._verify(repair=False)).equal:
                raise SystemExit(f"not healed: {name}")
        return lines

    async def _verify(self, *, repair: bool) -> Verification:
        found = await verify(
            KNOWLEDGE_GRAPH,
            write=GraphSchema(store=self._write, schema=SCHEMA),
            target=GraphSchema(store=self._target, schema=SCHEMA),
            vectors=GraphVectors(store=self._vectors, prefix="benchmark_"),
            embedding=self._embedding.name,
            repair=repair,
            who="benchmark",
            why="measured",
        )
        print(f"verified {found.compared:,} in {found.seconds:.1f} s, {found.damaged:,} damaged", flush=True)
        return found


async def _run(store: PostgresStore, script: str) -> None:
    async with store.driver() as connection:
        await connection.execute(f"SET search_path = {SCHEMA}")
        await connection.execute(script)
        await connection.execute("SET search_path = pg_catalog, pg_temp")


def main() -> None:
    """Measure, print, and replace the table in docs/verify.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    rows = arguments.parse_args().rows
    lines = asyncio.run(measure(rows))
    table = "\n".join(
        [
            f"| A write-db of {rows:,} rows | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in lines),
        ]
    )
    print(table)
    replace_between(REPORT, BEGIN, END, f"\n{table}\n")


if __name__ == "__main__":
    main()
