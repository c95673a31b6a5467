"""Points of rows whose ids are no uuids: written, changed, deleted, verified, rebuilt and explained by the id's hash."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from syncline.embeddings.hashing import DevelopmentEmbedding
from syncline.engine import SyncEngine
from syncline.engine.keys import key_uuid
from syncline.maps.document import read_map
from syncline.operator.explain import explain
from syncline.operator.second_model import start_second
from syncline.operator.target_tables import target_tables
from syncline.testing.graphs import TestGraph, on_target, read, write
from tests.integration.test_shapes import Site, made
from tests.kit.bare_graph import bare_graph

KINDS = {
    # kind: (type of the key, id, SQL of key n, form of the id of key n)
    "bigint": ("bigint", "same", "{n}", "{n}"),
    "text": ("text", "same", "'k{n}é'", "k{n}é"),
    "numeric": ("numeric", "same", "{n}.50", "{n}.5"),
    "timestamp": ("timestamp", "same", "timestamp '2020-01-0{n}'", "2020-01-0{n} 00:00:00"),
    "bytea": ("bytea", "same", "'\\x0{n}'", "0{n}"),
    "assigned": ("text", "{rule: assigned, type: bigint}", "'k{n}'", "{n}"),
    "beside": ("text", "{rule: assigned, type: bigint, natural: title, beside: true}", "'k{n}'", "{n}"),
    "made": ("text", "{rule: expression, type: text, expression: \"'x' || $1\"}", "'{n}'", "x{n}"),
}


def document(kind: str) -> str:
    type_, id_, *_ = KINDS[kind]
    return f"""
  docs:
    source: doc
    types: {{id: {type_}, above: {type_}}}
    id: {id_}
    columns: [title, body]
    references: {{above: {{parent: docs, required: false}}}}
    vector: {{collection: docs, text: t.body, payload: {{title: t.title, above: t.above}}}}
