"""examples/shop: tables that nobody made for a copy are synced by the commands of docs/maps.md alone.

The graph is the default one, in schema public; owner, worker and reader have the rights that are printed for them.
"""

import json
import re
import shlex
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.client import Client

from providers import BUILTIN
from syncline.control.services import Services
from syncline.settings import Settings
from syncline.sql import quoted
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from tests.kit.databases import execute, rows
from tests.workflow.conftest import fast_worker, serving

SHOP = Path(__file__).parents[2] / "examples" / "shop"
HAND = {"customer": ["expression of email added"], "staff": ["present changed"]}
CHANGES = """
UPDATE film SET title = 'Renamed', rating = 'R', special_features = '{"Trailer","Song"}' WHERE film_id = 7;
UPDATE "OrderItem" SET "lineNo" = 9 WHERE order_id = 3 AND "lineNo" = 2;
UPDATE payment SET paid_at = paid_at + interval '31 days' WHERE payment_id = 5;
UPDATE staff SET active = false WHERE staff_id = 2;
UPDATE staff SET manager_id = NULL, picture = '\\x00ff' WHERE staff_id = 8;
DELETE FROM film_category WHERE film_id = 4;
DELETE FROM "order" WHERE order_id = 10;
DELETE FROM payment WHERE payment_id BETWEEN 20 AND 30;
"""
PARTITIONS = (
    """
    CREATE TABLE payment_2026_03 (LIKE payment INCLUDING ALL);
    INSERT INTO payment_2026_03 (payment_id, customer_id, amount, paid_at)
    SELECT 1000 + n, n, n, timestamp '2026-03-01' + n * interval '1 h' FROM generate_series(1, 20) n;
    ALTER TABLE payment ATTACH PARTITION payment_2026_03 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
    """,
    "ALTER TABLE payment DETACH PARTITION payment_2026_01",
    "DROP TABLE payment_2026_02",
)
SAME = (
    "SELECT country_id, name FROM country",
    "SELECT store_id, city, country_id FROM store",
    "SELECT category_id, name FROM category",
    "SELECT film_id, title, description, rating::text, rental_rate, special_features, first_shown FROM film",
    "SELECT film_id, category_id, since FROM film_category",
    'SELECT order_id, customer_id, placed_at FROM "order"',
    'SELECT order_id, "lineNo", film_id, "unitPrice", quantity FROM "OrderItem"',
    'SELECT return_id, order_id, "lineNo", reason FROM item_return',
    "SELECT payment_id, customer_id, staff_id, amount, paid_at FROM payment",
    "SELECT customer_id, store_id, lower(email), born, created_at, last_seen FROM customer",
)
STAFF = "SELECT staff_id, store_id, manager_id, full_name, picture, active FROM staff"
STAFF_THERE = (
    "SELECT s.staff_id, s.store_id, m.staff_id, s.full_name, s.picture, s.active"
    " FROM staff s LEFT JOIN staff m ON m.staff_id = s.manager_id AND m.active WHERE s.active"
)


@dataclass(frozen=True)
class Site:
    """Two databases, three roles and a worker; nobody but the administrator is a superuser."""

    write: str
    graph: str
    owner: str
    worker: str
    reader: str
    command: CommandLine

    async def run(self, *arguments: str) -> str:
        """Run a command that has to succeed, and return what it printed."""
        said = await self.command(*arguments)
        if said.status:
            raise AssertionError(f"{arguments}: {said.err or said.out}")
        return said.out

    async def grant(self, *arguments: str) -> None:
        """Have an administrator run what `syncline grants` prints, database by database."""
        roles = ("--owner", self.owner, "--worker", self.worker, "--reader", self.reader, "--worker-creates")
        printed: Any = await self.command.answer("grants", *roles, *arguments)
        for database in printed:
            await execute(self.write if database["name"] == "write-db" else self.graph, database["sql"])

    async def write_as_owner(self, sql: str) -> None:
        await execute(as_role(self.write, self.owner), sql)

    async def copied(self, sql: str) -> list[tuple[object, ...]]:
        """Return what the reader sees in the graph-db."""
        return await rows(as_role(self.graph, self.reader), sql)


def as_role(dsn: str, role: str) -> str:
    return dsn.replace("postgres@", f"{role}@")


async def equal(site: Site, *, verified: bool = True) -> None:
    """The reader sees what is in the shop, and `verify` says so too."""
    for there, here in (*((sql, sql) for sql in SAME), (STAFF_THERE, STAFF)):
        expected, found_here = await rows(site.write, there), await site.copied(here)
        assert sorted(map(repr, expected)) == sorted(map(repr, found_here)), here
    if not verified:
        return
    found: Any = await site.command.answer("verify", "shop")
    assert found["not_compared"] == []
    assert [relation for relation in found["relations"] if relation.get("damaged")] == []


Admin = Callable[[str], object]


