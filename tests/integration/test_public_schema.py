"""A graph in schema public beside one in a schema of its own: tables of one name do not meet."""

from dataclasses import replace
from uuid import UUID

from syncline.capture.install.install import adopt
from syncline.engine import KNOWLEDGE_GRAPH, Column, SchemaMap, SyncEngine, TableMap
from syncline.messages.base import GraphRef
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import TestGraph, read, write
from syncline.verify import verify

FACTS = SchemaMap(
    name="facts", tables=(TableMap(name="facts", source="write_facts", columns=(Column(name="note"),)),)
)


async def test_a_graph_in_public_and_one_beside_it_know_their_own_tables(graph: TestGraph) -> None:
    kg = graph.context()
    public = replace(
        kg,
        graph=GraphRef(id=UUID(int=2), slug="public-one"),
        write=replace(kg.write, schema="public"),
        target=replace(kg.target, schema="public"),
        vectors=replace(kg.vectors, prefix="public_"),
    )
    await write(graph, "CREATE TABLE public.write_facts (id text PRIMARY KEY, note text)")
    await migrate_bookkeeping(graph.target, "public")
    async with graph.target.driver() as connection:
        await connection.execute(
            "CREATE TABLE public.facts (id uuid PRIMARY KEY, key text, note text, sync_version bigint, sync_run bigint)"
        )
    await adopt(graph.write, "public", FACTS)
    for change in (
        (
            "INSERT INTO public.write_facts VALUES ('f1', 'of public'), ('f2', 'goes');"
            "INSERT INTO kg.write_facts (id, content, dedup_status) VALUES ('f1', 'of kg', 'ready')"
        ),
        "DELETE FROM public.write_facts WHERE id = 'f2'; UPDATE public.write_facts SET note = 'changed'",
    ):
        await write(graph, change)
        for engine, context in ((SyncEngine(FACTS), public), (SyncEngine(KNOWLEDGE_GRAPH), kg)):
            assert (await engine.run_cycle(context)).status is CycleStatus.DRAINED
    assert [tuple(row) for row in await read(graph, "SELECT key, note FROM public.facts")] == [
        ("f1", "changed")
    ]
    assert [tuple(row) for row in await read(graph, "SELECT key, content FROM kg.facts")] == [("f1", "of kg")]
    for schema_map, context in ((FACTS, public), (KNOWLEDGE_GRAPH, kg)):
        found = await verify(
            schema_map,
            write=context.write,
            target=context.target,
            vectors=None,
            embedding=graph.embedding.name,
        )
        assert found.equal
        assert found.compared > 0
