"""A row has one form on every road: capture, parking, merge and verification write the same value alike."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import Column, Reference, SchemaMap, SyncEngine, TableMap
from syncline.messages.sync import SyncResult
from syncline.messages.verification import Verdict, Verification
from syncline.migrations import migrate_bookkeeping
from syncline.operator.explain import explain
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.testing.one_graph import hang_up
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph

BOOKS = "sync_version bigint, sync_run bigint"
UNUSUAL = (
    "TimeZone = 'Asia/Tokyo'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "extra_float_digits = -10",
    "bytea_output = 'escape'",
    "lc_monetary = 'C'",
)
OTHER = (
    "TimeZone = 'America/St_Johns'",
    "DateStyle = 'German'",
    "IntervalStyle = 'iso_8601'",
    "extra_float_digits = 0",
    "bytea_output = 'hex'",
)


@dataclass
class Lab:
    """A graph of a map of its own."""

    graph: TestGraph

    async def settings(self, dsn: str, settings: tuple[str, ...]) -> None:
        """Set the database's role settings; connections that are open keep theirs, so the pools are emptied."""
        name = dsn.partition("@/")[2].partition("?")[0]
        connection = await asyncpg.connect(dsn)
        for setting in settings:
            await connection.execute(f'ALTER DATABASE "{name}" SET {setting}')
        await connection.close()
        await self.graph.write.close()
        await self.graph.target.close()
        await hang_up(self.graph)

    async def make(self, schema_map: SchemaMap, source: str, target: str) -> None:
        await write(self.graph, f"CREATE SCHEMA IF NOT EXISTS kg; {source}")
        await on_target(self.graph, f"CREATE SCHEMA IF NOT EXISTS kg; {target}")
        await migrate_bookkeeping(self.graph.target, "kg")
        await adopt(self.graph.write, "kg", schema_map)
        self.map = schema_map

    async def cycle(self) -> SyncResult:
        result = await SyncEngine(self.map).run_cycle(self.graph.context())
        assert [table.error for table in result.tables if table.error] == []
        return result

    async def verified(self) -> Verification:
        context = self.graph.context()
        return await verify(
            self.map, write=context.write, target=context.target, vectors=None, embedding="none", repair=False
        )  # fmt: skip


@pytest_asyncio.fixture(loop_scope="session")
async def lab(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Lab]:
    async with bare_graph(new_database, tmp_path) as graph:
        yield Lab(graph)


def found(verification: Verification) -> dict[tuple[str, str], tuple[tuple[str, ...], ...]]:
    assert [relation.problem for relation in verification.relations if relation.problem] == []
    return {
        (relation.name, verdict.value): relation.found(verdict).keys
        for relation in verification.relations
        for verdict in Verdict
        if relation.found(verdict).count
    }


def waiting(*columns: Column, **fields: object) -> SchemaMap:
    """A map of one table whose rows wait for rows of another."""
    waits = TableMap(
        name="waits",
        source="waits_rows",
        columns=columns,
        references=(Reference(column="parent", parent="parents", required=True, target="parent_id"),),
        **fields,  # type: ignore[arg-type]
    )
    return SchemaMap(name="forms", tables=(TableMap(name="parents", source="parent_rows"), waits))


PARENTS = "CREATE TABLE parent_rows (id text PRIMARY KEY);"
TARGET_PARENTS = f"CREATE TABLE parents (id uuid PRIMARY KEY, key text NOT NULL, {BOOKS});"


def target_of(columns: str) -> str:
    return (
        f"{TARGET_PARENTS} CREATE TABLE waits (id uuid PRIMARY KEY, key text NOT NULL,"
        f" parent_id uuid NOT NULL REFERENCES parents, {columns}, {BOOKS})"
    )


@pytest.mark.long("test_every_type_waits_lands_and_verifies_whatever_roles_are_set_to")
async def test_character_n_travels_without_its_padding(lab: Lab) -> None:
    schema_map = SchemaMap(
        name="padded",
        tables=(
            TableMap(
                name="sources",
                source="source_rows",
                columns=(Column(name="kind"), Column(name="hash"), Column(name="code", type="character(8)")),
            ),
            TableMap(
                name="chunks",
                source="chunk_rows",
                references=(
                    Reference(column="hash", parent="sources", required=True, target="source_id", by="hash"),
                    Reference(column="source", parent="sources", required=True, target="named_id"),
                ),
                columns=(Column(name="hash"),),
            ),
        ),
    )
    await lab.make(
        schema_map,
        "CREATE TABLE source_rows (id text PRIMARY KEY, kind char(12), hash char(64), code char(8));"
        "CREATE TABLE chunk_rows (id text PRIMARY KEY, hash char(64), source char(10));"
        "INSERT INTO source_rows VALUES ('s1', 'star', 'abc', 'c1'), ('s2', '', NULL, NULL);"
        "INSERT INTO chunk_rows VALUES ('c1', 'abc', 's1'), ('c2', 'later', 's1')",
        f"CREATE TABLE sources (id uuid PRIMARY KEY, key text, kind text, hash text, code char(10), {BOOKS});"
        "CREATE TABLE chunks (id uuid PRIMARY KEY, key text, hash text, source_id uuid REFERENCES sources,"
        f" named_id uuid REFERENCES sources, {BOOKS})",
    )
    await lab.cycle()
    assert [tuple(row) for row in await read(lab.graph, "SELECT kind, hash FROM sources ORDER BY key")] == [
        ("star", "abc"),
        ("", None),
    ]
    assert [row["key"] for row in await read(lab.graph, "SELECT key FROM chunks")] == ["c1"]
    verification = await lab.verified()
    assert found(verification) == {("chunks", "parked"): (("c2",),)}
    await write(lab.graph, "UPDATE source_rows SET hash = 'later' WHERE id = 's2'")
    await lab.cycle()
    assert found(await lab.verified()) == {}
    assert len(await read(lab.graph, "SELECT FROM chunks")) == 2


