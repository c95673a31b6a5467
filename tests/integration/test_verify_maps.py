"""Verification of a table map of one's own: other types, expressions, keys, and rows that break an expression."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import Column, Reference, SchemaMap, Stat, Stats, SyncEngine, TableMap
from syncline.messages.sync import CycleStatus
from syncline.messages.verification import Verdict, Verification
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

SHOP = SchemaMap(
    name="shop",
    tables=(
        TableMap(
            name="brands",
            source="brand_rows",
            columns=(Column(name="name"), Column(name="country")),
        ),
        TableMap(
            name="goods",
            source="good_rows",
            key=("sku",),
            # Of one row this cannot be asked: it is refused, and must not be in the way of the others.
            present="(attributes ->> 'stock')::integer > 0",
            source_only=(Column(name="attributes", type="jsonb"),),
            columns=(
                Column(name="price", type="numeric"),
                Column(name="kind"),
                Column(name="weight", type="double precision"),
                Column(name="since", type="interval"),
                Column(name="moment", type="timestamptz"),
                Column(name="bytes", type="bytea"),
                Column(name="label"),
            ),
            references=(
                Reference(column="brand", parent="brands", required=True, by="name", target="brand_id"),
                Reference(column="variant_of", parent="goods", required=False),
            ),
            expressions={
                "label": "upper(s.kind) || ':' || (s.attributes ->> 'stock')",
                "has_parent": "s.ref_variant_of IS NOT NULL",
            },
            stats=Stats(
                table="good_numbers",
                owner="good_id",
                columns=(
                    Stat(column="pairs", counted="pairs", by=("one", "other")),
                    Stat(column="mean", counted="pairs", by=("one", "other"), value="avg(c.strength)"),
                ),
            ),
        ),
        TableMap(
            name="pairs",
            source="pair_rows",
            key=("one", "other"),
            references=(
                Reference(column="one", parent="goods", required=True),
                Reference(column="other", parent="goods", required=True),
            ),
            columns=(Column(name="strength", type="double precision"),),
        ),
    ),
)

KEY = "k1\\\\a'\""
"""A key with all that quoting could go wrong with."""

WRITE = """
CREATE TABLE brand_rows (id text PRIMARY KEY, name text, country text);
CREATE TABLE good_rows (
    sku text PRIMARY KEY, attributes jsonb, price numeric, kind text, weight double precision, since interval,
    moment timestamptz, bytes bytea, label text, brand text, variant_of text
);
CREATE TABLE pair_rows (one text, other text, strength double precision, PRIMARY KEY (one, other));
INSERT INTO brand_rows VALUES ('b1', 'Acme', 'AT'), ('b2', 'Acme', 'BE'), ('b3', 'Müller & Söhne \\\\ "x", (y)', NULL);
INSERT INTO good_rows VALUES
    ('k1\\\\a''"', '{"stock": 1}', 1.50, 'tool', 0.1, '1 day', '2024-02-29 12:00+05', '\\xdeadbeef', '', 'Acme', NULL),
    ('ключ', '{"stock": 2}', 2, 'toy', 'NaN', '24 hours', 'infinity', '', NULL, 'Acme', 'k1\\\\a''"'),
    ('k3', '{"stock": 3}', 'NaN', NULL, '-0', '-1 mon +2 days', '0044-03-15 BC', NULL, NULL, 'Müller & Söhne \\\\ "x", (y)', 'later'),
    ('k4', '{"stock": 0}', 1, 'toy', 1, NULL, NULL, NULL, NULL, 'Acme', NULL),
    ('k5', '{"stock": 5}', 1, 'toy', 1, NULL, NULL, NULL, NULL, 'Unheard of', NULL);
INSERT INTO pair_rows SELECT a.sku, b.sku, 0.1 * length(a.sku || b.sku)
    FROM good_rows a, good_rows b WHERE a.sku <> 'k4' AND b.sku <> 'k4';
