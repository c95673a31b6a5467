"""Keys of every type, every rule for ids, every kind of link: each synced, changed, deleted, parked, verified."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import Column, Links, Reference, SchemaMap, Stat, Stats, SyncEngine, TableMap
from syncline.engine.key_forms import safe
from syncline.engine.keys import key_uuid
from syncline.engine.render.statements import Cursor, SchemaStatements
from syncline.maps.ids import Id, IdRule
from syncline.maps.key_types import key_type
from syncline.messages.sync import CycleStatus
from syncline.messages.verification import Verification
from syncline.migrations import migrate_bookkeeping
from syncline.operator.dead_letters import show
from syncline.operator.explain import explain
from syncline.operator.explanation import RowState
from syncline.operator.parked import list_parked, summarize_parked
from syncline.testing.graphs import TestGraph, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

NAMESPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


@dataclass(frozen=True)
class KeyKind:
    """A type of keys: its values in SQL and in their form, and the arrays that can name them."""

    type: str
    value: str
    form: str
    arrays: tuple[str, ...]
    referring: str
    expression: str
    made: str
    """Type of the id that the expression makes."""

    @property
    def name(self) -> str:
        return self.type.partition("(")[0].replace(" ", "_")


KINDS = (
    KeyKind("text", "'K{n}é'", "K{n}é", ("text[]", "varchar[]", "jsonb"), "text", "'x-' || $1", "text"),
    KeyKind("varchar(40)", "'v{n}'", "v{n}", ("varchar[]", "text[]", "jsonb"), "text", "'x-' || $1", "text"),
    KeyKind(
        "uuid",
        "'0000000{n}-ABCD-4000-8000-00000000000F'",
        "0000000{n}-abcd-4000-8000-00000000000f",
        ("uuid[]", "varchar[]", "text[]", "jsonb"),
        "text",
        "md5($1::text)::uuid",
        "uuid",
    ),
    KeyKind("smallint", "-{n}", "-{n}", ("smallint[]", "bigint[]", "text[]"), "integer", "$1 * 2", "integer"),
    KeyKind(
        "integer", "{n}", "{n}", ("integer[]", "bigint[]", "jsonb", "numeric[]"), "text", "$1 + 7", "integer"
    ),
    KeyKind(
        "bigint",
        "{n}0000000000",
        "{n}0000000000",
        ("bigint[]", "varchar[]", "jsonb"),
        "bigint",
        "$1 - 1",
        "bigint",
    ),
    KeyKind("numeric", "{n}.00", "{n}", ("numeric[]", "bigint[]", "jsonb"), "integer", "$1 / 2", "numeric"),
    KeyKind("date", "date '2020-0{n}-01'", "2020-0{n}-01", ("date[]",), "date", "$1 + 1", "date"),
    KeyKind(
        "timestamp",
        "timestamp '2020-0{n}-01 08:30:00.5'",
        "2020-0{n}-01 08:30:00.5",
        ("timestamp[]",),
        "timestamp",
        "$1 + interval '1 day'",
        "timestamp",
    ),
    KeyKind(
        "timestamptz",
        "timestamptz '2020-0{n}-01 08:30:00+02'",
        "2020-0{n}-01 06:30:00+00",
        ("timestamptz[]",),
        "timestamptz",
        "$1 AT TIME ZONE 'UTC'",
        "timestamp",
    ),
    KeyKind("bytea", "'\\x0{n}ff'::bytea", "0{n}ff", ("bytea[]",), "bytea", "sha256($1)", "bytea"),
)
WAYS = (*((rule, False) for rule in IdRule), *((rule, True) for rule in IdRule if rule is not IdRule.SAME))
"""Every rule for ids, with the bookkeeping in the target and beside it."""


@dataclass(frozen=True)
class Case:
    """One type of keys with one rule for ids."""

    kind: KeyKind
    rule: IdRule
    beside: bool = False

    @property
    def parents(self) -> str:
        return f"{self.kind.name}_{self.rule}{'_b' if self.beside else ''}"

    @property
    def children(self) -> str:
        return f"{self.parents}_child"

    @property
    def id_type(self) -> str:
        match self.rule:
            case IdRule.SAME:
                return self.kind.type
            case IdRule.EXPRESSION:
                return self.kind.made
            case IdRule.ASSIGNED:
                return "bigint"
        return "uuid"

    @property
    def id(self) -> Id | None:
        beside = self.beside
        match self.rule:
            case IdRule.HASH:
                return Id(rule=IdRule.HASH, beside=True) if beside else None
            case IdRule.SAME:
                return Id(rule=IdRule.SAME, column="nr")
            case IdRule.UUID5:
                key = None if beside else "code"
                return Id(rule=IdRule.UUID5, namespace=str(NAMESPACE), key=key, beside=beside)
            case IdRule.COLUMN:
                return Id(rule=IdRule.COLUMN, source="uid", type="uuid", beside=beside)
            case IdRule.ASSIGNED:
                return Id(rule=IdRule.ASSIGNED, type="bigint", beside=beside)
        return Id(
            rule=IdRule.EXPRESSION,
            expression=self.kind.expression,
            type=self.kind.made,
            column="Made by",
            beside=beside,
        )

    @property
    def stamps(self) -> str:
        """The engine's other columns in a target."""
        return "" if self.beside else ", sync_version bigint, sync_run bigint"

    def columns(self) -> str:
        """The columns of identity in a target."""
        made = {IdRule.EXPRESSION: '"Made by"'}.get(self.rule, "id")
        own = f"{made} {self.id_type} {'GENERATED ALWAYS AS IDENTITY ' * (self.rule is IdRule.ASSIGNED)}PRIMARY KEY"
        if self.beside:
            return own
        match self.rule:
            case IdRule.SAME:
                return f"nr {self.id_type} PRIMARY KEY"
            case IdRule.UUID5:
                return f"id uuid PRIMARY KEY, code {self.kind.type} NOT NULL"
            case IdRule.EXPRESSION:
                return f"{own}, key {self.kind.type} NOT NULL"
        return f"{own}, key {self.kind.type} NOT NULL"

    def ref(self) -> str:
        column = {IdRule.SAME: "nr", IdRule.EXPRESSION: '"Made by"'}.get(self.rule, "id")
        return f"{self.id_type} REFERENCES {{}} ({column})"

    def maps(self) -> Iterator[TableMap]:
        type_ = self.kind.type.partition("(")[0]
        yield TableMap(
            name=self.parents,
            source=f"w_{self.parents}",
            key=("k",),
            types={"k": type_},
            id=self.id,
            columns=(Column(name="title"),),
            stats=Stats(
                table=f"{self.parents}_n",
                owner="of",
                columns=(Stat(column="n", counted=self.children, by=("of",)),),
            ),
        )
        yield TableMap(
            name=self.children,
            source=f"w_{self.children}",
            key=("k",),
            types={
                "k": type_,
                "parent": self.kind.referring,
                "next": type_,
                **{f"a{n}": array for n, array in enumerate(self.kind.arrays)},
            },
            id=self.id,
            columns=(Column(name="title"),),
            references=(
                Reference(column="parent", parent=self.parents, required=True, target="of"),
                Reference(column="next", parent=self.children, required=False),
            ),
            links=tuple(
                Links(
                    table=f"{self.children}_l{n}", source=f"a{n}", owner="o", member="m", parent=self.parents
                )
                for n, _ in enumerate(self.kind.arrays)
            ),
        )

    def source(self) -> str:
        arrays = "".join(f", a{n} {array}" for n, array in enumerate(self.kind.arrays))
        uid = ", uid uuid DEFAULT gen_random_uuid()" if self.rule is IdRule.COLUMN else ""
        return (
            f"CREATE TABLE w_{self.parents} (k {self.kind.type} PRIMARY KEY, title text{uid});"
            f"CREATE TABLE w_{self.children} (k {self.kind.type} PRIMARY KEY, title text,"
            f" parent {self.kind.referring}, next {self.kind.type}{arrays}{uid});"
        )

    def target(self) -> str:
        up = self.ref().format(self.parents)
        down = self.ref().format(self.children)
        links = "".join(
            f"CREATE TABLE {self.children}_l{n} (o {down}, m {up}, PRIMARY KEY (o, m));"
            for n, _ in enumerate(self.kind.arrays)
        )
        return (
            f"CREATE TABLE {self.parents} ({self.columns()}, title text{self.stamps});"
            f"CREATE TABLE {self.parents}_n (of {up} ON DELETE CASCADE PRIMARY KEY, n bigint DEFAULT 0);"
            f"CREATE TABLE {self.children} ({self.columns()}, title text, of {up} NOT NULL, next {down}{self.stamps});"
            + links
        )

    def value(self, n: int) -> str:
        return self.kind.value.format(n=n)

    def referring(self, n: int) -> str:
        """How the child's reference spells a key."""
        return self.value(n) if self.kind.referring != "text" else f"'{self.kind.form.format(n=n).upper()}'"

    def array(self, array: str, keys: list[int]) -> str:
        if array == "jsonb":
            plain = self.kind.type in ("integer", "bigint", "numeric")
            items = [f"{n}.00" if self.kind.type == "numeric" else self.kind.form.format(n=n) for n in keys]
            return "'[" + ", ".join([*(item if plain else f'"{item}"' for item in items), "null"]) + "]'"
        if array in ("text[]", "varchar[]") and self.kind.type != "varchar(40)" and self.kind.type != "text":
            return f"ARRAY[{', '.join([*(repr(self.kind.form.format(n=n)) for n in keys), 'NULL'])}]::{array}"
        return f"ARRAY[{', '.join(self.value(n) for n in keys)}]::{array}"

    def row(self, n: int, *, parent: int, following: int | None, members: list[int]) -> str:
        arrays = "".join(f", {self.array(array, members)}" for array in self.kind.arrays)
        referring = (
            self.value(parent) if self.kind.type in ("text", "varchar(40)") else self.referring(parent)
        )
        following_key = "NULL" if following is None else self.value(following)
        return (
            f"INSERT INTO w_{self.children} VALUES"
            f" ({self.value(n)}, 'child {n}', {referring}, {following_key}{arrays});"
        )


