"""The built-in table map: a knowledge graph of sources, facts, nodes, edges, and what is known about them."""

from syncline.engine.table_map import (
    Column,
    Links,
    Reference,
    SchemaMap,
    Stat,
    Stats,
    TableMap,
    VectorProjection,
)

_TIMES = (Column(name="created_at", type="timestamptz"), Column(name="updated_at", type="timestamptz"))

RAW_SOURCES = TableMap(
    name="raw_sources",
    source="write_raw_sources",
    columns=(
        Column(name="uri"),
        Column(name="title"),
        Column(name="content"),
        Column(name="content_hash"),
        Column(name="content_type"),
        Column(name="provider_id"),
        Column(name="provider_metadata", type="jsonb"),
        Column(name="canonical_url"),
        Column(name="doi"),
        Column(name="fetch_status"),
        Column(name="fetch_error"),
        Column(name="fetched_at", type="timestamptz"),
        *_TIMES,
    ),
)

FACTS = TableMap(
    name="facts",
    source="write_facts",
    present="dedup_status = 'ready'",
    columns=(
        Column(name="content"),
        Column(name="fact_type"),
        Column(name="metadata", type="jsonb"),
        *_TIMES,
    ),
    vector=VectorProjection(
        collection="facts",
        text="t.content",
        payload={"key": "t.key", "fact_type": "t.fact_type"},
        indexed=("fact_type",),
    ),
)

FACT_SOURCES = TableMap(
    name="fact_sources",
    source="write_fact_sources",
    key=("fact_id", "raw_source_id"),
    references=(
        Reference(column="fact_id", parent="facts", required=True),
        Reference(column="raw_source_id", parent="raw_sources", required=True),
    ),
    columns=(Column(name="context_snippet"), Column(name="attribution"), *_TIMES),
)

NODES = TableMap(
    name="nodes",
    source="write_nodes",
    references=(
        Reference(column="parent_id", parent="nodes", required=False),
        Reference(column="source_concept_id", parent="nodes", required=False),
    ),
    columns=(
        Column(name="concept"),
        Column(name="node_type"),
        Column(name="definition"),
        # Without these two a private row would become public when it is copied.
        Column(name="visibility"),
        Column(name="creator_id"),
        Column(name="metadata", type="jsonb"),
        *_TIMES,
    ),
    links=(
        Links(
            table="node_facts",
            source="fact_ids",
            owner="node_id",
            member="fact_id",
            parent="facts",
            rejected_by="node_fact_rejections",
        ),
    ),
    stats=Stats(
        table="node_stats",
        owner="node_id",
        columns=(
            Stat(column="fact_count", counted="node_facts", by=("node_id",)),
            Stat(column="edge_count", counted="edges", by=("source_node_id", "target_node_id")),
            Stat(column="child_count", counted="nodes", by=("parent_id",)),
            Stat(column="dimension_count", counted="dimensions", by=("node_id",)),
            Stat(
                column="convergence_score",
                counted="convergence_reports",
                by=("node_id",),
                value="max(c.convergence_score)",
            ),
        ),
    ),
    vector=VectorProjection(
        collection="nodes",
        text="concat_ws(E'\\n', t.concept, t.definition)",
        payload={
            "key": "t.key",
            "concept": "t.concept",
            "node_type": "t.node_type",
            "visibility": "t.visibility",
            "creator_id": "t.creator_id",
        },
        indexed=("node_type", "visibility", "creator_id"),
    ),
)

NODE_FACT_REJECTIONS = TableMap(
    name="node_fact_rejections",
    source="write_node_fact_rejections",
    key=("node_id", "fact_id"),
    references=(
        Reference(column="node_id", parent="nodes", required=True),
        Reference(column="fact_id", parent="facts", required=True),
    ),
    columns=(Column(name="reason"), Column(name="created_at", type="timestamptz")),
)