"""
TARGET = """
CREATE TABLE brands (id uuid PRIMARY KEY, key text NOT NULL, name text, country text, sync_version bigint, sync_run bigint);
CREATE TABLE goods (
    id uuid PRIMARY KEY, key text NOT NULL, price numeric, kind text, weight double precision, since interval,
    moment timestamptz, bytes bytea, label text, has_parent boolean, brand_id uuid REFERENCES brands,
    variant_of uuid REFERENCES goods, sync_version bigint, sync_run bigint
);
CREATE TABLE pairs (
    one uuid REFERENCES goods ON DELETE CASCADE, other uuid REFERENCES goods ON DELETE CASCADE,
    strength double precision, sync_version bigint, sync_run bigint, PRIMARY KEY (one, other)
);
CREATE TABLE good_numbers (good_id uuid PRIMARY KEY REFERENCES goods ON DELETE CASCADE, pairs bigint DEFAULT 0, mean double precision);
ALTER DATABASE "%s" SET timezone = 'Asia/Tokyo';
ALTER DATABASE "%s" SET datestyle = 'German';
ALTER DATABASE "%s" SET extra_float_digits = 0;
ALTER DATABASE "%s" SET intervalstyle = 'iso_8601';
ALTER DATABASE "%s" SET bytea_output = 'escape';
"""


@pytest_asyncio.fixture(loop_scope="session")
async def shop(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        name = graph.target_dsn.partition("@/")[2].partition("?")[0]
        # First, since a server's settings are those of the connections that come after them.
        await made_by(graph, write=WRITE, target=TARGET.replace("%s", name))
        await migrate_bookkeeping(graph.target, "kg")
        await adopt(graph.write, "kg", SHOP)
        yield graph


async def verified(graph: TestGraph, *, repair: bool = False) -> Verification:
    context = graph.context()
    return await verify(
        SHOP, write=context.write, target=context.target, vectors=None, embedding="none",
        repair=repair, who="tester", why="a test",
    )  # fmt: skip


def told(found: Verification) -> dict[tuple[str, str], tuple[tuple[str, ...], ...]]:
    return {
        (relation.name, verdict.value): relation.found(verdict).keys
        for relation in found.relations
        for verdict in Verdict
        if relation.found(verdict).count
    }


PARKED = {
    ("goods", "parked"): (("k3",), ("k5",)),
    ("pairs", "parked"): (
        ("k5", KEY), ("k5", "k5"), ("k5", "ключ"), ("k3", "k5"), ("k5", "k3"), (KEY, "k5"), ("ключ", "k5"),
    ),
}  # fmt: skip


async def cycle(shop: TestGraph) -> None:
    assert (await SyncEngine(SHOP).run_cycle(shop.context())).status is CycleStatus.DRAINED


async def test_any_type_key_and_setting_of_the_servers_reads_the_same_on_both_sides(shop: TestGraph) -> None:
    await cycle(shop)
    assert [row[0] for row in await read(shop, "SHOW timezone")] == ["Asia/Tokyo"]
    found = await verified(shop)
    assert found.equal
    assert told(found) == PARKED
    assert {relation.name: relation.equal for relation in found.relations} == {
        "brands": 3, "goods": 2, "good_numbers": 3, "pairs": 9,
    }  # fmt: skip


async def test_every_value_of_a_row_is_compared(shop: TestGraph) -> None:
    await cycle(shop)
    for column, value in (
        ("price", "1.5"),
        ("kind", "'toy'"),
        ("weight", "0.1::float8 + 1e-17 * 2"),
        ("since", "'24 hours'"),
        ("moment", "moment + '1 microsecond'"),
        ("bytes", "'\\xdeadbeee'"),
        ("label", "'TOOL:2'"),
        ("brand_id", "(SELECT id FROM brands WHERE key = 'b3')"),
        ("variant_of", "id"),
    ):
        await on_target(shop, f"UPDATE goods SET {column} = {value} WHERE price = 1.50")
        found = await verified(shop, repair=True)
        assert told(found) == PARKED | {("goods", "stale"): ((KEY,),)}, column
        await cycle(shop)
        assert (await verified(shop)).equal, column


@pytest.mark.long("test_every_value_of_a_row_is_compared")
async def test_one_parent_of_a_value_is_as_good_as_another(shop: TestGraph) -> None:
    await cycle(shop)
    await on_target(
        shop,
        "UPDATE goods SET brand_id = (SELECT id FROM brands b WHERE b.name = 'Acme' AND b.id <> brand_id)"
        " WHERE price = 2",
    )
    assert (await verified(shop)).equal


async def test_a_row_that_breaks_an_expression_is_refused_and_the_others_are_compared(
    shop: TestGraph,
) -> None:
    bad = """('bad', '{"stock": "many"}', 'Acme')"""
    await write(shop, f"INSERT INTO good_rows (sku, attributes, brand) VALUES {bad}")
    # While it is on its way nothing asks it either.
    found = await verified(shop)
    assert not any(relation.problem for relation in found.relations)
    assert ("bad",) in told(found)["goods", "pending"]
    await cycle(shop)
    found = await verified(shop)
    assert found.equal
    assert told(found) == PARKED | {("goods", "dead"): (("bad",),)}
    # Its letter goes with it.
    await write(shop, "DELETE FROM good_rows WHERE sku = 'bad'")
    assert told(await verified(shop)) == PARKED | {("goods", "pending"): (("bad",),)}
    await cycle(shop)
    assert told(await verified(shop)) == PARKED


@pytest.mark.long("test_every_value_of_a_row_is_compared")
async def test_a_mean_that_differs_in_its_last_digit_is_the_same(shop: TestGraph) -> None:
    await cycle(shop)
    await on_target(shop, "UPDATE good_numbers SET mean = mean * (1 + 1e-15)")
    assert (await verified(shop)).equal
    await on_target(shop, "UPDATE good_numbers SET mean = mean * 1.001, pairs = pairs WHERE pairs > 0")
    found = await verified(shop, repair=True)
    assert len(told(found)["good_numbers", "stale"]) == 3
    assert (await verified(shop)).equal
