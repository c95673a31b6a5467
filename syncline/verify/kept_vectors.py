"""Kept vectors: points of another engine whose vectors are taken for those of their rows' texts.

Nothing in the vector store says which text a vector is of, and which service made it. Whoever knows that the
engine before used this graph's embedding service, and the text of the map, says so; then a cycle writes only
payloads, and embeds the texts that it changes.
"""

from syncline.engine.render.points import PointNames
from syncline.engine.table_map import SchemaMap
from syncline.provider import GraphSchema, GraphVectors
from syncline.sql import quoted, statements_of
from syncline.verify.snapshots import open_side
from syncline.verify.tally import Heartbeater

__all__ = ["keep_vectors"]

_sql = statements_of("syncline.verify")


async def keep_vectors(
    schema_map: SchemaMap,
    target: GraphSchema,
    vectors: GraphVectors,
    *,
    embedding: str,
    beat: Heartbeater,
) -> int:
    """Note that the vector store has the vector of each row's text, where it has a point; return how many."""
    kept = 0
    for table in schema_map:
        if table.vector is None:
            continue
        collection = table.vector.collection
        statement = _sql(
            "keep_vectors",
            text=f"({table.vector.text})",
            target=quoted(table.name),
            point=PointNames(table).of("t"),
        )
        seen = 0
        async for page in vectors.store.scroll(vectors.collection(collection), fields=()):
            async with open_side(target, snapshot=False) as side:
                [row] = await side.fetch(statement, collection, [point.id for point in page], embedding)
            kept += row["count"]
            seen += len(page)
            beat(collection, seen)
    return kept