APART = ("text", "uuid", "bigint", "numeric", "timestamptz", "bytea")
"""Keys that are compared and printed each in a way of its own."""
ALL = [Case(kind, *way) for kind in KINDS for way in WAYS]
SOME = [
    Case(kind, *WAYS[(2 * n + k) % len(WAYS)])
    for n, kind in enumerate(KINDS)
    for k in ((0, 5) if len(kind.arrays) > 2 else (0,))
]

FEW = list({case.kind.name: case for case in SOME if case.kind.name in APART}.values())


def combinations(cases: list[Case]) -> int:
    """How many combinations of key, id and link they have."""
    return sum(len(case.kind.arrays) for case in cases)


def map_of(cases: list[Case]) -> SchemaMap:
    return SchemaMap(name="keys", tables=tuple(table for case in cases for table in case.maps()))


@pytest_asyncio.fixture(loop_scope="session")
async def site(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        yield graph


async def prepare(graph: TestGraph, schema_map: SchemaMap, source: str, target: str) -> None:
    await made_by(graph, write=source, target=target)
    await adopt(graph.write, "kg", schema_map)


async def compared(graph: TestGraph, schema_map: SchemaMap) -> Verification:
    context = graph.context()
    return await verify(
        schema_map, write=context.write, target=context.target, vectors=None, embedding="none", keys=5
    )


def damaged(found: Verification) -> list[object]:
    return [
        (relation.name, relation.problem, relation.missing, relation.extra, relation.stale)
        for relation in found.relations
        if relation.damaged or relation.problem
    ]


async def counts(graph: TestGraph, case: Case) -> dict[str, object]:
    """What the target has of a case."""
    links = ", ".join(
        f"(SELECT count(*) FROM {case.children}_l{n}) AS l{n}" for n, _ in enumerate(case.kind.arrays)
    )
    query = (
        f"SELECT (SELECT count(*) FROM {case.parents}) AS parents,"
        f" (SELECT string_agg(title, ',' ORDER BY title) FROM {case.children}) AS children,"
        f" (SELECT count(next) FROM {case.children}) AS following,"
        f" (SELECT string_agg(n::text, ',' ORDER BY n) FROM {case.parents}_n) AS n, {links}"
    )
    connection = await graph.connect_target()
    try:
        return dict((await connection.fetch(query))[0])
    finally:
        await connection.close()


async def test_some_keys_with_an_id_and_every_link(site: TestGraph) -> None:
    await _synced_changed_deleted(site, FEW)


@pytest.mark.long("test_some_keys_with_an_id_and_every_link")
async def test_every_key_with_two_ids_and_every_link(site: TestGraph) -> None:
    assert combinations(SOME) >= 40
    await _synced_changed_deleted(site, SOME)


@pytest.mark.proof
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_key_with_every_id_and_every_link(site: TestGraph, kind: KeyKind) -> None:
    assert combinations(ALL) >= 100
    await _synced_changed_deleted(site, [case for case in ALL if case.kind is kind])


async def _synced_changed_deleted(site: TestGraph, cases: list[Case]) -> None:
    schema_map = map_of(cases)
    await prepare(
        site, schema_map, "".join(case.source() for case in cases), "".join(case.target() for case in cases)
    )
    engine = SyncEngine(schema_map)
    await write(
        site,
        "SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Tokyo';"
        + "".join(
            f"INSERT INTO w_{case.parents} VALUES ({case.value(1)}, 'p1'), ({case.value(2)}, 'p2');"
            + case.row(1, parent=1, following=3, members=[1, 2, 4])
            + case.row(2, parent=4, following=1, members=[4])
            for case in cases
        ),
    )
    result = await engine.run_cycle(site.context())
    assert [table.error for table in result.tables if table.error] == []
    assert result.status is CycleStatus.DRAINED
    waiting = len(cases)
    arrays = combinations(cases)
    assert result.parked == waiting * 2 + arrays, (
        "a row, its next, and a link to a missing row for each array"
    )
    for case in cases:
        found = await counts(site, case)
        assert (found["parents"], found["children"], found["following"]) == (2, "child 1", 0), case
        assert {found[f"l{n}"] for n, _ in enumerate(case.kind.arrays)} == {2}, case
    assert damaged(await compared(site, schema_map)) == []
    await _ids_are_made_as_the_map_says(site, cases)
    await _rows_are_known_by_their_keys(site, schema_map, cases)

    # What was missing arrives: rows, references and links are released.
    await write(
        site,
        "".join(
            f"INSERT INTO w_{case.parents} VALUES ({case.value(4)}, 'p4');"
            + case.row(3, parent=2, following=None, members=[])
            for case in cases
        ),
    )
    result = await engine.run_cycle(site.context())
    assert [table.error for table in result.tables if table.error] == []
    assert result.parked == 0
    for case in cases:
        found = await counts(site, case)
        assert (found["parents"], found["children"], found["following"]) == (
            3,
            "child 1,child 2,child 3",
            2,
        ), case
        assert {found[f"l{n}"] for n, _ in enumerate(case.kind.arrays)} == {4}, case
    assert damaged(await compared(site, schema_map)) == []

    # Rows change, keys change, parents leave under any DateStyle.
    await write(
        site,
        "SET datestyle = 'German'; SET bytea_output = 'escape';"
        + "".join(
            f"UPDATE w_{case.parents} SET title = 'changed' WHERE k = {case.value(1)};"
            f"UPDATE w_{case.children} SET k = {case.value(5)}, title = 'child 5' WHERE k = {case.value(3)};"
            f"DELETE FROM w_{case.parents} WHERE k = {case.value(4)};"
            for case in cases
        ),
    )
    result = await engine.run_cycle(site.context())
    assert [table.error for table in result.tables if table.error] == []
    for case in cases:
        found = await counts(site, case)
        assert (found["parents"], found["children"], found["following"]) == (2, "child 1,child 5", 0), case
        assert {found[f"l{n}"] for n, _ in enumerate(case.kind.arrays)} == {2}, case
    assert damaged(await compared(site, schema_map)) == []

    # Everything leaves.
    await write(
        site,
        "".join(f"DELETE FROM w_{case.children}; TRUNCATE w_{case.parents};" for case in cases),
    )
    result = await engine.run_cycle(site.context())
    assert [table.error for table in result.tables if table.error] == []
    assert result.parked == 0
    for case in cases:
        found = await counts(site, case)
        assert (found["parents"], found["children"]) == (0, None), case
    assert damaged(await compared(site, schema_map)) == []


async def _ids_are_made_as_the_map_says(site: TestGraph, cases: list[Case]) -> None:
    for case in cases:
        form = case.kind.form.format(n=1)
        if case.rule is IdRule.HASH:
            expected = await read(site, f"SELECT 1, title FROM {case.parents} WHERE id = '{key_uuid(form)}'")
        elif case.rule is IdRule.UUID5:
            name = uuid5(NAMESPACE, form)
            expected = await read(site, f"SELECT 1, title FROM {case.parents} WHERE id = '{name}'")
        elif case.rule is IdRule.SAME:
            expected = await read(site, f"SELECT nr, title FROM {case.parents} WHERE nr = {case.value(1)}")
        elif case.rule is IdRule.ASSIGNED:
            expected = await read(site, f"SELECT 1, title FROM {case.parents} WHERE id < 3 AND title = 'p1'")
        elif case.rule is IdRule.COLUMN:
            connection = await site.connect_write()
            uid = await connection.fetchval(f"SELECT uid FROM kg.w_{case.parents} WHERE title = 'p1'")
            await connection.close()
            expected = await read(site, f"SELECT 1, title FROM {case.parents} WHERE id = '{uid}'")
        else:
            made = case.kind.expression.replace("$1", f"({case.value(1)})::{case.kind.type}")
            expected = await read(site, f'SELECT 1, title FROM {case.parents} WHERE "Made by" = {made}')
        assert [title for _, title in expected] == ["p1"], case


async def _rows_are_known_by_their_keys(site: TestGraph, schema_map: SchemaMap, cases: list[Case]) -> None:
    context = site.context()
    for case in cases:
        shown = case.kind.form.format(n=1)
        typed = shown.upper() if case.kind.type == "uuid" else shown
        row = await explain(
            context.write, context.target, context.vectors, schema_map, table=case.children, key=[typed]
        )
        assert (row.key, row.graph.exists, row.waits_in_all) == ((shown,), True, 1 + len(case.kind.arrays)), (
            row
        )
        waiting = await explain(
            context.write,
            context.target,
            context.vectors,
            schema_map,
            table=case.children,
            key=[case.kind.form.format(n=2)],
        )
        assert waiting.state is RowState.PARKED, (case, waiting)
        page = await list_parked(context.target, schema_map, case.children)
        assert {(entry.key[0], entry.waits_for_key) for entry in page.entries} == {
            (shown, case.kind.form.format(n=3)),
            (shown, case.kind.form.format(n=4)),
            (case.kind.form.format(n=2), case.kind.form.format(n=4)),
        }, case
    summary = await summarize_parked(context.write, context.target, schema_map, limit=1000)
    assert {row.obstacle.value for row in summary.awaited} == {"missing"}


SHOP = SchemaMap(
    name="shop",
    tables=(
        TableMap(
            name="customers",
            source="w_customers",
            types={"id": "bigint", "friends": "bigint[]"},
            id=Id(rule=IdRule.SAME),
            stamped=False,
            columns=(Column(name="name"), Column(name="mail")),
            links=(
                Links(
                    table="friends",
                    source="friends",
                    owner="one",
                    member="other",
                    parent="customers",
                    rejected_by="quarrels",
                ),
            ),
        ),
        TableMap(
            name="quarrels",
            source="w_quarrels",
            key=("one", "other"),
            types={"one": "bigint", "other": "bigint"},
            stamped=False,
            references=(
                Reference(column="one", parent="customers", required=True, target="a"),
                Reference(column="other", parent="customers", required=True, target="b"),
            ),
        ),
        TableMap(
            name="goods",
            source="w_goods",
            key=("sku",),
            id=Id(rule=IdRule.UUID5, namespace=str(NAMESPACE), key="sku"),
            columns=(Column(name="name"),),
        ),
        # A key of several columns with an id made of them.
        TableMap(
            name="orders",
            source="w_orders",
            key=("shop", "number"),
            types={"shop": "smallint", "number": "bigint", "customer": "bigint", "giver": "bigint"},
            id=Id(rule=IdRule.EXPRESSION, expression="$1::text || '/' || $2", type="text", column="nr"),
            stamped=False,
            columns=(Column(name="note"),),
            references=(
                Reference(column="customer", parent="customers", required=True),
                Reference(column="giver", parent="customers", required=False),
            ),
            links=(Links(table="order_goods", source="skus", owner="o", member="g", parent="goods"),),
        ),
        # One that stays as it is: a reference, and a number of its own.
        TableMap(
            name="addresses",
            source="w_addresses",
            key=("customer", "place"),
            types={"customer": "bigint", "place": "integer"},
            references=(Reference(column="customer", parent="customers", required=True, target="of"),),
            columns=(Column(name="street"),),
        ),
        TableMap(
            name="days",
            source="w_days",
            key=("day", "hour"),
            types={"day": "date", "hour": "smallint"},
            stamped=False,
            columns=(Column(name="sold", type="numeric"),),
        ),
        TableMap(
            name="stamps",
            source="w_stamps",
            key=("day", "code"),
            types={"day": "date", "code": "uuid"},
            id=Id(rule=IdRule.HASH),
            columns=(Column(name="sold", type="numeric"),),
        ),
    ),
)
SHOP_SOURCE = """
CREATE TABLE w_customers (id bigint PRIMARY KEY, name text, mail text, friends bigint[]);
CREATE TABLE w_quarrels (one bigint, other bigint, PRIMARY KEY (one, other));
CREATE TABLE w_goods (sku text PRIMARY KEY, name text);
CREATE TABLE w_orders (
    shop smallint, number bigint, note text, customer bigint, giver bigint, skus text[], PRIMARY KEY (shop, number)
);
CREATE TABLE w_addresses (customer bigint, place integer, street text, PRIMARY KEY (customer, place));
CREATE TABLE w_days (day date, hour smallint, sold numeric, PRIMARY KEY (day, hour));
CREATE TABLE w_stamps (day date, code uuid, sold numeric, PRIMARY KEY (day, code));
INSERT INTO w_customers VALUES (1, 'Ann', 'a@x', '{2,3,9}'), (2, 'Bob', 'b@x', '{1}'), (3, 'Cy', 'c@x', NULL);
INSERT INTO w_quarrels VALUES (1, 3), (2, 9);
INSERT INTO w_goods VALUES ('s1', 'spade'), ('s2', 'saw');
INSERT INTO w_orders VALUES (1, 10, 'first', 1, 2, '{s1,s2,s9}'), (1, 11, 'second', 2, 9, '{}'), (2, 10, 'waits', 9, 1, '{s1}');
INSERT INTO w_addresses VALUES (1, 1, 'A'), (1, 2, 'B'), (9, 1, 'waits');
INSERT INTO w_days VALUES ('2020-02-29', 7, 1.50), ('0044-03-15 BC', 1, 2), ('infinity', 1, 3), ('12020-01-01', 1, 4);
INSERT INTO w_stamps VALUES ('2020-02-29', '0000000a-0000-4000-8000-00000000000B', 1);
"""
SHOP_TARGET = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, name text CHECK (name <> 'nobody'), mail text UNIQUE
);
CREATE TABLE friends (
    one bigint REFERENCES customers, other bigint REFERENCES customers, PRIMARY KEY (one, other)
);
CREATE TABLE quarrels (
    a bigint REFERENCES customers, b bigint REFERENCES customers, PRIMARY KEY (a, b)
);
CREATE TABLE goods (id uuid PRIMARY KEY, sku text, name text, sync_version bigint, sync_run bigint);
CREATE TABLE orders (
    nr text PRIMARY KEY, shop smallint, number bigint, note text, customer bigint NOT NULL REFERENCES customers,
    giver bigint REFERENCES customers
);
CREATE TABLE order_goods (o text REFERENCES orders, g uuid REFERENCES goods, PRIMARY KEY (o, g));
CREATE TABLE addresses (
    "of" bigint REFERENCES customers, place integer, street text, sync_version bigint, sync_run bigint,
    PRIMARY KEY ("of", place)
);
CREATE TABLE days (
    day date, hour smallint, sold numeric, PRIMARY KEY (day, hour)
);
CREATE TABLE stamps (
    id uuid PRIMARY KEY, day date, code uuid, sold numeric, sync_version bigint, sync_run bigint
);
"""
ORDERS = "SELECT nr, customer, giver, (SELECT count(*) FROM order_goods WHERE o = nr) FROM orders ORDER BY 1"
FRIENDS = "SELECT one, other FROM friends ORDER BY 1, 2"


async def test_keys_of_several_columns(site: TestGraph) -> None:
    await prepare(site, SHOP, SHOP_SOURCE, SHOP_TARGET)
    engine = SyncEngine(SHOP)
    result = await engine.run_cycle(site.context())
    assert [table.error for table in result.tables if table.error] == []
    assert await read(site, ORDERS) == [("1/10", 1, 2, 2), ("1/11", 2, None, 0)]
    assert await read(site, FRIENDS) == [(1, 2), (2, 1)]
    assert await read(site, 'SELECT "of", place FROM addresses ORDER BY 1, 2') == [(1, 1), (1, 2)]
    assert await read(site, "SELECT count(*) FROM days") == [(4,)]
    # An address, an order, a quarrel; a giver, a friend, a good.
    assert result.parked == 6
    assert damaged(await compared(site, SHOP)) == []

    # What was missing arrives; values of a unique column change hands; a quarrel ends.
    await write(
        site,
        "SET datestyle = 'German';"
        "INSERT INTO w_customers VALUES (9, 'Zoe', 'z@x', '{}'); INSERT INTO w_goods VALUES ('s9', 'sieve');"
        "UPDATE w_customers SET mail = CASE id WHEN 1 THEN 'b@x' ELSE 'a@x' END WHERE id < 3;"
        "DELETE FROM w_quarrels WHERE one = 1; DELETE FROM w_days WHERE hour = 1;"
        "UPDATE w_stamps SET day = '2020-03-01'",
    )
    result = await engine.run_cycle(site.context())
    assert (result.status, result.parked) == (CycleStatus.DRAINED, 0)
    assert await read(site, ORDERS) == [("1/10", 1, 2, 3), ("1/11", 2, 9, 0), ("2/10", 9, 1, 1)]
    assert await read(site, FRIENDS) == [(1, 2), (1, 3), (1, 9), (2, 1)]
    assert await read(site, "SELECT mail FROM customers ORDER BY id") == [
        ("b@x",),
        ("a@x",),
        ("c@x",),
        ("z@x",),
    ]
    assert await read(site, "SELECT sold::text FROM days") == [("1.50",)]
    assert damaged(await compared(site, SHOP)) == []
    context = site.context()
    row = await explain(
        context.write, context.target, context.vectors, SHOP, table="orders", key=["01", "10"]
    )
    assert (row.key, row.state, row.graph.exists) == (("1", "10"), RowState.IN_STEP, True)

    # A parent leaves: what hangs on it is removed, or parked by its own key.
    await write(site, "DELETE FROM w_customers WHERE id = 9")
    result = await engine.run_cycle(site.context())
    assert result.parked == 5
    assert await read(site, ORDERS) == [("1/10", 1, 2, 3), ("1/11", 2, None, 0)]
    assert damaged(await compared(site, SHOP)) == []
    page = await list_parked(context.target, SHOP, "orders")
    assert {entry.key for entry in page.entries} == {("1", "11"), ("2", "10")}


async def test_rows_whose_deletes_were_not_captured_are_found_by_their_keys(site: TestGraph) -> None:
    await prepare(site, SHOP, SHOP_SOURCE, SHOP_TARGET)
    engine = SyncEngine(SHOP)
    await engine.run_cycle(site.context())
    connection = await site.connect_target()
    await connection.execute(
        "INSERT INTO customers VALUES (77, 'stray', 's@x');"
        "INSERT INTO addresses VALUES (77, 5, 'stray', 1, 1);"
        "INSERT INTO orders VALUES ('7/7', 7, 7, 'stray', 1, NULL);"
        "INSERT INTO days VALUES ('2001-01-01', 3, 0);"
        "INSERT INTO goods VALUES (syncline.uuid5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'sx'), 'sx', 'stray', 1, 1)"
    )
    before = damaged(await compared(site, SHOP))
    assert [line[0] for line in before if isinstance(line, tuple)] == [
        "customers", "goods", "orders", "addresses", "days",
    ]  # fmt: skip
    names = ", ".join(f"('{table.name}', 'a test')" for table in SHOP)
    await connection.execute(f"INSERT INTO sync_comparison (table_name, reason) VALUES {names}")
    await connection.close()
    result = await engine.run_cycle(site.context())
    assert [table.error for table in result.tables if table.error] == []
    assert damaged(await compared(site, SHOP)) == []
    assert await read(site, "SELECT count(*) FROM sync_comparison") == [(0,)]


@pytest.mark.long("test_keys_of_several_columns")
async def test_a_rejected_row_is_known_by_its_number(site: TestGraph) -> None:
    await prepare(site, SHOP, SHOP_SOURCE, SHOP_TARGET)
    engine = SyncEngine(SHOP)
    await write(
        site, "INSERT INTO w_customers VALUES (30, 'nobody', 'n@x', '{1}'), (31, 'Nan', 'o@x', '{30}')"
    )
    result = await engine.run_cycle(site.context())
    assert result.failures == 1
    assert await read(site, "SELECT key FROM sync_dead_letter") == [(["30"],)]
    letter = await show(site.context().target, "customers", ["30"])
    assert letter is not None
    await write(site, "UPDATE w_customers SET name = 'Ned' WHERE id = 30")
    await engine.run_cycle(site.context())
    assert await read(site, "SELECT name FROM customers WHERE id >= 30 ORDER BY id") == [("Ned",), ("Nan",)]
    assert await read(site, FRIENDS + " OFFSET 2") == [(30, 1), (31, 30)]
    assert damaged(await compared(site, SHOP)) == []


async def test_capture_reads_keys_by_their_own_index(site: TestGraph) -> None:
    await prepare(site, SHOP, SHOP_SOURCE, SHOP_TARGET)
    statements = SchemaStatements(SHOP)
    connection = await site.connect_write()
    await connection.execute(
        "INSERT INTO w_customers SELECT i, 'c' || i, 'm' || i, NULL FROM generate_series(100, 5000) i;"
        "INSERT INTO w_stamps SELECT '2020-01-01', gen_random_uuid(), i FROM generate_series(1, 5000) i;"
        "ANALYZE w_customers; ANALYZE w_stamps"
    )
    cursors = {
        "customers": Cursor(xid=1000, key=("4000",)),
        "stamps": Cursor(xid=1000, key=("2020-01-01", "0000000a-0000-4000-8000-00000000000b")),
    }
    for name, cursor in cursors.items():
        table = statements.tables[name]
        plan = await connection.fetch(
            "EXPLAIN " + table.capture("kg", cursor, limit=10), *cursor.parameters(), "100000"
        )
        told = "\n".join(row[0] for row in plan)
        assert f"using w_{name}_sync" in told
        assert "Sort" not in told
        assert "ROW(sync_xid" in told.partition("Index Cond")[2]
        keys = [[part] for part in cursor.key or ()]
        plan = await connection.fetch("EXPLAIN " + table.capture_by_key("kg"), *keys)
        assert f"using w_{name}_pkey" in "\n".join(row[0] for row in plan)
    await connection.close()


async def test_only_texts_in_the_form_of_a_uuid_are_read_as_one(site: TestGraph) -> None:
    """Whatever stands where a hyphen or a digit belongs: none is an error, and none is read."""
    form = "0a1b2c3d-0000-4000-8000-9f9e9d9c9b9a"
    odd = [
        form.upper(),
        form[:-1],
        form + "0",
        form + "\n",
        "-" * 36,
        "",
        "\u0661" + form[1:],
        form.replace("-", "0"),
    ]
    odd += [f"{form[:place]}{sign}{form[place + 1 :]}" for place in (0, 8, 9, 35) for sign in "-_%g\n\\"]
    texts = ", ".join(f"E'{text!s}'".replace("\\", "\\\\").replace("\n", "\\n") for text in [form, *odd])
    read_as = safe(key_type("uuid"), "v")
    found = await read(site, f"SELECT v, {read_as}::text AS id FROM unnest(ARRAY[{texts}]) v")
    expected = [
        text if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) else None
        for text in [form, *odd]
    ]
    assert [row["id"] for row in found] == expected


async def test_uuid5_is_the_one_of_every_library(site: TestGraph) -> None:
    connection = await site.connect_target()
    try:
        for length in (0, 1, 38, 39, 40, 47, 48, 55, 56, 103, 104, 500):
            name = ("aé\\'x\"" * length)[:length]
            made = await connection.fetchval("SELECT syncline.uuid5($1, $2)", NAMESPACE, name)
            assert made == uuid5(NAMESPACE, name), length
    finally:
        await connection.close()