JSON = ('{"a":1,"a":2}', '{ "b" :  1 }', "1.10e400", "-0", '"\\u0000"', "null", '{"big": 1e1000000}', None)


async def test_json_that_waits_lands_as_it_was_written(lab: Lab) -> None:
    await lab.make(
        waiting(Column(name="v", type="json")),
        PARENTS + "CREATE TABLE waits_rows (id text PRIMARY KEY, parent text, v json)",
        target_of("v json"),
    )
    for number, value in enumerate(JSON):
        await write(lab.graph, "INSERT INTO waits_rows VALUES ($1, 'p', $2::text::json)", f"w{number}", value)
    result = await lab.cycle()
    assert (result.parked, result.dead_letters) == (len(JSON), 0)
    await write(lab.graph, "INSERT INTO parent_rows VALUES ('p')")
    result = await lab.cycle()
    assert (result.parked, result.dead_letters) == (0, 0)
    landed = await read(lab.graph, "SELECT v::text AS v FROM waits ORDER BY key")
    assert [row["v"] for row in landed] == list(JSON)
    assert found(await lab.verified()) == {}


TYPES = {
    "f8": ("double precision", "'0.30000000000000004', 'NaN', '-Infinity', '-0', '1e-320'"),
    "f4": ("real", "'0.1', 'NaN', 'Infinity', '16777217'"),
    "num": ("numeric", "'1.50', 'NaN', '1.5', '1e400', '-0.000'"),
    "ts": ("timestamp", "'2024-02-01 12:00:00.000001', 'infinity', '0044-03-15 BC'"),
    "tstz": ("timestamptz", "'2024-02-01 12:00+05', '-infinity', '0044-03-15 BC'"),
    "day": ("date", "'2024-02-01', 'infinity', '0044-03-15 BC'"),
    "tz": ("time with time zone", "'12:00:00.5+05', '24:00:00-12'"),
    "iv": ("interval", "'-1 day -2 hours', '24 hours', '1 day', '-1 mon +2 days'"),
    "mon": ("money", "'-1.10', '100'"),
    "raw": ("bytea", r"'\xdeadbeef00', '\x', '\x5c5c'"),
    "js": ("jsonb", """'{"a": [1, 1.50, null]}', 'null', '"\\\\"'"""),
    "tsa": ("timestamptz[]", "'{2024-02-01 12:00+05,NULL}', '[2:3]={infinity,2024-02-03}', '{}'"),
    "ivs": ("interval[]", "'{-1 day -2 hours}'"),
    "f8s": ("double precision[]", "'{0.30000000000000004,NaN}'"),
    "span": ("tstzrange", "'[2024-02-01 12:00+05,)', 'empty', '(,2024-02-03]'"),
    "days": ("daterange", "'[2024-02-01,2024-03-02)'"),
    "pair": ("pair", """'("2024-02-01 12:00+05","-1 day -2 hours",0.30000000000000004)', '(,,)'"""),
    "mood": ("mood", "'so, so', '\"'"),
    "net": ("inet", "'10.0.0.1', '10.0.0.0/8', '::1'"),
    "bits": ("bit varying", "'101', ''"),
    "code": ("character(5)", "'ab', ''"),
    "short": ("character varying(9)", "'ab  ', 'é'"),
    "words": ("text", "'é', E'e\\u0301', ' x ', '', E'\\n\"\\\\'"),
    "list": ("text[]", """'{"a,b",NULL,"NULL",""}', '[0:1]={x,y}'"""),
    "flag": ("boolean", "'t', 'f'"),
    "named": ("name", "'a b'"),
}
OF_A_TYPE = "CREATE TYPE pair AS (at timestamptz, span interval, f double precision); CREATE TYPE mood AS ENUM ('so, so', '\"');"