"""


async def opened(graph: TestGraph, kind: str) -> Site:
    schema_map = read_map(f"version: 1\nname: shapes\ntables:\n{document(kind)}", source="shapes.yaml")
    tables = "; ".join(target_tables(schema_map, "kg", types={}).values())
    type_ = KINDS[kind][0]
    source = f"CREATE TABLE doc (id {type_} PRIMARY KEY, title text, body text, above {type_})"
    return await made(graph, document(kind), source=source, target=tables)


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield graph


async def points(site: Site) -> dict[str, dict[str, object]]:
    """Return title -> id and payload of each point."""
    context = site.graph.context()
    store, name = context.vectors.store, context.vectors.collection("docs")
    found = [point async for page in store.scroll(name) for point in page]
    return {str(point.payload["title"]): {"point": point.id, **point.payload} for point in found}


@pytest.mark.long(after=1)
@pytest.mark.parametrize("kind", KINDS)
async def test_points_have_the_hash_of_the_id(graph: TestGraph, kind: str) -> None:
    site = await opened(graph, kind)
    assert await site.misfits() == {}
    key, form = ((lambda n, text=text: text.format(n=n)) for text in KINDS[kind][2:])
    values = [f"({key(n)}, 'T{n}', 'body {n}', {key(1) if n > 1 else 'NULL'})" for n in (1, 2, 3)]
    await write(graph, f"INSERT INTO kg.doc VALUES {', '.join(values)}, ({key(4)}, 'T4', NULL, NULL)")
    assert (await site.cycle()).vectors.upserted == 3
    found = await points(site)
    assert {title: point["point"] for title, point in found.items()} == {
        f"T{n}": key_uuid(form(n)) for n in (1, 2, 3)
    }

    if KINDS[kind][0] == "bigint" or kind in ("assigned", "beside"):
        assert found["T2"]["sync_id"] == 2
    await site.equal()

    # A change of text, of payload alone, of a reference; texts come and go; a row leaves.
    await write(
        graph,
        f"UPDATE kg.doc SET body = 'new' WHERE id = {key(1)}; UPDATE kg.doc SET title = 'U2', above = NULL WHERE id = {key(2)};"
        f"UPDATE kg.doc SET body = 'there' WHERE id = {key(4)}; DELETE FROM kg.doc WHERE id = {key(3)}",
    )
    result = await site.cycle()
    assert (result.vectors.upserted, result.vectors.deleted, result.vectors.embedded) == (3, 1, 2)
    assert set(await points(site)) == {"T1", "U2", "T4"}
    await site.equal()
    await write(graph, f"UPDATE kg.doc SET body = NULL WHERE id = {key(4)}")
    assert (await site.cycle()).vectors.deleted == 1

    # What is lost, strange or stale there is found and mended; a collection that is gone is built again.
    context = graph.context()
    store, name = context.vectors.store, context.vectors.collection("docs")
    [one] = [point async for page in store.scroll(name) for point in page if point.payload["title"] == "T1"]
    await store.delete(name, [one.id])
    await on_target(graph, "UPDATE kg.docs SET title = 'V2' WHERE title = 'U2'")
    verified = await site.verified(repair=True)
    [vectors] = [each for each in verified.relations if each.kind == "vectors"]
    assert (vectors.missing.count, vectors.stale.count) == (1, 1)
    await site.cycle()
    await site.equal()
    before = await points(site)
    await store.drop_collection(name)
    await write(graph, f"UPDATE kg.doc SET title = 'W1' WHERE id = {key(1)}")
    await site.cycle()
    after = await points(site)
    assert {point["point"] for point in after.values()} == {point["point"] for point in before.values()}
    await site.equal()

    told = await explain(
        context.write,
        context.target,
        context.vectors,
        site.map,
        table="docs",
        key=[KEY_FORMS[kind].format(n=1)],
    )
    assert told.vector is not None
    assert (told.vector.wanted, told.vector.written, told.vector.current, told.vector.point) == (True,) * 4


KEY_FORMS = {kind: form for kind, (_, _, _, form) in KINDS.items()} | {
    "assigned": "k{n}",
    "beside": "k{n}",
    "made": "{n}",
}


async def test_a_second_model_has_the_same_points_whatever_their_ids(graph: TestGraph) -> None:
    site = await opened(graph, "text")
    values = ", ".join(f"('k{n}', 'T{n}', 'body {n}', NULL)" for n in (1, 2, 3))
    await write(graph, f"INSERT INTO kg.doc VALUES {values}")
    await site.cycle()
    context = replace(graph.context(), second_embedding=DevelopmentEmbedding(32))
    await start_second(context.target, site.map)

    async def cycle() -> tuple[dict[UUID, object], dict[UUID, object]]:
        await SyncEngine(site.map).run_cycle(context)
        store = context.vectors.store
        pages = [
            [point async for page in store.scroll(name) for point in page]
            for name in ("kg_docs", "kg_docs.2")
        ]
        main, second = ({point.id: point.payload for point in page} for page in pages)
        return main, second

    main, second = await cycle()
    assert (main == second, len(main)) == (True, 3)
    await write(
        graph,
        "UPDATE kg.doc SET body = 'new' WHERE id = 'k1'; UPDATE kg.doc SET title = 'U2' WHERE id = 'k2';"
        " DELETE FROM kg.doc WHERE id = 'k3'",
    )
    main, second = await cycle()
    assert (main == second, len(main)) == (True, 2)
    # Queued by their points alone, as a repair does: each generation finds the rows.
    await on_target(graph, "UPDATE kg.docs SET title = 'V'")
    await on_target(
        graph,
        "INSERT INTO kg.sync_outbox (collection, point_id) SELECT collection, point_id FROM kg.sync_vector"
        " WHERE collection = 'docs'",
    )
    main, second = await cycle()
    assert (main == second, len(main)) == (True, 2)
    assert await read(graph, "SELECT FROM sync_outbox") == []
