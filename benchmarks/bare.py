"""The yardstick: the same rows through bare COPY and one merge statement per table, and nothing else.

No cursor, no lock, no parking, no outbox, no batches: what a careful engineer would write by hand to move
these tables once. Links, foreign keys and the numbers of the nodes are included, ids are computed the same
way.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg

from syncline.engine.render.tenants import deleted_keys_of

COPIES = {
    "raw_sources": "SELECT * FROM write_raw_sources",
    "facts": "SELECT * FROM write_facts WHERE dedup_status = 'ready'",
    "fact_sources": "SELECT * FROM write_fact_sources",
    "nodes": "SELECT * FROM write_nodes",
    "edges": "SELECT * FROM write_edges",
}
"""Target table -> COPY source query."""

MERGES = {
    "raw_sources": """
        INSERT INTO raw_sources
        SELECT syncline.key_uuid(id), id, uri, title, content, content_hash, content_type, provider_id,
               provider_metadata, canonical_url, doi, fetch_status, fetch_error, fetched_at, created_at,
               updated_at, sync_xid::text::bigint
        FROM bare_raw_sources
        ON CONFLICT (id) DO UPDATE SET
            uri = excluded.uri, title = excluded.title, content = excluded.content,
            content_hash = excluded.content_hash, content_type = excluded.content_type,
            provider_id = excluded.provider_id, provider_metadata = excluded.provider_metadata,
            canonical_url = excluded.canonical_url, doi = excluded.doi, fetch_status = excluded.fetch_status,
            fetch_error = excluded.fetch_error, fetched_at = excluded.fetched_at,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            sync_version = excluded.sync_version""",
    "facts": """
        INSERT INTO facts
        SELECT syncline.key_uuid(id), id, content, fact_type, metadata, created_at, updated_at,
               sync_xid::text::bigint
        FROM bare_facts
        ON CONFLICT (id) DO UPDATE SET
            content = excluded.content, fact_type = excluded.fact_type, metadata = excluded.metadata,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            sync_version = excluded.sync_version""",
    "fact_sources": """
        INSERT INTO fact_sources
        SELECT syncline.key_uuid(fact_id), syncline.key_uuid(raw_source_id), context_snippet, attribution,
               created_at, updated_at, sync_xid::text::bigint
        FROM bare_fact_sources
        ON CONFLICT (fact_id, raw_source_id) DO UPDATE SET
            context_snippet = excluded.context_snippet, attribution = excluded.attribution,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            sync_version = excluded.sync_version""",
    "nodes": """
        INSERT INTO nodes
        SELECT syncline.key_uuid(id), id, concept, node_type, definition, syncline.key_uuid(parent_id),
               syncline.key_uuid(source_concept_id), visibility, creator_id, metadata, created_at,
               updated_at, sync_xid::text::bigint
        FROM bare_nodes
        ON CONFLICT (id) DO UPDATE SET
            concept = excluded.concept, node_type = excluded.node_type, definition = excluded.definition,
            parent_id = excluded.parent_id, source_concept_id = excluded.source_concept_id,
            visibility = excluded.visibility, creator_id = excluded.creator_id,
            metadata = excluded.metadata, created_at = excluded.created_at,
            updated_at = excluded.updated_at, sync_version = excluded.sync_version""",
    "node_facts": """
        INSERT INTO node_facts
        SELECT syncline.key_uuid(n.id), syncline.key_uuid(f) FROM bare_nodes n, unnest(n.fact_ids) f
        ON CONFLICT DO NOTHING""",
    "edges": """
        INSERT INTO edges
        SELECT syncline.key_uuid(id), id,
               CASE WHEN directed THEN s ELSE least(s, t) END,
               CASE WHEN directed THEN t ELSE greatest(s, t) END,
               relationship_type, directed, weight, justification, visibility, creator_id, metadata,
               created_at, updated_at, sync_xid::text::bigint
        FROM (SELECT *, syncline.key_uuid(source_node_id) s, syncline.key_uuid(target_node_id) t
              FROM bare_edges) e
        ON CONFLICT (id) DO UPDATE SET
            source_node_id = excluded.source_node_id, target_node_id = excluded.target_node_id,
            relationship_type = excluded.relationship_type, directed = excluded.directed,
            weight = excluded.weight, justification = excluded.justification,
            visibility = excluded.visibility, creator_id = excluded.creator_id,
            metadata = excluded.metadata, created_at = excluded.created_at,
            updated_at = excluded.updated_at, sync_version = excluded.sync_version""",
    "edge_facts": """
        INSERT INTO edge_facts
        SELECT syncline.key_uuid(e.id), syncline.key_uuid(f) FROM bare_edges e, unnest(e.fact_ids) f
        ON CONFLICT DO NOTHING""",
}
"""Target table -> its one merge statement, in the order of the foreign keys."""


NUMBERS = """
    INSERT INTO node_stats (node_id, fact_count, edge_count, child_count)
    SELECT n.id, coalesce(f.number, 0), coalesce(e.number, 0), coalesce(p.number, 0)
    FROM nodes n
    LEFT JOIN (SELECT node_id AS id, count(*) AS number FROM node_facts GROUP BY 1) f USING (id)
    LEFT JOIN (
        SELECT id, count(*) AS number FROM (
            SELECT source_node_id AS id FROM edges
            UNION ALL SELECT target_node_id FROM edges WHERE target_node_id <> source_node_id
        ) ends GROUP BY 1
    ) e USING (id)
    LEFT JOIN (SELECT parent_id AS id, count(*) AS number FROM nodes GROUP BY 1) p USING (id)
    ON CONFLICT (node_id) DO UPDATE SET
        fact_count = excluded.fact_count, edge_count = excluded.edge_count, child_count = excluded.child_count
    WHERE (node_stats.fact_count, node_stats.edge_count, node_stats.child_count)
        IS DISTINCT FROM (excluded.fact_count, excluded.edge_count, excluded.child_count)"""
"""The numbers of all nodes, counted at once at the end."""

NUMBERS_TOUCHED = """
    INSERT INTO node_stats (node_id, fact_count, edge_count, child_count)
    SELECT n.id, (SELECT count(*) FROM node_facts WHERE node_id = n.id),
           (SELECT count(*) FROM edges WHERE source_node_id = n.id)
               + (SELECT count(*) FROM edges WHERE target_node_id = n.id AND source_node_id <> n.id),
           (SELECT count(*) FROM nodes c WHERE c.parent_id = n.id)
    FROM nodes n
    WHERE n.id IN (
        SELECT syncline.key_uuid(id) FROM bare_nodes UNION SELECT syncline.key_uuid(parent_id) FROM bare_nodes
        UNION SELECT syncline.key_uuid(source_node_id) FROM bare_edges
        UNION SELECT syncline.key_uuid(target_node_id) FROM bare_edges
    )
    ON CONFLICT (node_id) DO UPDATE SET
        fact_count = excluded.fact_count, edge_count = excluded.edge_count, child_count = excluded.child_count
    WHERE (node_stats.fact_count, node_stats.edge_count, node_stats.child_count)
        IS DISTINCT FROM (excluded.fact_count, excluded.edge_count, excluded.child_count)"""
"""The numbers of the nodes that the staged rows touch."""

UNLINKS = """
    DELETE FROM {links} l USING bare_{table} b
    WHERE l.{owner} = syncline.key_uuid(b.id)
      AND NOT EXISTS (SELECT FROM unnest(b.fact_ids) f WHERE syncline.key_uuid(f) = l.fact_id)"""

DELETES = {
    "edges": "DELETE FROM edges t USING bare_deleted d WHERE d.source_table = 'write_edges'"
    " AND t.id = syncline.key_uuid(d.key[1])",
    "nodes": "DELETE FROM nodes t USING bare_deleted d WHERE d.source_table = 'write_nodes'"
    " AND t.id = syncline.key_uuid(d.key[1])",
}


async def copy_and_merge(
    source: asyncpg.Connection, target: asyncpg.Connection, *, since: int | None = None
) -> float:
    """Move every row, or those stamped by transaction `since` or later; return the seconds of the numbers.

    Both connections have the graph's schema on their search_path. Which rows changed is given for free: the
    yardstick has no cursor to keep.
    """
    async with target.transaction():
        for table, query in COPIES.items():
            columns = await source.fetch(
                "SELECT attname AS name, format_type(atttypid, NULL) AS type FROM pg_attribute"
                " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                f"write_{table}",
            )
            definitions = ", ".join(f"{column['name']} {column['type']}" for column in columns)
            await target.execute(f"CREATE TEMP TABLE bare_{table} ({definitions}) ON COMMIT DROP")
            if since is not None:
                changed = f"{query} {'AND' if 'WHERE' in query else 'WHERE'} sync_xid >= '{since}'::xid8"
            else:
                changed = query
            await pipe(source, target, changed, f"bare_{table}")
            if since is not None:
                await target.execute(f"ANALYZE bare_{table}")
        for table, statement in MERGES.items():
            if since is not None and table in ("node_facts", "edge_facts"):
                owner = table.removesuffix("_facts")
                await target.execute(UNLINKS.format(links=table, table=f"{owner}s", owner=f"{owner}_id"))
            await target.execute(statement)
        started = time.perf_counter()
        await target.execute(NUMBERS if since is None else NUMBERS_TOUCHED)
        return time.perf_counter() - started


KEYS = """
    SELECT format('ALTER TABLE %I DROP CONSTRAINT %I', c.relname, k.conname) AS leave, format(
               'ALTER TABLE %I ADD CONSTRAINT %I %s NOT VALID; ALTER TABLE %I VALIDATE CONSTRAINT %I',
               c.relname, k.conname, pg_get_constraintdef(k.oid), c.relname, k.conname
           ) AS put_back
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE k.contype = 'f' AND k.connamespace = current_schema()::regnamespace
    UNION ALL
    SELECT format('DROP INDEX %I', c.relname), pg_get_indexdef(i.indexrelid)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND NOT i.indisunique AND t.relname NOT LIKE 'sync\\_%'
    ORDER BY 1 DESC"""
"""The foreign keys and secondary indexes, for whoever thinks of taking them off: indexes come back first."""


async def copy_and_merge_without_keys(source: asyncpg.Connection, target: asyncpg.Connection) -> None:
    """Move every row with neither foreign keys nor secondary indexes, and put them back at the end."""
    keys = await target.fetch(KEYS)
    for key in keys:
        await target.execute(key["leave"])
    await copy_and_merge(source, target)
    for key in keys:
        await target.execute(key["put_back"])


async def copy_and_delete(source: asyncpg.Connection, target: asyncpg.Connection, *, since: int) -> None:
    """Delete what transaction `since` or later deleted; the foreign keys take the rest along."""
    async with target.transaction():
        await target.execute("CREATE TEMP TABLE bare_deleted (source_table text, key text[]) ON COMMIT DROP")
        await pipe(source, target, deleted_since(since), "bare_deleted")
        await target.execute("ANALYZE bare_deleted")
        for statement in DELETES.values():
            await target.execute(statement)
        await target.execute(NUMBERS)


def deleted_since(since: int) -> str:
    """Return the query for the keys that transaction `since` or a later one deleted."""
    keys = deleted_keys_of(None, "sync_tombstone", rows=f"sync_xid >= '{since}'::xid8")
    return f"SELECT source_table, key FROM {keys}"


async def pipe(source: asyncpg.Connection, target: asyncpg.Connection, query: str, table: str) -> None:
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(4)

    async def received() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            yield chunk

    writing = asyncio.create_task(target.copy_to_table(table, source=received(), format="binary"))
    await source.copy_from_query(query, output=chunks.put, format="binary")
    await chunks.put(None)
    await writing
