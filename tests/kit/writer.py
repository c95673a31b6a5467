"""A writer of a knowledge graph, for histories: a transaction that stays open, and rows of its own."""

import asyncpg

__all__ = ["KEYS", "Writer"]

KEYS = 3
"""Rows of each table that a writer has."""


class Writer:
    """One connection that opens a transaction at its first write and keeps it until told to end it.

    It writes rows of its own, so that it never waits for another writer, and names everybody's.
    """

    def __init__(self, connection: asyncpg.Connection, number: int) -> None:
        self._connection = connection
        self._number = number
        self._transaction: asyncpg.transaction.Transaction | None = None

    async def execute(self, sql: str, *arguments: object) -> None:
        if self._transaction is None:
            self._transaction = self._connection.transaction()
            await self._transaction.start()
        await self._connection.execute(sql, *arguments)

    async def put(self, table: str, key: int, refers: tuple[int, int, int], flag: bool) -> None:
        own = self._number * KEYS + key
        one, two, three = refers
        facts = [f"fact{one}", f"fact{two}", f"fact{one}"]
        node = f"node{one}"
        match table:
            case "write_raw_sources":
                await self._upsert(
                    table, id=f"source{own}", title=f"title {one}", content_hash=f"hash{two % 3}"
                )
            case "write_facts":
                status = "ready" if flag else "pending"
                await self._upsert(table, id=f"fact{own}", content=f"fact {one}", dedup_status=status)
            case "write_fact_sources":
                await self._upsert(
                    table, 2, fact_id=f"fact{own}", raw_source_id=f"source{one}", attribution=f"by {two}"
                )
            case "write_nodes":
                await self._upsert(
                    table,
                    id=f"node{own}",
                    concept=f"concept {three}",
                    parent_id=f"node{two}" if flag else None,
                    source_concept_id=node,
                    fact_ids=facts if flag else facts[:1],
                    visibility="private" if flag else "public",
                )
            case "write_node_fact_rejections":
                await self._upsert(table, 2, node_id=node, fact_id=f"fact{own}", reason=f"reason {three}")
            case "write_edges":
                await self._upsert(
                    table,
                    id=f"edge{own}",
                    source_node_id=node,
                    target_node_id=f"node{two}",
                    relationship_type=f"type {three}",
                    directed=flag,
                    fact_ids=facts,
                )
            case "write_dimensions":
                await self._upsert(
                    table, id=f"dim{own}", node_id=node, model_id="m", content=f"c {two}", fact_ids=facts
                )
            case "write_convergence_reports":
                await self._upsert(table, node_id=f"node{own}", convergence_score=one / 10)
            case "write_node_counters":
                await self._upsert(table, node_id=f"node{own}", access_count=one)
            case "write_node_versions":
                await self._upsert(table, id=f"version{own}", node_id=node, version=two)
            case "write_prohibited_chunks":
                await self._upsert(
                    table, id=f"chunk{own}", content_hash=f"hash{one % 3}", chunk_text=f"t {two}"
                )
            case "write_llm_usage":
                await self._upsert(table, id=f"usage{own}", model_id=f"m{one}")

    async def _upsert(self, table: str, keys: int = 1, **values: object) -> None:
        columns = list(values)
        key, others = columns[:keys], columns[keys:]
        await self.execute(
            f"INSERT INTO {table} ({', '.join(columns)})"
            f" VALUES ({', '.join(f'${index + 1}' for index in range(len(columns)))})"
            f" ON CONFLICT ({', '.join(key)}) DO UPDATE"
            f" SET {', '.join(f'{column} = excluded.{column}' for column in others)}",
            *values.values(),
        )

    async def delete(self, table: str, key: int) -> None:
        own = self._number * KEYS + key
        column, kind = {
            "write_raw_sources": ("id", "source"),
            "write_facts": ("id", "fact"),
            "write_fact_sources": ("fact_id", "fact"),
            "write_nodes": ("id", "node"),
            "write_node_fact_rejections": ("fact_id", "fact"),
            "write_edges": ("id", "edge"),
            "write_dimensions": ("id", "dim"),
            "write_convergence_reports": ("node_id", "node"),
            "write_node_counters": ("node_id", "node"),
            "write_node_versions": ("id", "version"),
            "write_prohibited_chunks": ("id", "chunk"),
            "write_llm_usage": ("id", "usage"),
        }[table]
        await self.execute(f"DELETE FROM {table} WHERE {column} = $1", f"{kind}{own}")

    async def end(self, *, commit: bool) -> None:
        if self._transaction is not None:
            await (self._transaction.commit() if commit else self._transaction.rollback())
            self._transaction = None

    async def close(self) -> None:
        """Hang up; a transaction that is open is rolled back."""
        await self._connection.close()

    def terminate(self) -> None:
        """Hang up without a word, as when its server is lost."""
        self._connection.terminate()
