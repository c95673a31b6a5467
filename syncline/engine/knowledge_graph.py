"""The built-in table map: a knowledge graph of sources, facts, nodes and edges."""

from syncline.engine.tablemap import Column, Links, Reference, SchemaMap, TableMap, VectorProjection

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
        # Without these two a private row would become public on its way.
        Column(name="visibility"),
        Column(name="creator_id"),
        Column(name="metadata", type="jsonb"),
        *_TIMES,
    ),
    links=(Links(table="node_facts", source="fact_ids", owner="node_id", member="fact_id", parent="facts"),),
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
    # An undirected edge is stored one way only, whichever end its writer named first.
    expressions={
        "source_node_id": "CASE WHEN s.directed THEN s.ref_source_node_id "
        "ELSE least(s.ref_source_node_id, s.ref_target_node_id) END",
        "target_node_id": "CASE WHEN s.directed THEN s.ref_target_node_id "
        "ELSE greatest(s.ref_source_node_id, s.ref_target_node_id) END",
    },
    links=(Links(table="edge_facts", source="fact_ids", owner="edge_id", member="fact_id", parent="facts"),),
)

KNOWLEDGE_GRAPH = SchemaMap(name="knowledge_graph", tables=(RAW_SOURCES, FACTS, FACT_SOURCES, NODES, EDGES))