EDGES = TableMap(
    name="edges",
    source="write_edges",
    references=(
        Reference(column="source_node_id", parent="nodes", required=True),
        Reference(column="target_node_id", parent="nodes", required=True),
    ),
    columns=(
        Column(name="relationship_type"),
        Column(name="directed", type="boolean"),
        Column(name="weight", type="double precision"),
        Column(name="justification"),
        Column(name="visibility"),
        Column(name="creator_id"),
        Column(name="metadata", type="jsonb"),
        *_TIMES,
    ),
    # An undirected edge is stored in one direction only, whichever end its writer named first.
    expressions={
        "source_node_id": "CASE WHEN s.directed THEN s.ref_source_node_id "
        "ELSE least(s.ref_source_node_id, s.ref_target_node_id) END",
        "target_node_id": "CASE WHEN s.directed THEN s.ref_target_node_id "
        "ELSE greatest(s.ref_source_node_id, s.ref_target_node_id) END",
    },
    links=(Links(table="edge_facts", source="fact_ids", owner="edge_id", member="fact_id", parent="facts"),),
)

_NODE = Reference(column="node_id", parent="nodes", required=True)

DIMENSIONS = TableMap(
    name="dimensions",
    source="write_dimensions",
    references=(_NODE,),
    columns=(
        Column(name="model_id"),
        Column(name="batch_index", type="integer"),
        Column(name="content"),
        Column(name="confidence", type="double precision"),
        Column(name="metadata", type="jsonb"),
        *_TIMES,
    ),
    links=(
        Links(
            table="dimension_facts",
            source="fact_ids",
            owner="dimension_id",
            member="fact_id",
            parent="facts",
        ),
    ),
)

CONVERGENCE_REPORTS = TableMap(
    name="convergence_reports",
    source="write_convergence_reports",
    key=("node_id",),
    references=(_NODE,),
    columns=(
        Column(name="convergence_score", type="double precision"),
        Column(name="converged_claims", type="jsonb"),
        Column(name="divergent_claims", type="jsonb"),
        Column(name="recommended_content"),
        *_TIMES,
    ),
)

NODE_COUNTERS = TableMap(
    name="node_counters",
    source="write_node_counters",
    key=("node_id",),
    references=(_NODE,),
    columns=(
        Column(name="access_count", type="bigint"),
        Column(name="update_count", type="bigint"),
        Column(name="last_accessed_at", type="timestamptz"),
        *_TIMES,
    ),
)

NODE_VERSIONS = TableMap(
    name="node_versions",
    source="write_node_versions",
    references=(_NODE,),
    columns=(
        Column(name="version", type="integer"),
        Column(name="snapshot", type="jsonb"),
        Column(name="creator_id"),
        Column(name="created_at", type="timestamptz"),
    ),
)

PROHIBITED_CHUNKS = TableMap(
    name="prohibited_chunks",
    source="write_prohibited_chunks",
    # Writers identify a source by its content: the same content may have been fetched under several ids.
    references=(
        Reference(
            column="content_hash",
            parent="raw_sources",
            required=True,
            target="raw_source_id",
            by="content_hash",
        ),
    ),
    columns=(
        Column(name="content_hash"),
        Column(name="chunk_text"),
        Column(name="model_id"),
        Column(name="reason"),
        *_TIMES,
    ),
)

LLM_USAGE = TableMap(
    name="llm_usage",
    source="write_llm_usage",
    columns=(
        Column(name="task"),
        Column(name="model_id"),
        Column(name="prompt_tokens", type="bigint"),
        Column(name="completion_tokens", type="bigint"),
        Column(name="cost_usd", type="numeric"),
        Column(name="created_at", type="timestamptz"),
    ),
)

KNOWLEDGE_GRAPH = SchemaMap(
    name="knowledge_graph",
    tables=(
        RAW_SOURCES,
        FACTS,
        FACT_SOURCES,
        NODES,
        NODE_FACT_REJECTIONS,
        EDGES,
        DIMENSIONS,
        CONVERGENCE_REPORTS,
        NODE_COUNTERS,
        NODE_VERSIONS,
        PROHIBITED_CHUNKS,
        LLM_USAGE,
    ),
)
