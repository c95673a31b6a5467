"""Points: what of a target row goes to the vector store, in SQL over the row `t`."""

from syncline.engine.tablemap import VectorProjection
from syncline.sqltext import literal

__all__ = ["POINT_HASH", "fields_sql", "hash_sql", "payload_sql", "point_hash_sql", "size_sql"]

POINT_HASH = "sync_hash"
"""The field of every payload that tells whether the point is what its row says now."""


def fields_sql(vector: VectorProjection) -> str:
    """Return the expression for the payload's declared fields, as jsonb."""
    pairs = [f"'{literal(name)}', {expression}" for name, expression in vector.payload.items()]
    return f"jsonb_build_object({', '.join(pairs)})"


def hash_sql(text: str, fields: str) -> str:
    """Return the expression for the hash of a text and of fields; NULL where the text is."""
    return f"left(encode(sha256(convert_to({text} || E'\\n' || {fields}::text, 'UTF8')), 'hex'), 32)"


def point_hash_sql(vector: VectorProjection) -> str:
    """Return the expression for what a point's `sync_hash` should be; NULL for a row without a point."""
    return hash_sql(f"({vector.text})", fields_sql(vector))


def payload_sql(text: str, fields: str) -> str:
    """Return the expression for the whole payload, from those for its text and its fields."""
    return f"{fields} || jsonb_build_object('{POINT_HASH}', {hash_sql(text, fields)})"


def size_sql(vector: VectorProjection) -> str:
    """Return the expression for about how many bytes a point's text and fields are."""
    # Of a plain column Postgres knows its length without reading it, wherever it is stored.
    parts = [f"coalesce(octet_length(({part})::text), 0)" for part in (vector.text, *vector.payload.values())]
    return " + ".join(parts)
