"""The yardstick: the same rows through bare COPY and one merge statement per table, and nothing else.

No cursor, no lock, no parking, no outbox, no batches: what a careful engineer would write by hand to move
these tables once. Links and foreign keys are included, ids are computed the same way.
"""

import asyncio
from collections.abc import AsyncIterator

import asyncpg

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


async def copy_and_merge(source: asyncpg.Connection, target: asyncpg.Connection) -> None:
    """Move every row; both connections have the graph's schema on their search_path."""
    async with target.transaction():
        for table, query in COPIES.items():
            columns = await source.fetch(
                "SELECT attname AS name, format_type(atttypid, NULL) AS type FROM pg_attribute"
                " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                f"write_{table}",
            )
            definitions = ", ".join(f"{column['name']} {column['type']}" for column in columns)
            await target.execute(f"CREATE TEMP TABLE bare_{table} ({definitions}) ON COMMIT DROP")
            await _pipe(source, target, query, f"bare_{table}")
        for statement in MERGES.values():
            await target.execute(statement)


async def _pipe(source: asyncpg.Connection, target: asyncpg.Connection, query: str, table: str) -> None:
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(4)

    async def received() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            yield chunk

    writing = asyncio.create_task(target.copy_to_table(table, source=received(), format="binary"))
    await source.copy_from_query(query, output=chunks.put, format="binary")
    await chunks.put(None)
    await writing
