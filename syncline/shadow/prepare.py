"""Preparing shadows: creates a shadow's schema in the graph-db when needed, and drops it on request."""

import re
from typing import Final

import asyncpg

from syncline import names
from syncline.control.graphs import Graph
from syncline.control.maps import map_options
from syncline.control.services import Services
from syncline.engine.owed import acting_as
from syncline.engine.table_map import SchemaMap
from syncline.errors import SchemaMoved, ShadowInvalid, StoreUnavailable
from syncline.migrations import migrate_bookkeeping, migrate_graph
from syncline.provider import GraphSchema
from syncline.rights.missing import take_rights
from syncline.sql import quoted, statements_of

__all__ = ["drop_shadow", "is_made", "live_generation", "prepare_shadow"]

_sql = statements_of("syncline.shadow")

_LONGEST_SCHEMA: Final = 63
_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_PATIENCE: Final = "30s"
_LOCK_NOT_AVAILABLE: Final = "55P03"


async def prepare_shadow(services: Services, graph: Graph, provider_id: str) -> None:
    """Create the schema for a provider's result, unless it exists.

    Raises ShadowInvalid if its name is not usable or it holds another provider's result, SchemaMoved while it
    is being promoted.
    """
    place, prefix = services.target_schema(graph, shadow=True), names.shadow_prefix(graph.qdrant_prefix)
    if len(place.schema) > _LONGEST_SCHEMA or not _PREFIX.fullmatch(prefix):
        raise ShadowInvalid(
            graph.slug,
            f"its schema '{place.schema}' or prefix '{prefix}' would not be a valid name: "
            "the graph's own names are too long",
        )
    async with place.store.driver() as connection:
        found = await connection.fetchrow(_sql("scratch"), place.schema)
        state = None
        if found["made"]:
            state = await connection.fetchrow(_sql("state", schema=quoted(place.schema)))
    if state is not None and state["vector_prefix"] is not None:
        _check(graph, place.schema, state, prefix=prefix, provider_id=provider_id)
        return
    if found["filled"] and not found["made"]:
        raise ShadowInvalid(graph.slug, f"schema '{place.schema}' exists and is not Syncline's")
    for other in (await services.graphs.records()).valid:
        # From before the rule that reserves these names.
        same_schema = (other.graph_store, other.schema_name) == (graph.graph_store, place.schema)
        same_prefix = (other.qdrant_store, other.qdrant_prefix) == (graph.qdrant_store, prefix)
        if same_schema or same_prefix:
            raise ShadowInvalid(
                graph.slug,
                f"graph '{other.slug}' uses its schema '{place.schema}' or prefix '{prefix}'",
            )
    generation = await live_generation(services.target_schema(graph), graph.slug)
    stored = map_options(graph.composition, shadow=True).map is not None
    await (migrate_bookkeeping if stored else migrate_graph)(place.store, place.schema)
    await take_rights(graph, target=place)
    async with place.store.driver() as connection:
        query = _sql("claim", schema=quoted(place.schema))
        await connection.execute(query, prefix, provider_id, generation)


async def is_made(place: GraphSchema) -> bool:
    """Return whether a schema has the engine's bookkeeping tables."""
    async with place.store.driver() as connection:
        found = await connection.fetchrow(_sql("scratch"), place.schema)
    return bool(found["made"])


async def live_generation(live: GraphSchema, graph: str) -> int:
    """Return which generation of collections the live graph has.

    Raises ShadowInvalid while its embedding model changes: then it has two, and a shadow would be of one.
    """
    schema = quoted(live.schema)
    async with live.store.driver() as connection:
        model = await connection.fetchrow(_sql("model", schema=schema))
        if model["may_change"] and await connection.fetchval(_sql("second", schema=schema)):
            raise ShadowInvalid(
                graph,
                "the graph's embedding model changes, and a shadow has vectors of one model; end that first: "
                f"`syncline embedding drop {graph}`",
            )
    return int(model["generation"])


def _check(graph: Graph, schema: str, state: asyncpg.Record, *, prefix: str, provider_id: str) -> None:
    if state["vector_prefix"] != prefix:
        name = names.shadow_slug(graph.slug)
        raise SchemaMoved(name, schema, prefix=state["vector_prefix"], expected=prefix)
    if state["shadow_provider"] != provider_id:
        raise ShadowInvalid(
            graph.slug,
            f"schema '{schema}' has the result of provider '{state['shadow_provider']}', and `shadow` names "
            f"'{provider_id}': `syncline graph set {graph.slug} --drop-shadow` restarts it",
        )


async def drop_shadow(services: Services, graph: Graph, schema_map: SchemaMap) -> None:
    """Drop the shadow's schema and collections, if there are any.

    Raises StoreUnavailable if a cycle of the shadow holds them for too long, ShadowInvalid if the schema is
    not what the record says, as after a promotion. While the graph declares a shadow, its next cycle starts
    it again.
    """
    place, vectors = services.target_schema(graph, shadow=True), services.graph_vectors(graph, shadow=True)
    async with place.store.driver() as connection, connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
        try:
            await connection.fetchval(_sql("lock"), place.schema)
        except asyncpg.LockNotAvailableError as error:
            raise StoreUnavailable(
                place.store.name,
                f"a cycle has held schema '{place.schema}' for {_PATIENCE}, so it was not dropped",
                sqlstate=_LOCK_NOT_AVAILABLE,
            ) from error
        # Checked under the lock: a promotion may have held it, and the schema would be the former live
        # result.
        if not (await connection.fetchrow(_sql("scratch"), place.schema))["made"]:
            return
        state = await connection.fetchrow(_sql("state", schema=quoted(place.schema)))
        if state["vector_prefix"] != vectors.prefix:
            raise ShadowInvalid(
                graph.slug,
                f"schema '{place.schema}' is not its shadow's, or not since a promotion; nothing was dropped",
            )
        model = await connection.fetchrow(_sql("model", schema=quoted(place.schema)))
        vectors = vectors.of_generation(model["generation"])
        # Points first: missing points are rebuilt, surplus points are not removed.
        # Those too that the map does not name: this worker may not have the provider, and know another map.
        filled = await connection.fetch(_sql("filled", schema=quoted(place.schema)))
        mapped = {table.vector.collection for table in schema_map if table.vector is not None}
        for name in sorted(mapped.union(row["collection"] for row in filled)):
            await vectors.store.drop_collection(vectors.collection(name))
        for statement in acting_as(place.store):
            await connection.execute(statement)
        await connection.execute(f"DROP SCHEMA {quoted(place.schema)} CASCADE")