@asynccontextmanager
async def opened_site(
    client: Client,
    environment: dict[str, str],
    databases: tuple[str, str],
    roles: Sequence[str],
    unique: Callable[[str], str],
    folder: Path,
) -> AsyncIterator[Site]:
    """Serve two empty databases for roles that are there: owner, worker, reader."""
    write, graph = databases
    owner, worker, reader = roles
    settings = Settings(
        write_dsn=SecretStr(as_role(write, worker)),
        graph_dsn=SecretStr(as_role(graph, worker)),
        qdrant_path=folder / "qdrant",
        task_queue=unique("queue"),
        owner_role=owner,
        graceful_shutdown_seconds=1,
        pool_size=4,
    )
    command = CommandLine(
        {
            **environment,
            "SYNCLINE_TASK_QUEUE": settings.task_queue,
            "SYNCLINE_WRITE_DSN": as_role(write, owner),
            "SYNCLINE_GRAPH_DSN": as_role(graph, owner),
        },
        folder,
    )
    here = Site(write=write, graph=graph, owner=owner, worker=worker, reader=reader, command=command)
    await here.grant("--schema", "public")
    await here.run("migrate")
    await here.grant("--schema", "public")
    async with Services.open(settings) as services:
        services.registry.load(BUILTIN, entry_points=False)
        lab = SyncLab(client=client, services=services, make_worker=fast_worker, unique=unique)
        async with serving(lab):
            yield here


def made_roles(unique: Callable[[str], str], postgres_admin: Admin) -> list[str]:
    """Make the roles of owner, worker and reader."""
    roles = [unique(word).replace("-", "_") for word in ("owner", "worker", "reader")]
    for role in roles:
        postgres_admin(f"CREATE ROLE {quoted(role)} LOGIN")
    return roles


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    temporal_client: Client,
    temporal_environment: dict[str, str],
    new_database: Callable[..., str],
    postgres_admin: Admin,
    unique: Callable[[str], str],
    tmp_path: Path,
) -> AsyncIterator[Site]:
    roles = made_roles(unique, postgres_admin)
    databases = new_database(), new_database()
    async with opened_site(temporal_client, temporal_environment, databases, roles, unique, tmp_path) as here:
        yield here


@pytest.mark.long("workflow/test_stored_maps.py::test_a_map_goes_from_a_file_to_a_synced_graph")
async def test_a_shop_is_synced_by_commands_alone(site: Site, tmp_path: Path) -> None:
    for file in SHOP.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    await as_written(site, tmp_path)
    await equal(site)
    assert await site.copied("SELECT film_id FROM film WHERE search @@ '39'") == [(39,)]
    assert await site.copied("SELECT total FROM order_total WHERE order_id = 1") == [(Decimal(21),)]
    examined: Any = await site.command("doctor", "--json")
    failing = {check["name"] for check in json.loads(examined.out)["checks"] if check["status"] == "fail"}
    # Graphs of other tests may be in the control plane.
    others = {name for name in failing if name.startswith("graph ") and name != "graph shop"}
    assert failing - others <= {"reconciler"}, examined.out

    await site.write_as_owner(CHANGES)
    await site.run("sync", "shop")
    await equal(site, verified=False)
    for change in PARTITIONS:
        await site.write_as_owner(change)
        await site.run("sync", "shop")
        await equal(site, verified=change is PARTITIONS[-1])


async def as_written(site: Site, folder: Path) -> None:
    """Follow the README as somebody who reads what is said."""
    [block] = re.findall(r"```sh\n(.*?)```", (SHOP / "README.md").read_text(), re.DOTALL)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        if program == "psql":
            dsn = site.write if arguments.pop(0) == "$WRITE_DB" else site.graph
            for option, what in batched(arguments):
                script = what if option == "-c" else (SHOP / what).read_text()
                await execute(as_role(dsn, site.owner), script)
        elif arguments[0] == "grants":
            await site.grant(arguments[1])
        elif arguments[:3] == ["map", "check", "shop.yaml"]:
            checked: Any = await site.command.answer("map check", *arguments[2:], status=1)
            [misfit] = [each for each in checked["misfits"] if each["weight"] == "error"]
            assert (misfit["table"], misfit["line"]) == ("film", 70)
            assert misfit["statement"].endswith('"film_id" SET GENERATED BY DEFAULT')
        elif arguments[:2] == ["map", "diff"]:
            differs: Any = await site.command.answer("map diff", *arguments[2:])
            assert {table["table"]: table["what"] for table in differs["tables"]} == HAND
            ours = (SHOP / "shop.yaml").read_text().splitlines()
            proposed = (folder / "proposed.yaml").read_text().splitlines()
            assert [line for line in ours if "# by hand" not in line] == proposed
        elif arguments[-2:-1] == [">"]:
            (folder / arguments[-1]).write_text(await site.run(*arguments[:-2]))
        else:
            alone = ["--no-schedule"] if arguments[:2] == ["graph", "add"] else []
            await site.run(*arguments, *alone)


def batched(words: list[str]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)