async def test_every_type_waits_lands_and_verifies_whatever_roles_are_set_to(lab: Lab) -> None:
    declared = ", ".join(f"{name} {kind}" for name, (kind, _) in TYPES.items())
    # Domains of the source are what they stand for.
    of_source = declared.replace("words text", "words word").replace("num numeric", "num amount")
    domains = "CREATE DOMAIN word AS text; CREATE DOMAIN amount AS numeric;"
    await lab.make(
        waiting(*(Column(name=name, type=kind) for name, (kind, _) in TYPES.items())),
        f"{OF_A_TYPE} {domains} {PARENTS} CREATE TABLE waits_rows (id text PRIMARY KEY, parent text, {of_source})",
        f"{OF_A_TYPE} {target_of(declared)}",
    )
    for name, (kind, values) in TYPES.items():
        # One row without a parent to wait for, one with.
        await write(
            lab.graph,
            f"INSERT INTO waits_rows (id, parent, {name})"
            f" SELECT p || '/{name}/' || n, p, v::{kind} FROM unnest(ARRAY[{values}]) WITH ORDINALITY AS x (v, n),"
            " unnest(ARRAY['here', 'later']) AS p",
        )
    await write(lab.graph, "INSERT INTO parent_rows VALUES ('here')")
    await lab.settings(lab.graph.write_dsn, OTHER)
    await lab.settings(lab.graph.target_dsn, UNUSUAL)
    result = await lab.cycle()
    assert (result.parked > 60, result.dead_letters) == (True, 0)
    # What waits is read again under other settings than it was put there.
    await lab.settings(lab.graph.target_dsn, OTHER)
    await write(lab.graph, "INSERT INTO parent_rows VALUES ('later')")
    result = await lab.cycle()
    assert (result.parked, result.dead_letters) == (0, 0)
    differing = await read(
        lab.graph,
        "SELECT a.key FROM waits a JOIN waits b ON b.key = replace(a.key, 'later', 'here')"
        f" WHERE a.key LIKE 'later%' AND ROW({', '.join('a.' + name for name in TYPES)})::record"
        f" OPERATOR(pg_catalog.*<>) ROW({', '.join('b.' + name for name in TYPES)})::record",
    )
    assert [row["key"] for row in differing] == []
    assert found(await lab.verified()) == {}
    # What a type of the graph's own schema holds is compared like any other value.
    await on_target(lab.graph, "UPDATE waits SET pair.f = 0.3 WHERE key = 'here/pair/1'")
    await on_target(lab.graph, "UPDATE waits SET mood = '\"' WHERE key = 'later/mood/1'")
    stale = found(await lab.verified())
    assert {key: set(keys) for key, keys in stale.items()} == {
        ("waits", "stale"): {("here/pair/1",), ("later/mood/1",)}
    }
    context = lab.graph.context()
    told = await explain(
        context.write, context.target, context.vectors, lab.map, table="waits", key=("later/pair/1",)
    )
    assert (told.state.value, told.write.belongs) == ("in_step", True)


async def test_an_expression_says_the_same_whatever_roles_are_set_to(lab: Lab) -> None:
    schema_map = SchemaMap(
        name="told",
        tables=(
            TableMap(
                name="told",
                source="told_rows",
                present="at::text LIKE '2024-%'",
                source_only=(
                    Column(name="at", type="timestamptz"),
                    Column(name="span", type="interval"),
                    Column(name="f", type="double precision"),
                ),
                expressions={
                    "at_text": "s.at::text",
                    "day": "s.at::date",
                    "span_text": "s.span::text",
                    "f_text": "s.f::text",
                },
            ),
        ),
    )
    await lab.make(
        schema_map,
        "CREATE TABLE told_rows (id text PRIMARY KEY, at timestamptz, span interval, f double precision);"
        "INSERT INTO told_rows VALUES ('t', '2024-03-02 23:30Z', '-1 day -2 hours', 0.30000000000000004)",
        f"CREATE TABLE told (id uuid PRIMARY KEY, key text, at_text text, day date, span_text text, f_text text, {BOOKS})",
    )
    await lab.settings(lab.graph.write_dsn, OTHER)
    await lab.settings(lab.graph.target_dsn, UNUSUAL)
    await lab.cycle()
    [row] = await read(lab.graph, "SELECT at_text, day::text, span_text, f_text FROM told")
    assert (row["at_text"], row["f_text"]) == ("2024-03-02 23:30:00+00", "0.30000000000000004")
    assert found(await lab.verified()) == {}
    context = lab.graph.context()
    told = await explain(context.write, context.target, context.vectors, schema_map, table="told", key=("t",))
    assert (told.state.value, told.write.belongs) == ("in_step", True)


async def test_parked_row_image_of_json_objects_is_refused(lab: Lab) -> None:
    await migrate_bookkeeping(lab.graph.target, "kg")
    old = "INSERT INTO sync_parked_row (table_name, row_id, key, image, waits_for_table, waits_for, waits_for_key)"
    values = """VALUES ('waits', gen_random_uuid(), '{x}', '{"sync_present": true}', 'p', gen_random_uuid(), 'p')"""
    with pytest.raises(asyncpg.CheckViolationError):
        await on_target(lab.graph, f"{old} {values}")
